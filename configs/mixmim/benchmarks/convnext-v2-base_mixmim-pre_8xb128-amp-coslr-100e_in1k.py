"""Fine-tuning mmpretrain's ConvNeXt V2 base, pretrained with MixMIM.

Everything is as for our base model. Drop path 0.1 is also what TRAINING.md of ConvNeXt
V2's code sets; its layer decay of 0.6 and 20 epochs of warm-up are not adopted.

The backbone pools its last map itself, before the final norm, so there is no neck.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/convnext_v2_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        drop_path_rate=0.1,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    neck=None,
    head=dict(in_channels=_base_.stock_channels[-1]),
)
