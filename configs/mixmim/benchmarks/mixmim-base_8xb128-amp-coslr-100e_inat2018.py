"""Fine-tuning the base model on iNaturalist 2018.

The authors published no script for it: all is as on ImageNet-1K.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(head=dict(num_classes=8142), data_preprocessor=dict(num_classes=8142))

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='INaturalist',
        data_root='data/inaturalist/2018',
        ann_file='train2018.json',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='INaturalist',
        data_root='data/inaturalist/2018',
        ann_file='val2018.json',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader

custom_hooks = [dict(type='ClassCheckHook')]
