"""Linear probing of the huge model, as of the base model."""

_base_ = 'mixmim-base_8xb2048-linear-amp-coslr-90e_in1k.py'

model = dict(
    backbone=dict(arch='huge'),
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=2816),
    ],
    head=dict(in_channels=2816),
)
