"""Mask R-CNN on COCO for 12 epochs, short sides of 800 pixels.

The paper's authors released no detection code. The settings follow mmdet's Swin
configs; the layer decay is ViTDet's.

Windows: 14 in the first two stages, as in pretraining, so their bias tables load
unchanged. 28 in the last two, whose windows covered the whole map in pretraining:
an image of 800x1333 pixels then has 2x3 windows in the third stage and 1x2 in the
last.
"""

_base_ = [
    '../_base_/models/mask-rcnn_mixmim_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_12e.py',
    '../_base_/det_runtime.py',
]

model = dict(backbone=dict(img_size=896, window_size=[14, 14, 28, 28]))
