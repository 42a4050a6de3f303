"""Fine-tuning the base model on Places205, in the layout of mmpretrain's dataset.

The authors published no script for it: all is as on ImageNet-1K.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(head=dict(num_classes=205), data_preprocessor=dict(num_classes=205))

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='Places205',
        data_root='data/places205',
        data_prefix='data/vision/torralba/deeplearning/images256',
        ann_file='trainvalsplit_places205/train_places205.csv',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='Places205',
        data_root='data/places205',
        data_prefix='data/vision/torralba/deeplearning/images256',
        ann_file='trainvalsplit_places205/val_places205.csv',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader

custom_hooks = [dict(type='ClassCheckHook')]
