"""mmpretrain's ConvNeXt base from MixMIM, in UperNet on ADE20K.

All else is as for our base model. Drop path 0.4 is that of mmsegmentation's ConvNeXt
base, at 640 pixels.
"""

_base_ = [
    'mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
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
    decode_head=dict(in_channels=_base_.stock_channels),
    auxiliary_head=dict(in_channels=_base_.stock_channels[2]),
)
