"""MAE's optimizer and schedule for linear probing, over 90 epochs.

The learning rate is 0.1 per 256 images. It scales with the images per update:
images per GPU times GPUs times accumulated batches. LARS does not adapt the
rate of the bias.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='LARS', lr=0.1, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head.fc.bias': dict(lars_exclude=True)}),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=10, end=90, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=90, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=True, base_batch_size=256)
randomness = dict(seed=0, diff_rank_seed=True)
