"""Mask R-CNN on COCO for 36 epochs, with multi-scale training and random crops.

Windows and other settings: see mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco.py.
"""

_base_ = [
    '../_base_/models/mask-rcnn_mixmim_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/coco_36e.py',
    '../_base_/det_runtime.py',
]

model = dict(backbone=dict(img_size=896, window_size=[14, 14, 28, 28]))
