"""ConvNeXt base. Optimizer and schedule are those of our base model.

The final norm comes before the pooling, because the decoder takes a map.
"""

_base_ = [
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py',
    '../_base_/backbones/convnext_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMConvNeXt',
        img_size=224,
        gap_before_final_norm=False,
        **_base_.stock_encoder,
    )
)
