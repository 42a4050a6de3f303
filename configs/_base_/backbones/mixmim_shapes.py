"""The encoder for the drawn shapes: three stages, images of 96x96 pixels."""

encoder = dict(
    arch=dict(embed_dims=32, depths=[1, 1, 4], num_heads=[1, 2, 4]),
    img_size=96,
    window_size=[6, 6, 6],
)
channels = [32, 64, 128]
