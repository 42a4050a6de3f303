"""Fine-tuning mmpretrain's Swin base, pretrained with MixMIM.

Everything is as for our base model. Drop path 0.1 is also what SimMIM's code sets for
Swin base; its layer decay of 0.8 and 20 epochs of warm-up are not adopted.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/swin_base.py',
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
