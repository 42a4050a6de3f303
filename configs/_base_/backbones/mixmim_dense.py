"""The base encoder for detection and segmentation: the maps of all four stages.

Start from a pretrained encoder with
--cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = 'mixmim.py'

encoder = dict(
    type='mmmixmim.MixMIMTransformer',
    arch='base',
    drop_path_rate=0.1,
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
)
