"""HiViT base: cells of 16 pixels, attention in the last stage only."""

stock_encoder = dict(arch='base', img_size=224)
stock_channels = [128, 256, 512]
