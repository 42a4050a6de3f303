"""The rules that choose a setting: each gives a value and its reason.

They are documented in docs/command.md. All of them are pure functions: the same scan,
machine and options give the same settings. Helpers stand at the end.
"""

from __future__ import annotations

import math

from mmmixmim.datasets.scan import Scan
from mmmixmim.text import plural

from .machine import GIB, Cost, Machine
from .models import SIZES, largest_patch, stride

# On a CPU, a run gets an hour at this speed per core, unless --epochs says otherwise.
_CPU_FLOPS_PER_SECOND = 20e9
_CPU_SECONDS = 3600


def image_size(scan: Scan, machine: Machine) -> tuple[int, str]:
    """Side of the crops: the usual one of the machine, or what the images have."""
    side = scan.short_sides[1]
    limit = 224 if machine.on_gpu else 96
    if side >= limit:
        why = 'as in the paper' if machine.on_gpu else 'more is slow on a CPU'
        return limit, f'shorter sides have {side} pixels (median); {why}'
    size = max(32, side // 32 * 32)
    return size, f'shorter sides have {side} pixels (median)'


def model(images: int, machine: Machine, image_size: int) -> tuple[str, str]:
    """The larger the data and the machine, the larger the model."""
    if not machine.on_gpu:
        return 'micro', 'there is no GPU, so the smallest'
    if image_size < 96:
        return 'micro', f'{image_size} pixels are too few for more stages'
    if images < 20_000:
        return 'tiny', f'{images:,} images are few'
    if images < 1_000_000 or machine.memory < 40 * GIB:
        return 'base', f'{images:,} images, {machine.memory / GIB:.0f} GiB of memory'
    return 'large', f'{images:,} images, {machine.memory / GIB:.0f} GiB of memory'


def patch_size(model: str, image_size: int) -> tuple[int, str]:
    """Largest patch that leaves enough cells."""
    size = largest_patch(model, image_size)
    cell = stride(model, size)
    return size, f'makes cells of {cell} pixels, {image_size // cell} per side'


def in_channels(scan: Scan) -> tuple[int, str]:
    """Channels that the model sees."""
    if scan.is_raster:
        return min(scan.channels), 'those of the files, in their order and range'
    return 3, 'images of 8 bits are read as RGB'


def precision(machine: Machine) -> tuple[str, str]:
    """The fastest precision of the machine."""
    if not machine.on_gpu:
        return 'float32', 'there is no GPU'
    if machine.bf16:
        return 'bf16', f'the {machine.name} computes in it'
    return 'fp16', f'the {machine.name} has no bfloat16'


def held_out(scan: Scan) -> tuple[int, str]:
    """Number of images that are not trained on."""
    images = scan.images
    if images < 64:
        return 0, f'{images} images are too few to leave some out'
    if scan.shards:
        count = min(1000, scan.first_shard)
        if scan.shards < 10 or count < 16:
            return 0, 'that needs ten shards, the first with at least 16 images'
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


def val_interval(epochs: int, cost: float) -> tuple[int, str]:
    """Epochs between validations.

    Args:
        epochs: Length of the training.
        cost: Images measured for each that is trained on in an epoch. Both take about
            as long.
    """
    interval, rarest = max(1, epochs // 20), max(1, epochs // 4)
    cheap = math.ceil(cost / 0.02)
    if interval >= cheap:
        times = plural(epochs // interval, 'time')
        return interval, f'measures held-out images {times}'
    if cheap <= rarest:
        return cheap, 'measuring held-out images then takes about 2 % of the time'
    return rarest, (
        f'measures held-out images {plural(epochs // rarest, "time")}, the minimum; '
        'this takes over 2 % of the time'
    )


def batch_size(images: int, total: int, fits: int) -> tuple[int, str]:
    """Images of a batch: an update at once, or the most that fits."""
    size = min(total, 2 ** int(math.log2(max(2, fits))))
    if size < total:
        return size, f'the largest power of two that fits into the memory ({fits})'
    updates = plural(images // size, 'update')
    return size, f'{updates} in an epoch of {plural(images, "image")}'


def accumulation(total: int, batch_size: int) -> tuple[int, str]:
    """Batches of an update."""
    count = max(1, total // batch_size)
    if count == 1:
        return 1, 'one batch is an update'
    return count, f'gradients of {count} batches add up to {count * batch_size} images'


def epochs(images: int, cost: Cost, machine: Machine) -> tuple[int, str]:
    """Epochs of a pretraining: the rule, or what a CPU does in an hour."""
    rule = round(min(800, max(100, 300 * math.sqrt(1.28e6 / images))))
    reason = '300 for 1.28 million images, more for fewer, at most 800'
    if machine.on_gpu:
        return rule, reason
    affordable = max(5, round(_CPU_SECONDS / epoch_seconds(images, cost, machine)))
    if affordable >= rule:
        return rule, reason
    cores = plural(machine.cores, 'core')
    return affordable, f'about an hour on {cores}; {rule} on a GPU'


def epochs_of_classification(images: int, batch: int) -> tuple[int, str]:
    """Epochs of a fine-tuning."""
    updates = max(1, images // batch)
    epochs = min(100, max(20, math.ceil(2000 / updates)))
    each = plural(updates, 'update')
    return epochs, f'about 2,000 updates, 20 to 100 epochs; {each} in one'


def layer_decay(model: str, pretrained: bool) -> tuple[float, str]:
    """Learning rate of a layer over that of the next one."""
    if not pretrained:
        return 1.0, 'nothing is pretrained'
    blocks = sum(SIZES[model].depths)
    rate = 0.7 if blocks >= 24 else 0.75
    return rate, f"the authors' 0.7 for 24 blocks, 0.75 for fewer; {blocks} here"


def learning_rate(batch: int, model: str) -> tuple[float, str]:
    """Learning rate after the warm-up."""
    width = SIZES[model].embed_dims
    rate = 1.2e-3 * math.sqrt(batch / 2048) * 128 / width
    return float(f'{rate:.2g}'), (
        f'1.2e-3 for base and batches of 2,048, by the root of the batch ({batch}) and '
        f'the inverse of the width ({width})'
    )


def warmup(epochs: int, share: float = 40 / 300) -> tuple[int, str]:
    """Epochs of the warm-up."""
    return min(epochs - 1, round(epochs * share)), f'{share:.0%} of the epochs'


def workers(machine: Machine, batch: int, shards: int | None = None) -> tuple[int, str]:
    """Processes that load.

    Args:
        machine: The machine.
        batch: Bytes of a batch.
        shards: Number of shards, which the processes share. Defaults to None: none.
    """
    if not machine.forks:
        return 0, "Apple's libraries crash in forked processes"
    if machine.cores <= 2:
        return 0, 'all cores are busy training'
    count = min(16, machine.cores - 1) if machine.on_gpu else min(4, machine.cores // 2)
    # Each hands two batches over in advance; half of the memory is left for others.
    fits = machine.shared_memory / (4 * batch)
    if fits < min(count, shards or count):
        free = f'{machine.shared_memory / 2**20:,.0f} MiB of shared memory'
        return int(fits), f'the most for {free}; `mixmim doctor` says how to get more'
    if shards and shards < count:
        return shards, f'they share {plural(shards, "shard")}'
    return count, plural(machine.cores, 'core')


def total_batch(images: int) -> int:
    """Images per update: a power of two that leaves about 16 updates per epoch."""
    size = min(1024, max(8, 2 ** int(math.log2(max(1, images / 16)))))
    return min(size, max(2, images - images % 2))


def epoch_seconds(images: int, cost: Cost, machine: Machine) -> float:
    """Seconds of an epoch on a CPU."""
    return cost.flops * images / (machine.cores * _CPU_FLOPS_PER_SECOND)
