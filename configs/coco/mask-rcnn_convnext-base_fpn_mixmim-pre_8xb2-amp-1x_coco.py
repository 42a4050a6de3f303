"""mmpretrain's ConvNeXt base from MixMIM, in Mask R-CNN on COCO for 12 epochs.

All else is as for our base model. Drop path 0.4 is that of mmdet's ConvNeXt V2 base,
which has as many blocks and was also pretrained with masks.
"""

_base_ = [
    'mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco.py',
    '../_base_/backbones/convnext_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        gap_before_final_norm=False,
        drop_path_rate=0.4,
        out_indices=(0, 1, 2, 3),
        init_cfg=_base_.encoder.init_cfg,
        **_base_.stock_encoder,
    ),
    neck=dict(in_channels=_base_.stock_channels),
)
