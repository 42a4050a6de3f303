"""Swin tiny, as Swin base."""

_base_ = [
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py',
    '../_base_/backbones/swin_tiny.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMSwinTransformer',
        drop_path_rate=0.0,
        **_base_.stock_encoder,
    )
)
