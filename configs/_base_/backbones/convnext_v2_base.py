"""ConvNeXt V2 base: response normalisation in place of layer scale."""

stock_encoder = dict(arch='base', use_grn=True, layer_scale_init_value=0.0)
stock_channels = [128, 256, 512, 1024]
