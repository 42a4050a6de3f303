"""mmpretrain's Swin base from MixMIM, in Mask R-CNN on COCO for 12 epochs.

All else is as for our base model. mmdet has no config of Swin base: drop path 0.3 is
that of mmsegmentation's UperNet. Maps smaller than a window of 7, as of very long
images, are padded.
"""

_base_ = [
    'mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco.py',
    '../_base_/backbones/swin_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        pad_small_map=True,
        drop_path_rate=0.3,
        out_indices=(0, 1, 2, 3),
        init_cfg=_base_.encoder.init_cfg,
        **_base_.stock_encoder,
    ),
    neck=dict(in_channels=_base_.stock_channels),
)
