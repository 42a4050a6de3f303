"""Plan a run before renting GPUs: memory, time, communication, loaders, storage."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmmixmim.ops.recompute import MODES
from mmmixmim.runtime import passes_of_step
from mmmixmim.runtime.entries import config_entry, training_precision
from mmmixmim.validation import UserError, check_positive, check_positive_int

from .roofline import Card
from .step_cost import StepCost, step_cost

# Share of a card's memory that a step may take. The rest is for the CUDA context, the
# workspaces of libraries, and fragments.
USABLE = 0.9
PASSES = ('forward', 'backward')
GPUS_PER_MACHINE = 8
# Below, a CPU may launch kernels more slowly than a GPU runs them.
FEW_IMAGES = 8

# Training images of the public datasets, by their class or, where several share one,
# by a part of their folder; and what their annotation file is called, if they have one.
IMAGES = {
    'ImageNet': (1_281_167, ''),
    'ADE20KDataset': (20_210, ''),
    'CocoDataset': (117_266, 'instances_train2017'),  # those with an object
    'inaturalist/2018': (437_513, 'train2018'),
    'inaturalist/2019': (265_213, 'train2019'),
    'places205': (2_448_873, 'train_places205'),
    'places365_standard': (1_803_460, ''),
}


def strategies(gpus: int) -> tuple[str, ...]:
    """What can train on a number of GPUs."""
    return ('DDP', 'FSDP') if gpus > 1 else ('DDP',)


@dataclass
class Memory:
    """Predicted memory of one GPU.

    Attributes:
        strategy: 'DDP' or 'FSDP'.
        precision: 'fp32', 'fp16' or 'bf16'.
        recompute: What the backward pass recomputes.
        peak: Bytes at the peak with the planned number of images.
        largest: The largest number of images that fits; 0 if not even one does.
        seconds: Predicted time of the planned step, without communication.
    """

    strategy: str
    precision: str
    recompute: str
    peak: float
    largest: int
    seconds: float


@dataclass
class PlannedRun:
    """A whole run on a number of GPUs.

    Attributes:
        gpus: Number of GPUs.
        strategy: 'DDP' or 'FSDP'.
        recompute: What the backward pass recomputes: what is fastest.
        batch: Images per GPU and step.
        accumulate: Forward and backward passes of a step, so that each fits.
        peak: Bytes of memory at the peak.
        seconds: Predicted time of a step.
        traffic: Bytes that each GPU sends per step.
        hidden: Share of the communication that computing hides; None on one GPU.
        epoch: Seconds of an epoch; None where the number of images is not known.
        hours: Hours of the schedule; None likewise.
        images_per_second: What the loaders of all machines deliver.
        cores: CPU cores that this takes, of each machine of up to 8 GPUs.
    """

    gpus: int
    strategy: str
    recompute: str
    batch: int
    accumulate: int
    peak: float
    seconds: float
    traffic: float
    hidden: float | None
    epoch: float | None
    hours: float | None
    images_per_second: float
    cores: int


@dataclass
class Plan:
    """What :func:`plan` found.

    Attributes:
        gpus: The numbers of GPUs that were asked for.
        cost: Kernels and memory of the step that ``memory`` begins with.
        batch: Images per GPU of the config, to which ``memory`` belongs.
        size: Height and width of the images.
        precision: 'fp32', 'fp16' or 'bf16', that of the runs.
        memory: One entry per precision, strategy and recomputation.
        runs: One entry per number of GPUs and strategy that fits; FSDP from two GPUs.
        checkpoint: Bytes of a checkpoint with the optimizer's states.
        kept: How many checkpoints are kept; None for all.
        images: Training images; None where they are not known.
        images_per_core: Images per second that one core is assumed to load.
        network: Assumed bytes per second and GPU between machines.
    """

    gpus: Sequence[int]
    cost: StepCost
    batch: int
    size: tuple[int, int]
    precision: str
    memory: list[Memory]
    runs: list[PlannedRun]
    checkpoint: int
    kept: int | None
    images: int | None
    images_per_core: float
    network: float


def plan(
    cfg: Config,
    card: Card,
    gpus: Sequence[int] = (8,),
    total_batch: int | None = None,
    size: tuple[int, int] | None = None,
    precision: str | Sequence[str] = (),
    recompute: Sequence[str] = MODES,
    images: int | None = None,
    images_per_core: float = 700.0,
    network: float = 50e9,
) -> Plan:
    """Predict what a config's training needs.

    Kernels and memory are counted on fake tensors, see :func:`step_cost`; times follow
    from the roofline of the card. Nothing runs on a GPU.

    Args:
        cfg: The config.
        card: The card.
        gpus: Numbers of GPUs. The schedule's total batch is divided among them.
        total_batch: Images per step of all GPUs. Defaults to None: the config's batch
            size times the GPUs and the passes of a step.
        size: Height and width in pixels. Defaults to None: the backbone's.
        precision: One of 'fp32', 'fp16' and 'bf16', or several to compare; the runs
            are planned with the first. Defaults to (): that of the config.
        recompute: Which recomputations to compare. Defaults to all.
        images: Number of training images. Defaults to None: that of the public dataset
            that the config names, else unknown.
        images_per_core: Images per second that one core loads. Defaults to 700, the
            pretraining pipeline in docs/performance.md.
        network: Bytes per second and GPU between machines of 8. Defaults to 50e9.

    Raises:
        UserError: If there are more GPUs than images in a step, the batch cannot be
            divided among them or its images not be mixed there, not even the smallest
            batch fits the card, or it has no bfloat16.
    """
    check_positive('images_per_core', images_per_core)
    check_positive('network', network)
    for number in gpus:
        check_positive_int('gpus', number)
    if not cfg.get('train_dataloader'):
        raise UserError('The config trains nothing: it has no train_dataloader.')
    batch = cfg.train_dataloader.batch_size
    passes = passes_of_step(cfg)
    totals = [total_batch or batch * passes * number for number in gpus]
    for number, total in zip(gpus, totals, strict=True):
        _check_divisible(total, number)
    precision = precision or training_precision(cfg.to_dict()) or 'fp32'
    precision = [precision] if isinstance(precision, str) else precision
    if 'bf16' in precision and not card.bf16:
        raise UserError(
            f'{card.name} does not compute in bf16: use --precision fp16 or float32, '
            'or another card.'
        )
    costs = _costs(cfg, batch, size, precision, recompute)
    modes = costs[precision[0]]
    cost = next(iter(modes.values()))
    for number, total in zip(gpus, totals, strict=True):
        _check_mixtures(total // number, number, cost.mixture_size)
    images = images or training_images(cfg)
    runs = [
        run
        for number, total in zip(gpus, totals, strict=True)
        for run in _runs(
            cfg, modes, card, number, total, images, images_per_core, network
        )
    ]
    if not runs:
        raise UserError(
            f'Not even a batch of {cost.mixture_size} fits {card.name} with '
            f'{card.memory / 2**30:.3g} GiB: use a card with more memory, or more GPUs '
            'with FSDP.'
        )
    return Plan(
        gpus=gpus,
        cost=cost,
        batch=batch,
        size=cost.size,
        precision=precision[0],
        memory=_memory(costs, card, batch, max(gpus)),
        runs=runs,
        checkpoint=4 * (cost.parameters + 2 * cost.trained),
        kept=_kept(cfg),
        images=images,
        images_per_core=images_per_core,
        network=network,
    )


def batch_in_name(config: str | Path) -> int | None:
    """Images per step of all GPUs, from a config's name such as ``8xb128``."""
    match = re.search(r'_(\d+)xb(\d+)[-_]', Path(config).name)
    return match and int(match[1]) * int(match[2])


