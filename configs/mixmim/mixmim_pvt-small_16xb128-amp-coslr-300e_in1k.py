"""PVT small. Optimizer and schedule are those of our base model.

mmdet's stochastic depth of 0.1 is for training with labels and is left out here.
"""

_base_ = [
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py',
    '../_base_/backbones/pvt_small.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMPyramidVisionTransformer',
        drop_path_rate=0.0,
        **_base_.stock_encoder,
    )
)
