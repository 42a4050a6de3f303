"""Parts of configs that the commands share."""

from __future__ import annotations

from mmmixmim.text import plural

from .config_writer import Section
from .settings import Choices
from .training import KEPT_CHECKPOINTS


def runtime_sections(
    chosen: Choices, seed: int, per_epoch: int | None = None
) -> list[Section]:
    """Sections that all configs share.

    Args:
        chosen: The settings.
        seed: Random seed.
        per_epoch: Iterations of an epoch, for a loop that counts iterations. Defaults
            to None: it counts epochs.
    """
    interval = max(1, chosen.epochs // 20)
    logged = 10
    if per_epoch:  # a loop by epochs also logs at the end of each
        logged = min(logged, chosen.epochs * per_epoch)
    hooks = dict(
        timer=dict(type='IterTimerHook'),
        logger=dict(type='LoggerHook', interval=logged),
        param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(
            type='SafeCheckpointHook',
            by_epoch=per_epoch is None,
            interval=interval * (per_epoch or 1),
            max_keep_ckpts=KEPT_CHECKPOINTS,
        ),
        preemption=dict(type='PreemptionHook'),
        non_finite=dict(type='NonFiniteHook'),
        unreadable_images=dict(type='UnreadableImagesHook', max_share=0.01),
        sampler_seed=dict(type='DistSamplerSeedHook'),
        visualization=dict(type='VisualizationHook', enable=False),
    )
    environment = dict(
        cudnn_benchmark=False,
        mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
        dist_cfg=dict(backend='nccl'),
    )
    return [
        Section(
            f'Logs every {plural(logged, "iteration")}, and about 20 checkpoints, of '
            f'which the last {KEPT_CHECKPOINTS} are kept.',
            dict(default_hooks=hooks),
        ),
        Section(
            'The rest of the runtime.',
            dict(
                randomness=dict(seed=seed, diff_rank_seed=True),
                env_cfg=environment,
                vis_backends=[dict(type='LocalVisBackend')],
                visualizer=dict(
                    type='UniversalVisualizer',
                    vis_backends=[dict(type='LocalVisBackend')],
                ),
                log_processor=dict(by_epoch=per_epoch is None),
                log_level='INFO',
                load_from=None,
                resume=False,
            ),
        ),
    ]


def optimizer(chosen: Choices, betas: tuple[float, float], **entries) -> dict:
    """``optim_wrapper`` of a config; ``entries`` are more of its arguments."""
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(
            type='AdamW', lr=chosen.lr, betas=betas, weight_decay=0.05, fused=True
        ),
        **entries,
    )
    if chosen.precision != 'float32':
        wrapper['type'] = 'AmpOptimWrapper'
        names = dict(bf16='bfloat16', fp16='float16')
        wrapper['dtype'] = names[chosen.precision]
        # bfloat16 has the range of float32.
        fp16 = chosen.precision == 'fp16'
        wrapper['loss_scale'] = 'dynamic' if fp16 else dict(enabled=False)
    if chosen.accumulation > 1:
        wrapper['accumulative_counts'] = chosen.accumulation
    return wrapper
