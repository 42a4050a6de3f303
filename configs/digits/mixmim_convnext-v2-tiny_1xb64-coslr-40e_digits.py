"""Pretraining a small ConvNeXt V2 on the digits."""

_base_ = 'mixmim_convnext-tiny_1xb64-coslr-40e_digits.py'

model = dict(backbone=dict(use_grn=True, layer_scale_init_value=0.0))
