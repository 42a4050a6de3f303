"""As the base model's config, with ViTDet's drop path for its large model.

Activations are recomputed in the backward pass, which takes less memory and about a
third more time: with_cp=False turns that off.
"""

_base_ = 'mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
