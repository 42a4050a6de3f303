"""Pretraining a small PVT on the digits. Cells are 8 pixels wide, as in ours."""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMPyramidVisionTransformer',
        pretrain_img_size=32,
        in_channels=1,
        embed_dims=32,
        num_stages=3,
        num_layers=[1, 1, 4],
        num_heads=[1, 2, 4],
        patch_sizes=[2, 2, 2],
        strides=[2, 2, 2],
        paddings=[0, 0, 0],
        sr_ratios=[4, 2, 1],
        mlp_ratios=[4, 4, 4],
        drop_path_rate=0.0,
        out_indices=(2,),
    )
)
