"""Fine-tuning the huge model.

The authors published no script for this size: all is as for the base model but
the drop path, which is the 0.3 that FINETUNE.md of MAE's code gives its huge
model. Its 50 epochs, base rate 1e-3 and layer decay 0.75 are not taken over.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(arch='huge', drop_path_rate=0.3),
    head=dict(in_channels=2816),
)
train_dataloader = dict(batch_size=64)
