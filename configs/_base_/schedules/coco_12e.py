"""mmdet's 1x schedule with AdamW and layer decay.

Learning rate, weight decay and warm-up follow mmdet's Swin configs. The layer
decay is ViTDet's (arXiv 2203.16527, appendix A) for a model of 24 blocks: base,
large and huge have 24.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True
    ),
    constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='mmmixmim.ResumableEpochLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=True, base_batch_size=16)
