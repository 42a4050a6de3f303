"""Fine-tuning mmdet's PVT small, pretrained with MixMIM.

Everything is as for our base model. Drop path 0.1 is also that of PVT's own config.

mmdet's class reads init_cfg in its own way: it takes files of PVT's authors and ignores
the prefix. So here the model loads the checkpoint, not the backbone. Start with
--cfg-options model.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/pvt_small.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.PyramidVisionTransformer',
        drop_path_rate=0.1,
        **_base_.stock_encoder,
    ),
    head=dict(in_channels=_base_.stock_channels[-1]),
    init_cfg=dict(type='Pretrained', checkpoint=''),
)
