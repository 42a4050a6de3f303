"""A plan as text for people."""

from __future__ import annotations

from .plan import FEW_IMAGES, GPUS_PER_MACHINE, USABLE, Plan, strategies
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
    cost, gpus = plan.cost, max(plan.gpus)
    height, width = plan.size
    lines = [
        f'{name}: {cost.parameters / 1e6:.1f} M parameters, '
        f'{cost.trained / 1e6:.1f} M trained; {cost.flops / 1e9:.1f} GFLOPs per image '
        f'and step; {height}x{width} pixels, {plan.precision}',
        f'{card.name}: {card.low / 1e12:.0f} TFLOP/s in fp16{" and bf16" * card.bf16}, '
        f'{card.full / 1e12:.3g} in fp32; {card.bandwidth / 1e12:.2f} TB/s, '
        f'{card.memory / 2**30:.0f} GiB',
        '',
        f'{plan.batch} images per GPU'
        + (f', states sharded over {gpus} with FSDP' if gpus > 1 else '')
        + ' (predicted, without communication):',
        '',
        _memory_table(plan, card),
        '',
        f'The whole run in {plan.precision} (predicted, with communication):',
        '',
        _run_table(plan),
        '',
        *_notes(plan, card),
    ]
    return '\n'.join(lines)


def _memory_table(plan: Plan, card: Card) -> str:
    peaks = dict(fp32=card.full, fp16=card.low, bf16=card.low)
    flops = plan.batch * plan.cost.flops
    head = ['precision', 'strategy', 'recompute', 'peak GiB', 'largest batch']
    rows = [
        [
            each.precision,
            each.strategy,
            each.recompute,
            f'{each.peak / 2**30:.1f}',
            str(each.largest),
            f'{each.seconds * 1e3:.1f}',
            f'{plan.batch / each.seconds:.0f}',
            f'{flops / each.seconds / peaks[each.precision]:.0%}',
        ]
        for each in plan.memory
    ]
    return markdown_table([*head, 'step ms', 'images/s', 'MFU'], rows)


def _run_table(plan: Plan) -> str:
    head = ['GPUs', 'strategy', 'recompute', 'passes x images', 'peak GiB', 'step ms']
    head += ['images/s', 'GB sent per step', 'hidden', 'epoch min', 'hours']
    rows = [
        [
            str(run.gpus),
            run.strategy,
            run.recompute,
            f'{run.accumulate} x {run.batch // run.accumulate}',
            f'{run.peak / 2**30:.1f}',
            f'{run.seconds * 1e3:.1f}',
            f'{run.images_per_second:.0f}',
            f'{run.traffic / 1e9:.2f}',
            '-' if run.hidden is None else f'{run.hidden:.0%}',
            '-' if run.epoch is None else f'{run.epoch / 60:.1f}',
            '-' if run.hours is None else f'{run.hours:.1f}',
            '-' if run.hours is None else f'{run.hours * run.gpus:.0f}',
            str(run.cores),
        ]
        for run in plan.runs
    ]
    return markdown_table([*head, 'GPU-hours', 'loader cores'], rows)


def _notes(plan: Plan, card: Card) -> list[str]:
    notes = []
    planned = {(run.gpus, run.strategy) for run in plan.runs}
    for gpus in plan.gpus:
        for strategy in strategies(gpus):
            if (gpus, strategy) not in planned:
                number = f'{gpus} GPUs' if gpus > 1 else 'one GPU'
                notes.append(f'{strategy} does not fit on {number}.')
    if any(run.batch // run.accumulate < FEW_IMAGES for run in plan.runs):
        notes.append(
            f'With fewer than {FEW_IMAGES} images per pass a step probably takes '
            'longer: Python launches kernels more slowly than the GPU runs them.'
        )
    size = plan.checkpoint / 2**30
    disk = f'A checkpoint takes {size:.2f} GiB; '
    disk += (
        f'{plan.kept} are kept: {plan.kept * size:.2f} GiB.'
        if plan.kept
        else 'all are kept.'
    )
    images = (
        f'{plan.images:,} training images.'
        if plan.images
        else 'Pass --images, the number of training images, to see epochs and hours.'
    )
    return [
        *notes,
        f'{disk} {images}',
        f'Assumed: eager PyTorch, fused AdamW; kernels reach {PEAK_SHARE:.0%} of the '
        f'peak and {BANDWIDTH_SHARE:.0%} of the bandwidth, and take at least '
        f'{LAUNCH * 1e6:.1f} us; {USABLE:.0%} of the memory is usable; gradients '
        'are sent in float32 and FSDP sends weights in the precision of the run, while '
        f'the GPU computes, at {card.link / 1e9:.0f} GB/s between the '
        f'{GPUS_PER_MACHINE} GPUs of a machine and {plan.network / 1e9:.0f} GB/s per '
        f'GPU between machines; a core loads '
        f'{plan.images_per_core:.0f} images per second, and loaders keep up; '
        'validation and saving take no time.',
    ]
