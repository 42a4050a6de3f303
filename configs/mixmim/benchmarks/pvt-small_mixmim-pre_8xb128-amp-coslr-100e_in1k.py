"""Fine-tuning PVT small, pretrained with MixMIM.

Everything is as for our base model. Drop path 0.1 is also that of PVT's own config.

mmdet's class returns a list of maps, which mmpretrain's classifiers refuse, so this
recipe uses ours, which returns a tuple.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/pvt_small.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMPyramidVisionTransformer',
        drop_path_rate=0.1,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    head=dict(in_channels=_base_.stock_channels[-1]),
)
