"""Choose the settings of a run from the data and the machine.

The rules are documented in docs/command.md. All of them are pure functions: the same
scan, machine and options give the same settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmmixmim.datasets.scan import Scan
from mmmixmim.validation import (
    UserError,
    check_int_between,
    check_positive_int,
    plural,
)

from .machine import Cost, Machine, training_cost
from .models import SIZES, largest_patch, pretraining_model, stride

_GIB = 1024**3
# On a CPU, a run gets an hour at this speed per core, unless --epochs says otherwise.
_CPU_FLOPS_PER_SECOND = 20e9
_CPU_SECONDS = 3600
PRECISIONS = ('float32', 'bf16', 'fp16')


@dataclass(frozen=True)
class Choice:
    """A setting with its reason."""

    name: str
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

    def add(self, name: str, choose: Callable[[], tuple[object, str]]):
        """Take the user's value, or choose one. Returns the value."""
        if name in self:  # follows from given weights
            return self[name].value
        if name in self.given:
            value, reason = self.given[name], 'as given'
        else:
            value, reason = choose()
        self[name] = Choice(name, value, reason)
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
    images = scan.images - chosen.add('held_out', lambda: _held_out(scan))
    total = _total_batch(images)
    fits = largest_batch(cost, machine)
    chosen.add('batch_size', lambda: _batch_size(images, total, fits))
    check_batch(chosen.batch_size, fits, cost, machine, images)
    chosen.add('accumulation', lambda: _accumulation(total, chosen.batch_size))
    chosen.add('epochs', lambda: _epochs(images, cost, machine))
    if chosen.held_out:
        cost_of_one = chosen.held_out / images
        chosen.add('val_interval', lambda: _val_interval(chosen.epochs, cost_of_one))
    batch = chosen.batch_size * chosen.accumulation
    chosen.add('lr', lambda: _learning_rate(batch, chosen.model))
    chosen.add('warmup', lambda: _warmup(chosen.epochs))
    shards = scan.shards - bool(chosen.held_out) if scan.shards else None
    chosen.add('workers', lambda: _workers(machine, shards))
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
    total = min(256, _total_batch(images))
    fits = largest_batch(cost, machine)
    chosen.add('batch_size', lambda: _batch_size(images, total, fits))
    check_batch(chosen.batch_size, fits, cost, machine, images)
    chosen.add('accumulation', lambda: _accumulation(total, chosen.batch_size))
    batch = chosen.batch_size * chosen.accumulation
    chosen.add('epochs', lambda: _epochs_of_classification(images, batch))
    pretrained = known is not None
    chosen.add('layer_decay', lambda: _layer_decay(chosen.model, pretrained))
    chosen.add('lr', lambda: _learning_rate(batch, chosen.model))
    chosen.add('warmup', lambda: _warmup(chosen.epochs, 5 / 100))
    chosen.add('workers', lambda: _workers(machine))
    return chosen, cost


def _choose_model(
    scan: Scan, machine: Machine, known: dict | None, given: dict
) -> tuple[Choices, Cost]:
    """Choose what the model looks like, and compute what it costs."""
    chosen = Choices(**given)
    _known(chosen, known)
    chosen.add('image_size', lambda: _image_size(scan, machine))
    chosen.add('model', lambda: _model(scan.images, machine, chosen.image_size))
    chosen.add('patch_size', lambda: _patch_size(chosen.model, chosen.image_size))
    chosen.add('in_channels', lambda: _in_channels(scan))
    check_sizes(chosen, scan)
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    model = pretraining_model(chosen.model, *sizes)
    cost = training_cost(model, chosen.in_channels, chosen.image_size)
    chosen.add('precision', lambda: _precision(machine))
    check_precision(chosen.precision, machine)
    if chosen.precision != 'float32':  # halves all but norms and residual sums
        cost = replace(cost, activations=round(0.6 * cost.activations))
    return chosen, cost


def _known(chosen: Choices, known: dict | None) -> None:
    """Take settings that follow from given weights; they cannot be changed."""
    for name in ('model', 'image_size', 'patch_size') if known else ():
        value = known[name]
        if name == 'model' and chosen.given.get(name, value) != value:
            raise UserError(
                f'--model {chosen.given[name]} does not fit the weights of --from, '
                f'which are of the model {value}: leave out --model.'
            )
        chosen.add(name, lambda value=value: (value, 'as in the weights of --from'))


