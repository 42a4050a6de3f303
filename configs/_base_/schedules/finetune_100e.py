"""The authors' optimizer and schedule for fine-tuning, over 100 epochs.

The learning rate is 5e-4 per 256 images. It scales with the images per update:
images per GPU times GPUs times accumulated batches. The head gets the layer decay of
the last block, as in the authors' code.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True
    ),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, custom_keys=dict(head=dict(lr_mult=0.7))),
)
param_scheduler = [
    dict(
        type='WarmupCosineLR',
        warmup=5,
        end=100,
        min_lr=1e-6,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=True, base_batch_size=256)
randomness = dict(seed=0, diff_rank_seed=True)
