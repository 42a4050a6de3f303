"""UperNet on ADE20K, 160,000 iterations of 16 crops of 512 pixels.

The paper's authors released no segmentation code, so the settings follow
mmsegmentation's MAE config and, for the layer decay, ViTDet.

Windows: at 512 pixels the maps have 128, 64, 32 and 16 tokens a side. Windows of
16, 16, 32 and 16 divide them without padding, and those of the last two stages
cover their maps, as in pretraining.

Inference slides a window of 512 pixels; for the whole image at once, add
--cfg-options model.test_cfg.mode=whole
"""

_base_ = [
    '../_base_/models/upernet_mixmim.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(backbone=dict(window_size=[16, 16, 32, 16]))
