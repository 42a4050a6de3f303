"""160,000 iterations of AdamW with layer decay.

Learning rate, weight decay, warm-up and polynomial decay follow mmsegmentation's
MAE config. The layer decay is ViTDet's (arXiv 2203.16527, appendix A) for a model
of 24 blocks: base, large and huge have 24.
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
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(
    type='mmmixmim.ResumableIterLoop', max_iters=160000, val_interval=16000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=True, base_batch_size=16)