def _costs(
    cfg: Config,
    batch: int,
    size: tuple[int, int] | None,
    precisions: Sequence[str],
    recompute: Sequence[str],
) -> dict[str, dict[str, StepCost]]:
    """What a step costs, by precision and by recomputation."""
    costs = {
        each: _without_repeats(
            {mode: step_cost(cfg, batch, size, each, mode) for mode in recompute}
        )
        for each in precisions
    }
    for modes in costs.values():
        # FLOPs without recomputation: those of the mode with the fewest.
        flops = min(cost.flops for cost in modes.values())
        for cost in modes.values():
            cost.flops = flops
    return costs


def _memory(
    costs: dict[str, dict[str, StepCost]], card: Card, batch: int, gpus: int
) -> list[Memory]:
    """Predict the memory of a GPU for each precision, strategy and recomputation."""
    return [
        Memory(
            strategy,
            precision,
            mode,
            gpu.peak(batch),
            gpu.largest(),
            gpu.seconds(batch, *PASSES) + gpu.updating(),
        )
        for precision, modes in costs.items()
        for strategy in strategies(gpus)
        for mode, cost in modes.items()
        for gpu in [_Gpu(cost, card, strategy, gpus)]
    ]


def _runs(
    cfg: Config,
    costs: dict[str, StepCost],
    card: Card,
    gpus: int,
    total: int,
    images: int | None,
    images_per_core: float,
    network: float,
) -> list[PlannedRun]:
    """Plan each strategy that fits, with its fastest recomputation."""
    batch = total // gpus
    # NCCL sends over the network cards of all GPUs of a machine at once.
    between = network * GPUS_PER_MACHINE
    speed = card.link if gpus <= GPUS_PER_MACHINE else min(card.link, between)
    steps, epochs = _schedule(cfg)
    per_epoch = images and images // total
    if steps is None and per_epoch:
        steps = epochs * per_epoch
    machines = math.ceil(gpus / GPUS_PER_MACHINE)
    runs = []
    for strategy in strategies(gpus):
        steps_that_fit = [
            step
            for mode, cost in costs.items()
            if (step := _Gpu(cost, card, strategy, gpus).step(mode, batch, speed))
        ]
        if not steps_that_fit:
            continue
        # Where communication decides, all take as long: then the first.
        step = min(steps_that_fit, key=lambda each: round(each.seconds, 6))
        rate = total / step.seconds
        runs.append(
            PlannedRun(
                gpus=gpus,
                strategy=strategy,
                batch=batch,
                **step._asdict(),
                epoch=per_epoch and per_epoch * step.seconds,
                hours=steps and steps * step.seconds / 3600,
                images_per_second=rate,
                cores=math.ceil(rate / machines / images_per_core),
            )
        )
    return runs


