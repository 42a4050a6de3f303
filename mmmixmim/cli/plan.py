"""Predict memory, time and cost of a training run on GPUs that are not at hand."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmixmim.benchmarking import (
    batch_in_name,
    cpu_card,
    find_card,
    give_tensors_pages,
    measured_step,
    plan,
    plan_report,
    step_cost,
)
from mmmixmim.benchmarking.roofline import BANDWIDTH_SHARE, PEAK_SHARE
from mmmixmim.log import quieten
from mmmixmim.runtime import load_config, passes_of_step


def plan_run(
    config: Path,
    gpu: str,
    total_batch: int | None,
    shape: tuple[int, int] | None,
    network: float,
    check: int | None,
    cfg_options: dict,
    **options,
) -> str:
    """Plan a run, and format the plan.

    Args:
        config: Config file.
        gpu: Name of a card, or its figures, see
            :func:`mmmixmim.benchmarking.find_card`.
        total_batch: Images per step of all GPUs; None: those in the config's name,
            times the passes of a step.
        shape: Height and width in pixels; None: those of the backbone.
        network: GB/s per GPU between machines.
        check: Number of images of a real step on this CPU, whose memory and time are
            compared with predictions; None: no such step.
        cfg_options: Entries that replace those of the config.
        **options: Of :func:`mmmixmim.benchmarking.plan`.

    Returns:
        The plan as Markdown.
    """
    quieten(MMLogger.get_current_instance())
    if check:
        give_tensors_pages()
    card = find_card(gpu)
    cfg = load_config(config, cfg_options)
    named = batch_in_name(config)
    total_batch = total_batch or (named and named * passes_of_step(cfg))
    found = plan(
        cfg,
        card,
        total_batch=total_batch,
        size=shape,
        network=network * 1e9,
        **options,
    )
    text = plan_report(found, card, config.name)
    return f'{text}\n\n{_check(cfg, check, shape)}' if check else text


def _check(cfg: Config, batch: int, shape: tuple[int, int] | None) -> str:
    """Compare memory and time of a step on this CPU with the prediction."""
    cost = step_cost(cfg, batch, shape, gpu=False, accumulate=True)
    memory, seconds = measured_step(cfg, batch, shape)
    card = cpu_card()
    kept = cost.memory['activations']
    time = sum(cost.kernels[name].seconds(card) for name in ('forward', 'backward'))
    return (
        f'Check on this CPU, {batch} images, float32: activations predicted '
        f'{kept / 2**30:.2f} GiB, measured {memory / 2**30:.2f} GiB, error '
        f'{kept / memory - 1:+.1%}; forward and backward pass predicted {time:.3f} s '
        f'from {PEAK_SHARE * card.full / 1e9:.0f} GFLOP/s and '
        f'{BANDWIDTH_SHARE * card.bandwidth / 1e9:.1f} GB/s, both measured here, '
        f'measured {seconds:.3f} s, error {time / seconds - 1:+.1%}.'
    )