def largest_batch(cost: Cost, machine: Machine) -> int:
    """Largest batch that fits into 80 % of the free memory."""
    return cost.largest_batch(int(0.8 * machine.memory))


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
        if value is not None and value not in names:
            raise UserError(
                f'--{option} must be one of {", ".join(names)}, got {value!r}.'
            )
    for option in ('image_size', 'batch_size', 'epochs'):
        if others.get(option) is not None:
            check_positive_int(f'--{option.replace("_", "-")}', others[option])
    if workers is not None:
        check_int_between('--workers', workers, 0, 1024)
    if lr is not None and not 0 <= lr < math.inf:
        raise UserError(f'--lr must be at least 0, got {lr}.')
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
        needs = cost.memory(batch_size) / _GIB
        advice = (
            f'choose --batch-size {fits} or less'
            if fits >= 2
            else 'choose a smaller --model or --image-size'
        )
        raise UserError(
            f'A batch of {batch_size} images needs about {needs:.1f} GiB, and '
            f'{where} has {machine.memory / _GIB:.1f} GiB free, of which a '
            f'run may take 80 %: {advice}.'
        )
    if batch_size > images:
        raise UserError(
            f'--batch-size {batch_size} is larger than the {plural(images, "image")} '
            f'to train on: choose {images - images % 2} or less.'
        )


