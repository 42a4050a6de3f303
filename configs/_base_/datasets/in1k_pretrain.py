"""ImageNet-1K for pretraining, augmented as a folder of images is."""

_base_ = 'folder_pretrain.py'

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    drop_last=True,
    dataset=dict(
        _delete_=True,
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        pipeline=_base_.train_pipeline,
    ),
)
