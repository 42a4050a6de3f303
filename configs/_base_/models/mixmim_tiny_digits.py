"""An encoder for 32x32 grey images: three stages, a 4x4 grid of 8-pixel cells."""

model = dict(
    _scope_='mmmixmim',
    backbone=dict(
        type='MixMIMTransformer',
        arch=dict(embed_dims=32, depths=[1, 1, 4], num_heads=[2, 4, 8]),
        img_size=32,
        patch_size=2,
        in_channels=1,
        window_size=8,
    ),
    data_preprocessor=dict(mean=[77.8], std=[95.9]),
)
