"""Choose the settings of a run from the data and the machine, and check them.

Each setting that the user leaves out has a rule in ``rules.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mmmixmim.datasets.scan import Scan
from mmmixmim.text import plural, rough_duration
from mmmixmim.validation import UserError, check_int_between, check_positive_int

from . import rules
from .machine import GIB, Cost, Machine, training_cost
from .models import SIZES, pretraining_model, stride

PRECISIONS = ('float32', 'bf16', 'fp16')


@dataclass(frozen=True)
class Choice:
    """A setting with its reason."""

    value: object
    reason: str


class Choices(dict[str, Choice]):
    """Settings by name, in the order in which they were chosen.

    Args:
        given: What the user set; None stands for "choose".
    """

    def __init__(self, **given) -> None:
        super().__init__()
        self.given = {name: each for name, each in given.items() if each is not None}

    def add(self, name: str, rule: tuple[object, str]):
        """Take the user's value, or else what a rule says. Returns the value."""
        if name in self:  # follows from given weights
            return self[name].value
        if name in self.given:
            value, reason = self.given[name], 'as given'
        else:
            value, reason = rule
        self[name] = Choice(value, reason)
        return value

    def __getattr__(self, name: str):
        try:
            return self[name].value
        except KeyError:
            raise AttributeError(name) from None


def choose_pretraining(
    scan: Scan, machine: Machine, known: dict | None = None, **given
) -> tuple[Choices, Cost]:
    """Choose all settings of a pretraining.

    Args:
        scan: The data.
        machine: The machine.
        known: Settings that follow from the weights to start from. Defaults to none.
        **given: Settings of the user.

    Raises:
        UserError: If a setting that the user gave cannot work.
    """
    chosen, cost = _choose_model(scan, machine, known, given)
    images = scan.images - chosen.add('held_out', rules.held_out(scan))
    total = rules.total_batch(images)
    batch = _choose_batch(chosen, images, total, cost, machine)
    chosen.add('epochs', rules.epochs(images, cost, machine))
    if chosen.held_out:
        cost_of_one = chosen.held_out / images
        chosen.add('val_interval', rules.val_interval(chosen.epochs, cost_of_one))
    chosen.add('lr', rules.learning_rate(batch, chosen.model))
    chosen.add('warmup', rules.warmup(chosen.epochs))
    size = batch_bytes(chosen, scan)
    shards = scan.shards - bool(chosen.held_out) if scan.shards else None
    chosen.add('workers', rules.workers(machine, size, shards))
    if shards and chosen.workers > shards:
        raise UserError(
            f'--workers {chosen.workers} are more than the {plural(shards, "shard")} '
            f'to train on, which they share: choose {shards} or fewer.'
        )
    return chosen, cost


def choose_classification(
    images: int, scan: Scan, machine: Machine, known: dict | None, **given
) -> tuple[Choices, Cost]:
    """Choose all settings of a fine-tuning.

    Args:
        images: Number of images to train on.
        scan: All images.
        machine: The machine.
        known: Settings that follow from the pretrained weights; None without any.
        **given: Settings of the user.

    Raises:
        UserError: If a setting that the user gave cannot work.
    """
    chosen, cost = _choose_model(scan, machine, known, given)
    total = min(256, rules.total_batch(images))
    batch = _choose_batch(chosen, images, total, cost, machine)
    chosen.add('epochs', rules.epochs_of_classification(images, batch))
    pretrained = known is not None
    chosen.add('layer_decay', rules.layer_decay(chosen.model, pretrained))
    chosen.add('lr', rules.learning_rate(batch, chosen.model))
    chosen.add('warmup', rules.warmup(chosen.epochs, 5 / 100))
    size = batch_bytes(chosen, scan)
    chosen.add('workers', rules.workers(machine, size))
    return chosen, cost


def _choose_model(
    scan: Scan, machine: Machine, known: dict | None, given: dict
) -> tuple[Choices, Cost]:
    """Choose what the model looks like, and compute what it costs."""
    chosen = Choices(**given)
    _known(chosen, known)
    chosen.add('image_size', rules.image_size(scan, machine))
    chosen.add('model', rules.model(scan.images, machine, chosen.image_size))
    chosen.add('patch_size', rules.patch_size(chosen.model, chosen.image_size))
    chosen.add('in_channels', rules.in_channels(scan))
    check_sizes(chosen, scan)
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    model = pretraining_model(chosen.model, *sizes)
    cost = training_cost(model, chosen.in_channels, chosen.image_size)
    chosen.add('precision', rules.precision(machine))
    check_precision(chosen.precision, machine)
    if chosen.precision != 'float32':  # halves all but norms and residual sums
        cost = replace(cost, activations=round(0.6 * cost.activations))
    return chosen, cost


def _choose_batch(
    chosen: Choices, images: int, total: int, cost: Cost, machine: Machine
) -> int:
    """Choose batch size and accumulation for ``total`` images of an update.

    Returns:
        Images of an update; a batch size that the user gave may change it.
    """
    fits = largest_batch(cost, machine)
    chosen.add('batch_size', rules.batch_size(images, total, fits))
    check_batch(chosen.batch_size, fits, cost, machine, images)
    chosen.add('accumulation', rules.accumulation(total, chosen.batch_size))
    return chosen.batch_size * chosen.accumulation


