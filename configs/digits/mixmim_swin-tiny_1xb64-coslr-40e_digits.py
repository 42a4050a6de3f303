"""Pretraining a small Swin on the digits. Cells are 8 pixels wide, as in ours."""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMSwinTransformer',
        arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[2, 4, 8]),
        img_size=32,
        patch_size=2,
        in_channels=1,
        window_size=4,
        drop_path_rate=0.0,
        out_indices=(2,),
    )
)
