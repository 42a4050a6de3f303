"""mmpretrain's Swin base from MixMIM, in UperNet on ADE20K.

All else is as for our base model. Drop path 0.3 is that of mmsegmentation's Swin
configs. Maps smaller than a window of 7 are padded.
"""

_base_ = [
    'mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
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
    decode_head=dict(in_channels=_base_.stock_channels),
    auxiliary_head=dict(in_channels=_base_.stock_channels[2]),
)
