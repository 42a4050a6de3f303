"""Fine-tuning mmpretrain's ConvNeXt base, pretrained with MixMIM.

Everything is as for our base model except drop path: 0.4, as SparK's code sets it for
ConvNeXt base. Its 400 epochs, batch of 4096 and weight decay of 0.01 are not adopted.

The backbone pools its last map itself, before the final norm, so there is no neck.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/convnext_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        drop_path_rate=0.4,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    neck=None,
    head=dict(in_channels=_base_.stock_channels[-1]),
)
