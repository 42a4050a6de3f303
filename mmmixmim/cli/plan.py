"""Predict memory, time and cost of a training run on GPUs that are not at hand."""

from __future__ import annotations

from pathlib import Path

from mmmixmim.benchmarking import (
    batch_in_name,
    find_card,
    give_tensors_pages,
    measured_memory,
    plan,
    plan_report,
    step_cost,
)
from mmmixmim.runtime import load_config


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
        total_batch: Images per step of all GPUs; None: those in the config's name.
        shape: Height and width in pixels; None: those of the backbone.
        network: GB/s per GPU between machines.
        check: Number of images of a real step on this CPU, whose memory is compared
            with the prediction; None: no such step.
        cfg_options: Entries that replace those of the config.
        **options: Of :func:`mmmixmim.benchmarking.plan`.

    Returns:
        The plan as Markdown.
    """
    if check:
        give_tensors_pages()
    card = find_card(gpu)
    cfg = load_config(config, cfg_options)
    total_batch = total_batch or batch_in_name(config)
    found = plan(
        cfg,
        card,
        total_batch=total_batch,
        size=shape,
        network=network * 1e9,
        **options,
    )
    text = plan_report(found, card, config.name)
    if not check:
        return text
    cost = step_cost(cfg, check, shape, gpu=False, accumulate=True)
    predicted = cost.memory['activations']
    measured = measured_memory(cfg, check, shape)
    return (
        f'{text}\n\nCheck on this CPU, {check} images, float32: activations predicted '
        f'{predicted / 2**30:.2f} GiB, measured {measured / 2**30:.2f} GiB, error '
        f'{predicted / measured - 1:+.1%}.'
    )
