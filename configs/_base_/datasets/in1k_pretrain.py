"""ImageNet-1K for pretraining."""

_base_ = ['in1k.py', 'pretrain.py']

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(**_base_.imagenet, split='train'),
)
val_dataloader = dict(dataset=dict(**_base_.imagenet, split='val'))
val_cfg = dict(max_images=5000)
