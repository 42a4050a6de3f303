"""The pretraining model. Decoder and head take their sizes from the backbone.

Width, depth and heads of the decoder are its defaults: 512, 8 and 16.
"""

model = dict(
    _scope_='mmmixmim',
    type='MixMIM',
    backbone=dict(type='MixMIMTransformer', arch='base', img_size=224),
    neck=dict(type='MixMIMPretrainDecoder'),
    head=dict(type='MixMIMPretrainHead', norm_pix=True),
    mask_ratio=0.5,
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        non_blocking=True,
    ),
)
