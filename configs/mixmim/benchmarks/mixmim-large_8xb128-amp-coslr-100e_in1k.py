"""Fine-tuning the large model.

The authors published no script for this size: all is as for the base model but
the drop path, which is the 0.2 that FINETUNE.md of MAE's code gives its large
model. Its 50 epochs, base rate 1e-3 and layer decay 0.75 are not taken over.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    head=dict(in_channels=1536),
)
