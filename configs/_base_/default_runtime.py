"""Runtime settings of pretraining and classification configs."""

default_scope = 'mmmixmim'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    preemption=dict(type='PreemptionHook'),
    non_finite=dict(type='NonFiniteHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    unreadable_images=dict(type='UnreadableImagesHook', max_share=0.01),
    visualization=dict(type='VisualizationHook', enable=False),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
