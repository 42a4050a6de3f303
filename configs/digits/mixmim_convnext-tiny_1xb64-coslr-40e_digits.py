"""Pretraining a small ConvNeXt on the digits. Cells are 8 pixels wide, as in ours."""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMConvNeXt',
        arch=dict(depths=[1, 1, 4], channels=[32, 64, 128]),
        img_size=32,
        stem_patch_size=2,
        in_channels=1,
        out_indices=(2,),
        gap_before_final_norm=False,
    )
)
