"""The large model. The authors published no script for it: as for the base model."""

_base_ = 'mixmim_mixmim-base_16xb128-amp-coslr-600e_in1k.py'

model = dict(backbone=dict(arch='large'))
