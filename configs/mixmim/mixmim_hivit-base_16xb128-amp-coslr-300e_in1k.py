"""HiViT base. Optimizer and schedule are those of our base model.

Cells are 16 pixels wide: the decoder gets 14x14 tokens, and costs four times as much
as with the other encoders.
"""

_base_ = [
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py',
    '../_base_/backbones/hivit_base.py',
]

model = dict(backbone=dict(_delete_=True, type='MixMIMHiViT', **_base_.stock_encoder))
