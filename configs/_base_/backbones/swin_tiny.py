"""Swin tiny, with the arguments of mmpretrain's class and of ours."""

stock_encoder = dict(arch='tiny', img_size=224)
stock_channels = [96, 192, 384, 768]
