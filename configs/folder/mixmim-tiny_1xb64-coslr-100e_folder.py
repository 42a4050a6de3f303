"""Fine-tuning the tiny model on your own labelled images, as the base model."""

_base_ = [
    'mixmim-base_1xb64-coslr-100e_folder.py',
    '../_base_/backbones/mixmim_tiny.py',
]

model = dict(
    backbone=dict(arch=dict(_delete_=True, **_base_.tiny_arch)),
    head=dict(in_channels=_base_.tiny_channels[-1]),
)
