"""Pretraining a small HiViT on the digits. Cells are 8 pixels wide, as in ours."""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMHiViT',
        arch=dict(embed_dims=128, depths=[1, 1, 4], num_heads=4),
        img_size=32,
        patch_size=8,
        in_chans=1,
    )
)
