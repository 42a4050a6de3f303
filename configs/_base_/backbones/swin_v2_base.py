"""Swin V2 base for 256 pixels in windows of 8, the smaller of the published two."""

stock_encoder = dict(arch='base', img_size=256, window_size=8)
stock_channels = [128, 256, 512, 1024]
