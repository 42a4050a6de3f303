"""Predict the time of a step on a GPU that is not at hand, from its kernels.

The step runs on the CPU, on tensors without values where the model allows it. Every
kernel that an eager GPU would run is counted with its FLOPs and the bytes that it reads
and writes. By the roofline model (Williams et al., 2009) it takes the longest of three:
FLOPs over the speed of the card, bytes over its bandwidth, and the time of a launch.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from mmmixmim import ops
from mmmixmim.validation import UserError

# Assumptions: the shares of a data sheet's peaks that good kernels reach, and the time
# of a launch.
PEAK_SHARE, BANDWIDTH_SHARE, LAUNCH = 0.56, 0.76, 2.5e-6

# Operators that change how a tensor is seen, or allocate memory: no kernel runs.
_NO_KERNEL = set(
    'view _unsafe_view t transpose permute unsqueeze squeeze expand slice select split '
    'split_with_sizes unbind as_strided detach alias chunk _reshape_alias unflatten '
    'unfold diagonal empty empty_like empty_strided new_empty new_empty_strided '
    'lift_fresh lift device is_same_size set_ resize_'.split()
)
LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Card:
    """A GPU, by the figures of its data sheet.

    Attributes:
        name: Name.
        low: Dense FLOP/s of GEMMs in bfloat16 and float16.
        full: Dense FLOP/s of GEMMs in float32, without TF32.
        bandwidth: Bytes per second of its memory.
        memory: Bytes of its memory.
        link: Bytes per second to other GPUs of the machine, in one direction.
        bf16: Whether it multiplies in bfloat16 as fast as in float16.
    """

    name: str
    low: float
    full: float
    bandwidth: float
    memory: float
    link: float
    bf16: bool = True


def _card(name, low, full, bandwidth, memory, link, bf16=True) -> Card:
    """From TFLOP/s, TB/s, GiB and GB/s."""
    memory *= 2**30
    return Card(
        name, low * 1e12, full * 1e12, bandwidth * 1e12, memory, link * 1e9, bf16
    )


# Vendors' data sheets: dense tensor-core bf16, plain float32, and half of the
# bidirectional NVLink rate or, without NVLink, of PCIe. Memory in GiB, as drivers tell
# it: an H200 is sold with 141 GB.
CARDS = {
    card.name: card
    for card in (
        _card('v100', 125, 15.7, 0.9, 32, 150, bf16=False),
        _card('a100-40', 312, 19.5, 1.555, 40, 300),
        _card('a100', 312, 19.5, 2.039, 80, 300),
        _card('h100', 989, 67, 3.35, 80, 450),
        _card('h100-pcie', 756, 51, 2.0, 80, 64),
        _card('h200', 989, 67, 4.8, 140, 450),
        _card('b200', 2250, 75, 8.0, 179, 900),
        _card('l40s', 362, 91.6, 0.864, 48, 32),
        _card('a10', 125, 31.2, 0.6, 24, 32),
        _card('rtx-3090', 71, 35.6, 0.936, 24, 32),
        _card('rtx-4090', 165, 82.6, 1.008, 24, 32),
    )
}


def find_card(name: str) -> Card:
    """Return a card by its name, or by ``TFLOPs,TB/s,GiB`` and optionally ``,GB/s``.

    Args:
        name: A key of ``CARDS``, or numbers such as '312,2.0,80': peak of bfloat16 in
            TFLOP/s, bandwidth in TB/s, memory in GiB, and 32 GB/s between GPUs unless
            a fourth number says more. float32 is taken as a sixteenth of the peak.

    Raises:
        UserError: If it is neither.
    """
    card = CARDS.get(name.lower())
    if card is not None:
        return card
    try:
        numbers = [float(each) for each in name.split(',')]
    except ValueError:
        numbers = []
    if len(numbers) not in (3, 4) or not all(
        n > 0 and math.isfinite(n) for n in numbers
    ):
        raise UserError(
            f'Unknown GPU {name!r}: choose one of {", ".join(CARDS)}, or give its peak '
            'in TFLOP/s (bfloat16), bandwidth in TB/s and memory in GiB: 312,2.0,80.'
        )
    peak, bandwidth, memory, link = [*numbers, 32.0][:4]
    return _card(name, peak, peak / 16, bandwidth, memory, link)


@dataclass
class Kernels:
    """What the kernels of one kind add up to.

    Attributes:
        number: How many ran.
        size: Bytes read and written.
        flops: FLOPs, two per multiply-accumulate.
    """

    number: int = 0
    size: int = 0
    flops: int = 0

    def __add__(self, other: Kernels) -> Kernels:
        return Kernels(
            self.number + other.number,
            self.size + other.size,
            self.flops + other.flops,
        )


class KernelCounter(TorchDispatchMode):
    """Count the kernels that run inside, and what they cost on a card.

    Args:
        compute: Whether GEMMs, convolutions and attention are computed. False returns
            zeros in their place, which is faster on real tensors. Defaults to True.

    Attributes:
        calls: For each kind of call (operator, low precision, FLOPs, bytes), how many.
    """

    def __init__(self, compute: bool = True) -> None:
        super().__init__()
        self.compute = compute
        self.calls: dict[tuple[str, bool, int, int], int] = defaultdict(int)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if self.compute or packet not in flop_registry:
            out = func(*args, **kwargs)
        else:
            out = _zeros(func, args, kwargs)
        self.add(func, args, kwargs, out)
        return out

    def add(self, func: torch._ops.OpOverload, args: tuple, kwargs: dict, out) -> None:
        """Count a call of an operator, if a kernel runs."""
        name = func._schema.name.split('::')[1]
        if name in _NO_KERNEL or func.is_view:
            return
        packet = func._overloadpacket
        inputs = _tensors((args, kwargs))
        outputs = _tensors(out)
        size = sum(map(_size, {id(each): each for each in inputs + outputs}.values()))
        size += sum(map(_size, _changed(func, args)))
        flops = 0
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
        low = any(each.dtype in LOW_PRECISION for each in inputs)
        self.calls[name, low, int(flops), size] += 1

    def total(self) -> Kernels:
        """The sum over all kernels."""
        return sum(self.rows().values(), Kernels())

    def rows(self) -> dict[str, Kernels]:
        """The sums of each operator, by name."""
        rows: dict[str, Kernels] = defaultdict(Kernels)
        for (name, _, flops, size), times in self.calls.items():
            rows[name] += Kernels(times, times * size, times * flops)
        return dict(rows)

    def seconds(self, card: Card, only: str | None = None, scale: float = 1.0) -> float:
        """Predict the time on a card.

        Args:
            card: The card.
            only: Name of the operator whose kernels count. Defaults to None: all.
            scale: Factor of the FLOPs and bytes of every kernel, for another batch
                size. Defaults to 1.
        """
        total = 0.0
        for (name, low, flops, size), times in self.calls.items():
            if only in (None, name):
                peak = PEAK_SHARE * (card.low if low else card.full)
                moved = scale * size / (BANDWIDTH_SHARE * card.bandwidth)
                total += times * max(scale * flops / peak, moved, LAUNCH)
        return total


@contextmanager
def gpu_operators() -> Iterator[None]:
    """Run on CPU tensors the operators that an eager GPU would run.

    A GPU's autocast computes norms and softmax in float32, a CPU's does not, and a GPU
    has the memory-efficient attention. The functions of PyTorch are replaced, since a
    TorchFunctionMode does not reach what the backward pass recomputes.
    """
    names = ('layer_norm', 'group_norm', 'softmax', 'log_softmax')
    replaced = {name: _in_float32(getattr(F, name)) for name in names}
    replaced['scaled_dot_product_attention'] = _efficient_attention
    with patch.multiple(F, **replaced), ops.as_on_gpu():
        yield


def _in_float32(function: Callable) -> Callable:
    @functools.wraps(function)
    def call(x: Tensor, *args, **kwargs) -> Tensor:
        return function(
            x.float() if torch.is_autocast_enabled('cpu') else x, *args, **kwargs
        )

    return call


def _efficient_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The memory-efficient kernel, the only one with a gradient for the bias.

    Without a bias a GPU may choose FlashAttention or cuDNN; the FLOPs are the same.
    """
    if torch.is_autocast_enabled('cpu'):
        low = torch.get_autocast_dtype('cpu')
        q, k, v = (each.to(low) for each in (q, k, v))
        attn_mask = None if attn_mask is None else attn_mask.to(low)
    if attn_mask is not None:
        keys = k.shape[-2]
        *steps, last = attn_mask.stride()
        if last != 1 or any(step % 8 for step in steps):
            # PyTorch copies it to rows that start at multiples of 8 numbers.
            attn_mask = F.pad(attn_mask, (0, 8 - keys % 8))[..., :keys]
        attn_mask = attn_mask.expand(*q.shape[:-1], keys)
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]


def _zeros(func, args: tuple, kwargs: dict):
    """Zeros of the shapes that an operator returns."""
    args, kwargs = tree_map_only(Tensor, lambda each: each.to('meta'), (args, kwargs))
    out = func(*args, **kwargs)
    return tree_map_only(Tensor, lambda each: torch.zeros_like(each, device='cpu'), out)


def _changed(func, args: tuple) -> list[Tensor]:
    """Inputs that an operator changes in place, which it reads and writes."""
    arguments = func._schema.arguments
    if not func._schema.name.endswith('_'):
        return []
    pairs = zip(arguments, args, strict=False)
    changed = [value for each, value in pairs if each.is_write]
    return _tensors(changed)


def _tensors(tree: object) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor; what is expanded is read once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n if step else 1 for n, step in sizes) * tensor.element_size()
