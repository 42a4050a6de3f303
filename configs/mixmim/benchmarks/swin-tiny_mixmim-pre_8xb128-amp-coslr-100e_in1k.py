"""Fine-tuning mmpretrain's Swin tiny, pretrained with MixMIM.

Nobody published a drop path rate for this size after masked pretraining: everything is
as for Swin base. Swin's own 0.2 is for training from scratch.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/swin_tiny.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        drop_path_rate=0.1,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    head=dict(in_channels=_base_.stock_channels[-1]),
)
