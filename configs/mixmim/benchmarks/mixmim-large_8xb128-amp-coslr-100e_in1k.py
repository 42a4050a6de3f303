"""Fine-tuning the large model.

The authors published no script for this size. Everything is as for the base model
except drop path: 0.2, as FINETUNE.md of MAE's code sets it for its large model.
Its 50 epochs, base learning rate of 1e-3 and layer decay of 0.75 are not adopted.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    head=dict(in_channels=_base_.channels.large[-1]),
)
