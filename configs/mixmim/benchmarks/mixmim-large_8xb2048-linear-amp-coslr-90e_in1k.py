"""Linear probing of the large model.

The authors published no linear probing; everything is as for the base model.
FINETUNE.md of MAE's code trains this size for 50 epochs, which is enough there.
"""

_base_ = 'mixmim-base_8xb2048-linear-amp-coslr-90e_in1k.py'

model = dict(
    backbone=dict(arch='large'),
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=_base_.channels.large[-1]),
    ],
    head=dict(in_channels=_base_.channels.large[-1]),
)
