"""Classification of the digits from ten labelled images per class."""

_base_ = 'mixmim-tiny_1xb64-coslr-20e_digits.py'

train_dataloader = dict(batch_size=20, dataset=dict(samples_per_class=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=4, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=4, end=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40, val_interval=40)
default_hooks = dict(checkpoint=dict(interval=40))
