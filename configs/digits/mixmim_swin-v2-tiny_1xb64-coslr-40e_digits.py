"""Pretraining a small Swin V2 on the digits. Cells are 8 pixels wide, as in ours."""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMSwinTransformerV2',
        arch=dict(
            embed_dims=32,
            depths=[2, 2, 2],
            num_heads=[2, 4, 8],
            extra_norm_every_n_blocks=0,
        ),
        img_size=32,
        patch_size=2,
        in_channels=1,
        window_size=4,
        drop_path_rate=0.0,
        out_indices=(2,),
        pretrained_window_sizes=[0, 0, 0],
    )
)
