"""Fine-tuning mmpretrain's HiViT base, pretrained with MixMIM.

Everything is as for our base model except drop path: 0.2, as the authors' code sets it
after pretraining with MAE. Its layer decay of 0.85 is not adopted.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/hivit_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='HiViT',
        drop_path_rate=0.2,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    head=dict(in_channels=_base_.stock_channels[-1]),
)