class _Step(NamedTuple):
    """A step of a :class:`PlannedRun`."""

    recompute: str
    accumulate: int
    peak: float
    seconds: float
    traffic: float
    hidden: float | None


@dataclass(frozen=True)
class _Gpu:
    """One of several GPUs that train, and what a step costs there.

    Attributes:
        cost: Kernels and memory of a step.
        card: The card.
        strategy: 'DDP' or 'FSDP'.
        gpus: Number of GPUs.
    """

    cost: StepCost
    card: Card
    strategy: str
    gpus: int

    def step(self, mode: str, batch: int, speed: float) -> _Step | None:
        """Predict a step, in as few passes as fit; None if not even one does.

        Args:
            mode: What the backward pass recomputes.
            batch: Images of this GPU.
            speed: Bytes per second between GPUs.
        """
        largest = self.largest()
        if largest < batch:
            largest = self.largest(accumulated=True)
        part = _part(batch, largest, self.cost.mixture_size)
        if part is None:
            return None
        accumulate = batch // part
        forward = self.seconds(part, 'forward')
        backward = self.seconds(part, 'backward')
        computing = accumulate * (forward + backward) + self.updating()
        # What a ring sends to gather weights or to scatter float32 gradients once.
        weights, gradients = (
            size * numel * (self.gpus - 1) / self.gpus
            for size, numel in (
                (self._gathered, self.cost.parameters),
                (4, self.cost.trained),
            )
        )
        # Bytes, how often, and the seconds of computing at the same time.
        if self.strategy == 'DDP':
            transfers = [(2 * gradients, 1, backward)]  # all-reduce: scatter, gather
        else:
            transfers = [
                (weights, accumulate, forward),
                (weights, accumulate - 1, backward),
                (weights + gradients, 1, backward),
            ]
        traffic = sum(size * times for size, times, _ in transfers)
        waiting = sum(
            times * max(0.0, size / speed - meanwhile)
            for size, times, meanwhile in transfers
        )
        hidden = 1 - waiting * speed / traffic if traffic else None
        peak = self.peak(part, accumulate > 1)
        return _Step(mode, accumulate, peak, computing + waiting, traffic, hidden)

    def seconds(self, batch: int, *phases: str) -> float:
        """Seconds of the forward or backward pass, or of both."""
        scale = batch / self.cost.batch
        kernels = self.cost.kernels
        return sum(kernels[each].seconds(self.card, scale=scale) for each in phases)

    def updating(self) -> float:
        """Seconds of the optimizer, of which FSDP gives each GPU a part."""
        seconds = self.cost.kernels['optimizer'].seconds(self.card, scale=1.0)
        return seconds / self.gpus if self.strategy == 'FSDP' else seconds

    def largest(self, accumulated: bool = False) -> int:
        """The largest batch that fits, also where gradients of others are kept."""
        return bisect_right(
            range(1, 2**20),
            USABLE * self.card.memory,
            key=lambda batch: self.peak(batch, accumulated),
        )

    def peak(self, batch: int, accumulated: bool = False) -> float:
        """Bytes at the peak."""
        cost = self.cost
        fixed, gradients = self._fixed(accumulated)
        scale, share = batch / cost.batch, gradients / (4 * cost.trained)
        moments = [
            scale * each['activations']
            + (gradients if accumulated else share * each['gradients'])
            for each in (cost.memory, cost.widest)
        ]
        return fixed + max(gradients, *moments)

    def _fixed(self, accumulated: bool) -> tuple[float, float]:
        """Bytes that do not depend on the batch: always, and all gradients."""
        cost, gpus = self.cost, self.gpus
        states = cost.memory['weights'] + cost.memory['optimizer']
        gradients = 4 * cost.trained
        if self.strategy == 'DDP':
            # Its buckets hold a second copy of the gradients.
            return states + (gradients if gpus > 1 else 0), gradients
        # Held unsharded: parameters outside blocks, one block with its gradients, and
        # the next block (prefetched).
        whole = self._gathered * (cost.outside + 2 * cost.largest_block)
        whole += 4 * cost.largest_block
        # Before the last pass gradients are summed up without being divided.
        return states / gpus + whole, gradients if accumulated else gradients / gpus

    @property
    def _gathered(self) -> int:
        """Bytes per weight that FSDP gathers, see configs/_base_/strategies/fsdp.py."""
        return 4 if self.cost.precision == 'fp32' else 2


