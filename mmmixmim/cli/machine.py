"""What the machine offers, and how much of it a training step needs."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

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
    """CPU cores that this process may use, in a container those of its quota."""
    affinity = getattr(os, 'sched_getaffinity', None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, Path('/sys/fs/cgroup/cpu.max').read_text().split())
        return min(cores, math.ceil(quota / period))
    except (OSError, ValueError):  # no container, or no quota
        return cores


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
    """Bytes that can be allocated without swapping, inside a container's limit."""
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        kilobytes = next(x.split()[1] for x in lines if x.startswith('MemAvailable'))
        free = int(kilobytes) * 1024
    except (OSError, StopIteration):  # macOS
        free = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
    try:
        group = Path('/sys/fs/cgroup')
        limit = int((group / 'memory.max').read_text())
        used = int((group / 'memory.current').read_text())
        # The kernel frees its page cache on demand.
        stat = (group / 'memory.stat').read_text()
        cached = re.search(r'^inactive_file (\d+)$', stat, re.MULTILINE)
        used -= int(cached[1]) if cached else 0
        return max(0, min(free, limit - used))
    except (OSError, ValueError):  # no container, or no limit
        return free
