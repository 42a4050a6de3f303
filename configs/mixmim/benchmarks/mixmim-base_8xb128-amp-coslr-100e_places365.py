"""Fine-tuning the base model on Places365, in the "easy directory structure".

The authors published no script for it: all is as on ImageNet-1K.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(head=dict(num_classes=365), data_preprocessor=dict(num_classes=365))

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/places365_standard/train',
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/places365_standard/val',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader

custom_hooks = [dict(type='ClassCheckHook')]
