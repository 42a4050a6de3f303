"""PVT small: the defaults of mmdet's class, written out where they tell the size."""

stock_encoder = dict(
    embed_dims=64,
    num_layers=[3, 4, 6, 3],
    num_heads=[1, 2, 5, 8],
    pretrain_img_size=224,
    out_indices=(3,),
)
stock_channels = [64, 128, 320, 512]
