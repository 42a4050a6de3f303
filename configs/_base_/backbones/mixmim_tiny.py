"""A tiny encoder of our own: 12.5 M parameters, enough to try things on a laptop."""

tiny_channels = [64, 128, 256, 512]
tiny_arch = dict(
    embed_dims=tiny_channels[0], depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 16]
)
