"""The authors' optimizer and schedule for pretraining, over 300 epochs.

The learning rate is 1.5e-4 per 256 images. It scales with the images per update:
images per GPU times GPUs times accumulated batches.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    ),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=40, end=300, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=300, val_interval=5)
auto_scale_lr = dict(enable=True, base_batch_size=256)
randomness = dict(seed=0, diff_rank_seed=True)