def _known(chosen: Choices, known: dict | None) -> None:
    """Take settings that follow from given weights; they cannot be changed."""
    if not known:
        return
    model = known['model']
    if chosen.given.get('model', model) != model:
        raise UserError(
            f'--model {chosen.given["model"]} does not fit the weights of --from, '
            f'which are of the model {model}: leave out --model.'
        )
    for name in ('model', 'image_size', 'patch_size'):
        chosen.add(name, (known[name], 'as in the weights of --from'))


def time_of_training(chosen: Choices, images: int, cost: Cost, machine: Machine) -> str:
    """Say how long a training takes on a CPU; '' on a GPU, whose speed is unknown."""
    if machine.on_gpu:
        return ''
    minutes = chosen.epochs * rules.epoch_seconds(images, cost, machine) / 60
    return (
        f'This takes {rough_duration(minutes)} at 20 GFLOP/s per core, which is a '
        'guess: the time left is measured once it trains.'
    )


def largest_batch(cost: Cost, machine: Machine) -> int:
    """Largest batch that fits into 80 % of the free memory."""
    return cost.largest_batch(int(0.8 * machine.memory))


def batch_bytes(chosen: Choices, scan: Scan) -> int:
    """Bytes of a batch as it is loaded: floats of raster images, else of 8 bits."""
    image = chosen.in_channels * chosen.image_size**2
    return chosen.batch_size * image * (4 if scan.is_raster else 1)


def check_sizes(chosen: Choices, scan: Scan) -> None:
    """Raise if the image size does not fit the model, or images are tiny."""
    image_size, cell = chosen.image_size, stride(chosen.model, chosen.patch_size)
    if image_size % cell:
        near = max(1, round(image_size / cell)) * cell
        raise UserError(
            f'--image-size {image_size} is not divisible by the cells of {cell} '
            f'pixels of this model: choose {near}.'
        )
    if image_size < 2 * cell:
        raise UserError(
            f'--image-size {image_size} leaves less than two cells of {cell} pixels '
            f'per side: choose at least {2 * cell}, or --model micro.'
        )
    if scan.short_sides[0] < cell:
        raise UserError(
            f'{scan.examples["smallest"][0]!r} has a side of {scan.short_sides[0]} '
            f'pixels, smaller than a cell of {cell} pixels, the smallest thing that is '
            'hidden and predicted: remove images that small, or enlarge them.'
        )


def check_given(
    *,
    seed: int = 0,
    model: str | None = None,
    precision: str | None = None,
    lr: float | None = None,
    workers: int | None = None,
    **others,
) -> None:
    """Raise if a setting is wrong whatever the data are; None is fine."""
    for option, value, names in (
        ('model', model, SIZES),
        ('precision', precision, PRECISIONS),
    ):
        if value is not None and value not in tuple(names):
            raise UserError(
                f'--{option} must be one of {", ".join(names)}, got {value!r}.'
            )
    for option in ('image_size', 'batch_size', 'epochs'):
        if others.get(option) is not None:
            check_positive_int(f'--{option.replace("_", "-")}', others[option])
    if workers is not None:
        check_int_between('--workers', workers, 0, 1024)
    if lr is not None and not (type(lr) in (int, float) and 0 <= lr < math.inf):
        raise UserError(f'--lr must be a number of at least 0, got {lr!r}.')
    check_int_between('--seed', seed, 0, 2**32 - 1)


def check_precision(precision: str, machine: Machine) -> None:
    """Raise if the machine cannot train in this precision."""
    if precision != 'float32' and not machine.on_gpu:
        raise UserError(
            f'--precision {precision} needs a GPU, and there is none: leave it out.'
        )
    if precision == 'bf16' and not machine.bf16:
        raise UserError(
            f'--precision bf16 is slow on the {machine.name}, which lacks bfloat16: '
            'use fp16.'
        )


def check_batch(
    batch_size: int, fits: int, cost: Cost, machine: Machine, images: int
) -> None:
    """Raise if a batch does not fit into the memory, or there are too few images."""
    if batch_size < 2:
        raise UserError(
            f'--batch-size must be at least 2, because images are mixed in pairs, got '
            f'{batch_size}.'
        )
    if batch_size > fits:
        where = machine.name if machine.on_gpu else 'this machine'
        needs = cost.memory(batch_size) / GIB
        advice = (
            f'choose --batch-size {fits} or less'
            if fits >= 2
            else 'choose a smaller --model or --image-size'
        )
        raise UserError(
            f'A batch of {batch_size} images needs about {needs:.1f} GiB, and '
            f'{where} has {machine.memory / GIB:.1f} GiB free, of which a '
            f'run may take 80 %: {advice}.'
        )
    if batch_size > images:
        raise UserError(
            f'--batch-size {batch_size} is larger than the {plural(images, "image")} '
            f'to train on: choose {images - images % 2} or less.'
        )
