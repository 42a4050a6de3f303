"""What the machine offers, and how much of it a training step needs."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmmixmim.evaluation import complexity
from mmmixmim.models.meta import build_on_meta

GIB = 1024**3
# float32 weights, their gradients and AdamW's two moments.
BYTES_PER_PARAMETER = 16
# Weights and the two moments: what a checkpoint holds.
CHECKPOINT_BYTES_PER_PARAMETER = 12
# Buffers, fragmentation and the libraries come on top of what autograd keeps.
_MARGIN = 1.5
# Apple's libraries crash in forked processes.
FORKS = sys.platform != 'darwin'
# Where control groups are mounted, and the two numbers of a limit in version 2 and 1.
_GROUPS = Path('/sys/fs/cgroup')
_LIMITS = dict(
    cpu=(('cpu.max',), ('cpu.cfs_quota_us', 'cpu.cfs_period_us')),
    memory=(
        ('memory.max', 'memory.current'),
        ('memory.limit_in_bytes', 'memory.usage_in_bytes'),
    ),
)


@dataclass(frozen=True)
class Machine:
    """The device that trains.

    Attributes:
        device: 'cuda' or 'cpu'.
        name: Name of the GPU, or 'CPU'.
        memory: Free memory of the device in bytes.
        cores: CPU cores that this process may use.
        bf16: Whether the GPU computes in bfloat16.
        shared_memory: Free bytes for what loader processes hand over.
        forks: Whether loader processes can be forked.
    """

    device: str
    name: str
    memory: int
    cores: int
    bf16: bool = False
    shared_memory: float = math.inf
    forks: bool = FORKS

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU trains."""
        return self.device == 'cuda'


def this_machine() -> Machine:
    """Describe this machine and its first GPU, if it has one."""
    cores, shared = _cores(), _free_shared_memory()
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine('cuda', name, free, cores, bf16, shared)
    return Machine('cpu', 'CPU', _free_memory(), cores, shared_memory=shared)


def _cores() -> int:
    """CPU cores that this process may use, within the quotas of its groups."""
    affinity = getattr(os, 'sched_getaffinity', None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, group_cores(_GROUPS, _own_groups()))


def group_cores(root: Path, groups: str) -> float:
    """CPU cores that control groups grant.

    Args:
        root: Where they are mounted.
        groups: Content of /proc/self/cgroup.
    """
    limits = _group_limits(root, groups, 'cpu')
    # Version 1 writes -1 for no quota.
    cores = (math.ceil(quota / period) for _, quota, period in limits if quota > 0)
    return min(cores, default=math.inf)


def group_memory(root: Path, groups: str) -> float:
    """Free bytes within the limits of control groups; arguments as above."""
    free = [math.inf]
    for group, limit, used in _group_limits(root, groups, 'memory'):
        with suppress(OSError):
            # The kernel frees its page cache on demand. In version 1, the line of the
            # group alone comes before that of all groups below it.
            stat = (group / 'memory.stat').read_text()
            cached = re.findall(r'^(?:total_)?inactive_file (\d+)$', stat, re.MULTILINE)
            used -= int((cached or [0])[-1])
        free.append(max(0, limit - used))
    return min(free)


def _group_limits(
    root: Path, groups: str, controller: str
) -> Iterator[tuple[Path, int, int]]:
    """Limits of the groups of this process and of all groups above them."""
    for line in groups.splitlines():
        if line.count(':') < 2:  # of no kernel that we know
            continue
        _, controllers, name = line.split(':', 2)
        if controllers and controller not in controllers.split(','):
            continue
        top = root / controller if controllers else root  # version 1, or 2
        path = PurePath(name.lstrip('/'))
        for group in (path, *path.parents):  # up to '.', as which containers see theirs
            for files in _LIMITS[controller]:
                with suppress(OSError, ValueError):  # none of this version, or no limit
                    words = ' '.join((top / group / x).read_text() for x in files)
                    first, second = map(int, words.split())
                    yield top / group, first, second


def _own_groups() -> str:
    try:
        return Path('/proc/self/cgroup').read_text(errors='replace')
    except OSError:  # macOS
        return ''


def _free_shared_memory() -> float:
    folder = Path('/dev/shm')  # not on macOS
    return shutil.disk_usage(folder).free if folder.is_dir() else math.inf


def busy_note(machine: Machine) -> tuple[str, str] | None:
    """Say that other processes slow a training on the CPU down, and the way out.

    Threads wait for the slowest one: on two cores, of which another process uses one,
    two threads can be many times slower than one.
    """
    total, busy = os.cpu_count() or 1, _busy_cores()
    threads, free = torch.get_num_threads(), max(1, total - busy)
    if machine.on_gpu or busy < max(1, total / 4) or threads <= free:
        return None
    return (
        f'other processes use {busy} of {total} cores, so {threads} threads wait for '
        'each other',
        f'export OMP_NUM_THREADS={free}, or wait until those processes end',
    )


def _busy_cores() -> int:
    """Cores of the whole machine that other processes use, as an estimate."""
    try:
        load, _, _, running, _ = Path('/proc/loadavg').read_text().split()
    except (OSError, ValueError):  # macOS
        return 0
    # The load of the last minute includes runs that have ended. Of the threads that
    # run right now, one is this one.
    now = int(running.partition('/')[0]) - 1
    return min(round(float(load)), now, os.cpu_count() or 1)


@dataclass(frozen=True)
class Cost:
    """What training a model costs.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations of a training step, per image.
        activations: Bytes that autograd keeps for the backward pass, per image.
    """

    parameters: int
    flops: int
    activations: int

    def memory(self, batch_size: int) -> int:
        """Bytes that training with a batch needs, as an estimate."""
        step = _MARGIN * self.activations * batch_size
        return round(step) + BYTES_PER_PARAMETER * self.parameters

    def largest_batch(self, memory: int) -> int:
        """Largest batch that fits into ``memory`` bytes; below 1 if none does."""
        left = memory - BYTES_PER_PARAMETER * self.parameters
        return int(left // (_MARGIN * self.activations))


def training_cost(model: dict, in_channels: int, image_size: int) -> Cost:
    """Compute the cost of pretraining, without running the model.

    Everything runs on PyTorch's meta device, which keeps shapes only.

    Args:
        model: Config of a ``MixMIM`` model.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
    """
    init_default_scope('mmmixmim')
    built = build_on_meta(ConfigDict(model)).train()
    with torch.device('meta'):
        images = torch.empty(2, in_channels, image_size, image_size)
        kept = _kept_for_backward(built, images)
        arguments = dict(data_samples=None, mode='loss')
        total = complexity(built, images, **arguments)['total']
    # Forward, and twice as much backward; a multiply-accumulate is two operations.
    return Cost(total['parameters'], 6 * total['macs'], kept // 2)


def _kept_for_backward(model: nn.Module, images: torch.Tensor) -> int:
    own = {id(parameter) for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    alive = []  # an id is only unique among living objects

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            alive.append(base)
            sizes[id(base)] = base.numel() * base.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images, mode='loss')
    return sum(sizes.values())


def _free_memory() -> int:
    """Bytes that can be allocated without swapping, within the limits of its groups."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        kilobytes = next(x.split()[1] for x in lines if x.startswith('MemAvailable'))
        free = int(kilobytes) * 1024
    except (OSError, StopIteration):  # macOS
        free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
    return min(free, group_memory(_GROUPS, _own_groups()))
