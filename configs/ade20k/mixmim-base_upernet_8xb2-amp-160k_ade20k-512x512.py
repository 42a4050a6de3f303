"""UperNet on ADE20K: 160,000 iterations on batches of 16 crops of 512x512 pixels.

The paper's authors released no segmentation code. The settings follow
mmsegmentation's MAE config; the layer decay is ViTDet's.

Windows: at 512 pixels the maps have 128, 64, 32 and 16 tokens a side. Windows of
16, 16, 32 and 16 divide them without padding. In the last two stages they cover the
map, as in pretraining.

Inference slides a window of 512 pixels. To segment the whole image at once, add
--cfg-options model.test_cfg.mode=whole
"""

_base_ = [
    '../_base_/models/upernet_mixmim.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(img_size=_base_.img_size, window_size=[16, 16, 32, 16]),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
    test_cfg=dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341)),
)
