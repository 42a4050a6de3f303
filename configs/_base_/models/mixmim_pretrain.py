"""MixMIM pretraining model. Decoder and head take their sizes from the backbone."""

model = dict(
    _scope_='mmmixmim',
    type='MixMIM',
    backbone=dict(type='MixMIMTransformer', arch='base', img_size=224),
    neck=dict(
        type='MixMIMPretrainDecoder',
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16,
    ),
    head=dict(type='MixMIMPretrainHead', norm_pix=True),
    mask_ratio=0.5,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
)
