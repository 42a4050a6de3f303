"""Swin base, with the arguments of mmpretrain's class and of ours."""

stock_encoder = dict(arch='base', img_size=224)
stock_channels = [128, 256, 512, 1024]
