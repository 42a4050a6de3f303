"""A plan as text for people."""

from __future__ import annotations

from .plan import USABLE, Plan
from .report import markdown_table
from .roofline import BANDWIDTH_SHARE, LAUNCH, PEAK_SHARE, Card


def plan_report(plan: Plan, card: Card, name: str) -> str:
    """Format a plan.

    Args:
        plan: The plan.
        card: The card that it was made for.
        name: Name of the config.

    Returns:
        Lines and tables in Markdown.
    """
    cost, gpus = plan.cost, max(run.gpus for run in plan.runs)
    height, width = plan.size
    peak = card.full if plan.precision == 'fp32' else card.low
    memory = [
        [
            each.strategy,
            each.recompute,
            f'{each.peak / 2**30:.1f}',
            str(each.largest),
            f'{each.seconds * 1e3:.1f}',
            f'{plan.batch / each.seconds:.0f}',
            f'{plan.batch * cost.flops / each.seconds / peak:.0%}',
        ]
        for each in plan.memory
    ]
    runs = [
        [
            str(run.gpus),
            f'{run.accumulate} x {run.batch // run.accumulate}',
            f'{run.seconds * 1e3:.0f}',
            f'{run.images_per_second:.0f}',
            f'{run.traffic / 1e9:.2f}',
            f'{run.hidden:.0%}',
            '-' if run.epoch is None else f'{run.epoch / 60:.1f}',
            '-' if run.hours is None else f'{run.hours:.1f}',
            '-' if run.hours is None else f'{run.hours * run.gpus:.0f}',
            str(run.cores),
        ]
        for run in plan.runs
    ]
    kept = f'{plan.kept} are kept' if plan.kept else 'all are kept'
    lines = [
        f'{name}: {cost.parameters / 1e6:.1f} M parameters, '
        f'{cost.trained / 1e6:.1f} M trained; {cost.flops / 1e9:.1f} GFLOPs per image '
        f'and step; {height}x{width} pixels, {plan.precision}',
        f'{card.name}: {card.low / 1e12:.0f} TFLOP/s, '
        f'{card.bandwidth / 1e12:.2f} TB/s, {card.memory / 2**30:.0f} GiB',
        '',
        f'One GPU of {gpus}, {plan.batch} images (predicted):',
        '',
        markdown_table(
            [
                *('strategy', 'recompute', 'peak GiB', 'largest batch', 'step ms'),
                *('images/s', 'MFU'),
            ],
            memory,
        ),
        '',
        f"The whole run with DDP and recompute='{plan.recompute}' (predicted):",
        '',
        markdown_table(
            [
                *('GPUs', 'passes x images', 'step ms', 'images/s', 'GB sent per step'),
                *('hidden', 'epoch min', 'hours', 'GPU-hours', 'loader cores'),
            ],
            runs,
        ),
        '',
        f'A checkpoint takes {plan.checkpoint / 2**30:.2f} GiB; {kept}. '
        + (f'{plan.images:,} training images.' if plan.images else 'Pass --images.'),
        f'Assumed: eager PyTorch, fused AdamW; kernels reach {PEAK_SHARE:.0%} of the '
        f'peak and {BANDWIDTH_SHARE:.0%} of the bandwidth, and take at least '
        f'{LAUNCH * 1e6:.1f} us; {USABLE:.0%} of the memory is usable; gradients are '
        'float32; loaders keep up; validation and saving take no time.',
    ]
    return '\n'.join(lines)