def _image_size(scan: Scan, machine: Machine) -> tuple[int, str]:
    side = scan.short_sides[1]
    limit = 224 if machine.on_gpu else 96
    if side >= limit:
        why = 'as in the paper' if machine.on_gpu else 'more is slow on a CPU'
        return limit, f'shorter sides have {side} pixels (median); {why}'
    size = max(32, side // 32 * 32)
    return size, f'shorter sides have {side} pixels (median)'


def _model(images: int, machine: Machine, image_size: int) -> tuple[str, str]:
    if not machine.on_gpu:
        return 'micro', 'there is no GPU, so the smallest'
    if image_size < 96:
        return 'micro', f'{image_size} pixels are too few for more stages'
    if images < 20_000:
        return 'tiny', f'{images:,} images are few'
    if images < 1_000_000 or machine.memory < 40 * _GIB:
        return 'base', f'{images:,} images, {machine.memory / _GIB:.0f} GiB of memory'
    return 'large', f'{images:,} images, {machine.memory / _GIB:.0f} GiB of memory'


def _patch_size(model: str, image_size: int) -> tuple[int, str]:
    size = largest_patch(model, image_size)
    cell = stride(model, size)
    return size, f'makes cells of {cell} pixels, {image_size // cell} per side'


def _in_channels(scan: Scan) -> tuple[int, str]:
    if scan.is_raster:
        return min(scan.channels), 'those of the files, in their order and range'
    return 3, 'images of 8 bits are read as RGB'


def _precision(machine: Machine) -> tuple[str, str]:
    if not machine.on_gpu:
        return 'float32', 'there is no GPU'
    if machine.bf16:
        return 'bf16', f'the {machine.name} computes in it'
    return 'fp16', f'the {machine.name} has no bfloat16'


def _held_out(scan: Scan) -> tuple[int, str]:
    images = scan.images
    if images < 64:
        return 0, f'{images} images are too few to leave some out'
    if scan.shards:
        count = min(1000, images // scan.shards)
        if scan.shards < 10 or count < 16:
            return 0, 'that takes ten shards of at least 16 images'
        return count, 'images of the first shard, which is not trained on'
    share = images // 20
    count = min(1000, max(16, share))
    reason = '5 % of the images'
    if count > share:
        reason = (
            f'{count / images:.0%} of the images; the least that gives a stable figure'
        )
    elif count < share:
        reason = f'{count:,} are enough; 5 % would be {share:,}'
    return count, f'{reason}; never trained on'


def _val_interval(epochs: int, cost: float) -> tuple[int, str]:
    """Epochs between validations.

    Args:
        epochs: Length of the training.
        cost: Images measured for each that is trained on in an epoch. Both take about
            as long.
    """
    interval, rarest = max(1, epochs // 20), max(1, epochs // 4)
    cheap = math.ceil(cost / 0.02)
    if interval >= cheap:
        return interval, f'measures held-out images {epochs // interval} times'
    if cheap <= rarest:
        return cheap, 'measuring held-out images then takes about 2 % of the time'
    return rarest, (
        f'measures held-out images {epochs // rarest} times, the minimum; this takes '
        'over 2 % of the time'
    )


def time_of_training(chosen: Choices, images: int, cost: Cost, machine: Machine) -> str:
    """Say how long a training takes on a CPU; '' on a GPU, whose speed is unknown."""
    if machine.on_gpu:
        return ''
    minutes = chosen.epochs * _epoch_seconds(images, cost, machine) / 60
    return (
        f'This takes {_duration(minutes)} at 20 GFLOP/s per core, which is a '
        'guess: the time left is measured once it trains.'
    )


def _duration(minutes: float) -> str:
    hours = minutes / 60
    if minutes < 1:
        return 'less than a minute'
    if minutes < 90:
        return f'about {minutes:.0f} min'
    if hours < 10:
        return f'about {hours:.1f} h'
    return f'about {hours:.0f} h' if hours <= 48 else f'about {hours / 24:.0f} days'


def _epoch_seconds(images: int, cost: Cost, machine: Machine) -> float:
    return cost.flops * images / (machine.cores * _CPU_FLOPS_PER_SECOND)


def _total_batch(images: int) -> int:
    """Images per update: a power of two that leaves about 16 updates per epoch."""
    size = min(1024, max(8, 2 ** int(math.log2(max(1, images / 16)))))
    return min(size, max(2, images - images % 2))


def _batch_size(images: int, total: int, fits: int) -> tuple[int, str]:
    size = min(total, 2 ** int(math.log2(max(2, fits))))
    if size < total:
        return size, f'the largest power of two that fits into the memory ({fits})'
    updates = plural(images // size, 'update')
    return size, f'{updates} in an epoch of {plural(images, "image")}'


def _accumulation(total: int, batch_size: int) -> tuple[int, str]:
    count = max(1, total // batch_size)
    if count == 1:
        return 1, 'one batch is an update'
    return count, f'gradients of {count} batches add up to {count * batch_size} images'


def _epochs(images: int, cost: Cost, machine: Machine) -> tuple[int, str]:
    rule = round(min(800, max(100, 300 * math.sqrt(1.28e6 / images))))
    reason = '300 for 1.28 million images, more for fewer, at most 800'
    if machine.on_gpu:
        return rule, reason
    affordable = max(5, round(_CPU_SECONDS / _epoch_seconds(images, cost, machine)))
    if affordable >= rule:
        return rule, reason
    cores = plural(machine.cores, 'core')
    return affordable, f'about an hour on {cores}; {rule} on a GPU'


def _epochs_of_classification(images: int, batch: int) -> tuple[int, str]:
    updates = max(1, images // batch)
    epochs = min(100, max(20, math.ceil(2000 / updates)))
    each = plural(updates, 'update')
    return epochs, f'about 2,000 updates, 20 to 100 epochs; {each} in one'


def _layer_decay(model: str, pretrained: bool) -> tuple[float, str]:
    if not pretrained:
        return 1.0, 'nothing is pretrained'
    blocks = sum(SIZES[model].depths)
    rate = 0.7 if blocks >= 24 else 0.75
    return rate, f"the authors' 0.7 for 24 blocks, 0.75 for fewer; {blocks} here"


def _learning_rate(batch: int, model: str) -> tuple[float, str]:
    width = SIZES[model].embed_dims
    rate = 1.2e-3 * math.sqrt(batch / 2048) * 128 / width
    return float(f'{rate:.2g}'), (
        f'1.2e-3 for base and batches of 2,048, by the root of the batch ({batch}) and '
        f'the inverse of the width ({width})'
    )


def _warmup(epochs: int, share: float = 40 / 300) -> tuple[int, str]:
    return min(epochs - 1, round(epochs * share)), f'{share:.0%} of the epochs'


def _workers(machine: Machine, shards: int | None = None) -> tuple[int, str]:
    """Processes that load; they share the shards, if there are any."""
    if machine.cores <= 2:
        return 0, 'all cores are busy training'
    count = min(16, machine.cores - 1) if machine.on_gpu else min(4, machine.cores // 2)
    if shards and shards < count:
        return shards, f'they share {plural(shards, "shard")}'
    return count, plural(machine.cores, 'core')