def _part(batch: int, largest: int, size: int) -> int | None:
    """The largest equal part of a batch that fits and can be mixed."""
    sizes = range(1, min(batch, largest) + 1)
    fitting = (n for n in sizes if batch % n == 0 and _can_mix(n, size))
    return max(fitting, default=None)


def _can_mix(batch: int, size: int) -> bool:
    """Whether each image of a batch gets partners, ``size`` images to a mixture."""
    # Of two, the middle image of an odd batch is mixed with itself.
    return batch >= size and (size <= 2 or batch % size == 0)


def _without_repeats(costs: dict[str, StepCost]) -> dict[str, StepCost]:
    """Drop recomputations that a model does not know, which change nothing."""
    kept: dict[str, StepCost] = {}
    for mode, cost in costs.items():
        sizes = cost.memory, cost.widest
        if all(sizes != (each.memory, each.widest) for each in kept.values()):
            kept[mode] = cost
    return kept


def _check_divisible(total: int, gpus: int) -> None:
    if gpus > total:
        raise UserError(
            f'{gpus} GPUs are more than the {total} images of a step: use at most '
            f'{total} GPUs, or a larger total batch.'
        )
    if total % gpus:
        raise UserError(
            f'{gpus} GPUs do not divide the {total} images of a step: use a number of '
            'GPUs that does, or another total batch.'
        )


def _check_mixtures(batch: int, gpus: int, size: int) -> None:
    if not _can_mix(batch, size):
        raise UserError(
            f'With {gpus} GPUs each gets {batch} of the images of a step, which cannot '
            f'be mixed {size} by {size}: use fewer GPUs, or another total batch.'
        )


def _schedule(cfg: Config) -> tuple[int | None, int | None]:
    """Steps or epochs of the schedule, and None for the other."""
    loop = cfg.get('train_cfg') or {}
    iterations, epochs = loop.get('max_iters'), loop.get('max_epochs')
    return (iterations // passes_of_step(cfg), None) if iterations else (None, epochs)


def _kept(cfg: Config) -> int | None:
    hook = config_entry(cfg, 'default_hooks.checkpoint') or {}
    return hook['max_keep_ckpts'] if hook.get('max_keep_ckpts', -1) > 0 else None


def training_images(cfg: Config) -> int | None:
    """Count the training images of an epoch.

    Returns:
        None unless the config names a public dataset of ``IMAGES``, all of it, by its
        own annotations, and with its own classes.
    """
    dataset = cfg.train_dataloader.dataset
    times = 1
    while 'dataset' in dataset:
        times *= dataset.get('times', 1)  # of RepeatDataset
        dataset = dataset['dataset']
    if dataset.get('indices') is not None or dataset.get('metainfo'):
        return None
    if dataset.get('split', 'train') != 'train':
        return None
    folder = str(dataset.get('data_root') or '').lower()
    annotations = str(dataset.get('ann_file') or '')
    for name, (number, own) in IMAGES.items():
        if dataset.get('type') == name or name in folder:
            fits = own in annotations if own else not annotations
            return times * number if fits else None
    return None
