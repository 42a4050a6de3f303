"""Kernels and memory of a config's training step, without running it on its device."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.distributed._tools.mem_tracker import MemTracker

from mmmixmim import ops
from mmmixmim.models.meta import build_on_meta
from mmmixmim.validation import UserError, as_pair

from .batches import random_batch
from .memory import peak_memory, reuse_freed_memory
from .roofline import KernelCounter, gpu_operators
from .timing import seconds_of
from .workloads import PRECISIONS

# Images of a step on real tensors.
REAL_BATCH = 8


@dataclass
class StepCost:
    """What one training step of one GPU needs.

    Attributes:
        batch: Number of images that were counted.
        size: Height and width of the images in pixels.
        precision: 'fp32', 'fp16' or 'bf16'.
        parameters: Number of parameters.
        trained: Number of parameters that are trained.
        largest_block: Parameters of the largest block, of those that a list or a
            sequence holds.
        outside: Parameters that are in no block.
        mixture_size: Number of images in a mixture; 1 if none are mixed.
        flops: FLOPs of forward and backward pass without recomputation, per image.
        kernels: Kernels of the step by phase: 'forward', 'backward', 'optimizer'.
        memory: Bytes at the peak of memory, by kind: 'weights', 'gradients',
            'optimizer', 'activations' (with temporary tensors and inputs).
        widest: The same when activations are largest. With few images the peak may come
            later, when all gradients are there.
    """

    batch: int
    size: tuple[int, int]
    precision: str
    parameters: int
    trained: int
    largest_block: int
    outside: int
    mixture_size: int
    flops: float = 0
    kernels: dict[str, KernelCounter] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    widest: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes at the peak of memory."""
        return sum(self.memory.values())


def step_cost(
    cfg: Config,
    batch: int,
    size: tuple[int, int] | None = None,
    precision: str = 'fp32',
    recompute: str | None = None,
    fused: bool = True,
    gpu: bool = True,
    accumulate: bool = False,
) -> StepCost:
    """Count kernels and memory of a training step with AdamW.

    The step runs on fake tensors. Models whose shapes depend on values, as detectors,
    run on real ones, with at most ``REAL_BATCH`` images, where GEMMs, convolutions and
    attention return zeros instead of computing. What a CPU would run runs as it is.

    Args:
        cfg: Config of a model.
        batch: Number of images.
        size: Height and width in pixels. Defaults to None: the backbone's
            ``img_size``.
        precision: 'fp32', or 'bf16' or 'fp16' with autocast.
        recompute: 'none', 'norms' or 'blocks', for all parts that know it. Defaults to
            None: as configured.
        fused: Whether AdamW is fused. Defaults to True.
        gpu: Whether to run what an eager GPU would run, or what a CPU would. Defaults
            to True.
        accumulate: Whether all gradients exist already, from an earlier pass. Defaults
            to False.

    Raises:
        UserError: If nothing tells the size of the images.
    """
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    arguments = (cfg, batch, size, precision, recompute, fused, gpu, accumulate)
    if gpu and cfg.get('default_scope') != 'mmdet':
        try:
            return _step_cost(*arguments, real=False)
        except (DataDependentOutputException, DynamicOutputShapeException):
            pass
    return _step_cost(*arguments, real=True)


def _step_cost(
    cfg: Config,
    batch: int,
    size: tuple[int, int] | None,
    precision: str,
    recompute: str | None,
    fused: bool,
    gpu: bool,
    accumulate: bool,
    real: bool,
) -> StepCost:
    if real and gpu:
        batch = min(batch, REAL_BATCH)
    model = build_model(cfg, real)
    if recompute is not None:
        ops.set_recompute(model, recompute)
    size = image_size(model, size)
    trained = [each for each in model.parameters() if each.requires_grad]
    blocks = _blocks(model)
    inside = {id(each) for block in blocks for each in block.parameters()}
    cost = StepCost(
        batch,
        size,
        precision,
        parameters=_numel(model.parameters()),
        trained=_numel(trained),
        largest_block=max((_numel(each.parameters()) for each in blocks), default=0),
        outside=_numel(each for each in model.parameters() if id(each) not in inside),
        mixture_size=getattr(model, 'mixture_size', 1),
    )
    with ExitStack() as stack:
        if not real:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            make_fake(model)
            trained = [each for each in model.parameters() if each.requires_grad]
        if gpu:
            stack.enter_context(gpu_operators())
        if real and gpu:
            stack.enter_context(_nms_in_float32())
        inputs = random_batch(cfg, model, batch, size)
        _turn_frozen_into_buffers(model)
        model.train()
        optimizer = torch.optim.AdamW(trained, fused=fused, foreach=not fused)
        make_states(trained, optimizer, keep_gradients=accumulate)
        memory = _PeakMemory()
        memory.track_external(model, optimizer)
        stack.enter_context(memory)

        phases = ('forward', 'backward', 'optimizer')
        cost.kernels = {each: KernelCounter(not (real and gpu)) for each in phases}
        low = precision != 'fp32'
        with cost.kernels['forward']:
            data = model.data_preprocessor(inputs, training=True)
            with torch.autocast('cpu', PRECISIONS[precision], enabled=low):
                losses = model(**data, mode='loss')
            loss = model.parse_losses(losses)[0]
        with cost.kernels['backward']:
            loss.backward()
        del loss, losses, data
        with cost.kernels['optimizer']:
            optimizer.step()
    cost.memory = _by_kind(memory.get_tracker_snapshot('peak'))
    cost.widest = memory.widest
    forward, backward = (
        cost.kernels[name].total().flops for name in ('forward', 'backward')
    )
    # Recomputation does not count, nor what frozen parts skip.
    cost.flops = (forward + min(2 * forward, backward)) / batch
    return cost


def measured_step(
    cfg: Config, batch: int, size: tuple[int, int] | None = None
) -> tuple[int, float]:
    """Run real steps in float32 on this CPU, to compare with :func:`step_cost`.

    Call :func:`give_tensors_pages` first.

    Args:
        cfg: See :func:`step_cost`, with ``gpu=False`` and ``accumulate=True``.
        batch: See :func:`step_cost`.
        size: See :func:`step_cost`.

    Returns:
        Bytes of activations at the peak, which were predicted as
        ``memory['activations']``, and the median seconds of forward and backward pass.
    """
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    model = MODELS.build(cfg.model).train()
    inputs = random_batch(cfg, model, batch, image_size(model, size))

    def step() -> None:
        data = model.data_preprocessor(inputs, training=True)
        model.parse_losses(model(**data, mode='loss'))[0].backward()

    memory = peak_memory(step, 'cpu')
    reuse_freed_memory()
    return memory, statistics.median(seconds_of(step, 5))


class _PeakMemory(MemTracker):
    """Without the peaks of every module, which take most of MemTracker's time."""

    def __init__(self) -> None:
        super().__init__()
        self.widest = _by_kind({})  # memory when activations are largest

    def _update_peak_stats(self, *args) -> None:
        modules, self.memory_tracking = self.memory_tracking, {}
        super()._update_peak_stats(*args)
        self.memory_tracking = modules
        now = _by_kind(self._curr_mem_snap)
        if now['activations'] > self.widest['activations']:
            self.widest = now


def _nms_in_float32() -> AbstractContextManager:
    """Mmcv's NMS takes low precision on a GPU only."""
    # mmcv.ops.nms is the function of that name.
    module = importlib.import_module('mmcv.ops.nms')
    compiled = module.ext_module

    def nms(boxes, scores, **kwargs):
        return compiled.nms(boxes.float(), scores.float(), **kwargs)

    return patch.object(module, 'ext_module', SimpleNamespace(nms=nms))


def build_model(cfg: Config, real: bool) -> nn.Module:
    """Build the model, where it is possible without memory."""
    return MODELS.build(cfg.model) if real else build_on_meta(cfg.model)


def image_size(model: nn.Module, size: tuple[int, int] | None) -> tuple[int, int]:
    """The size that is given, or that of the backbone, in pixels (H, W)."""
    size = size or getattr(model.backbone, 'img_size', None)
    if size is None:
        raise UserError(
            f'{type(model.backbone).__name__} does not say which image size it is made '
            'for: add --shape.'
        )
    return as_pair('img_size', size)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The innermost parts of lists that hold more than one kind of layer."""
    return [
        block
        for part in model.modules()
        if isinstance(part, (nn.ModuleList, nn.Sequential))
        for block in part
        if not any(isinstance(each, nn.ModuleList) for each in block.modules())
    ]


def _numel(parameters: Iterable[nn.Parameter]) -> int:
    return sum(each.numel() for each in parameters)


def make_fake(model: nn.Module) -> None:
    """Replace all tensors of a model; ``Module.to`` refuses fake ones."""
    for module in model.modules():
        for name, each in module._parameters.items():
            if each is not None:
                empty = torch.empty(each.shape, dtype=each.dtype, device='cpu')
                parameter = nn.Parameter(empty, each.requires_grad)
                module._parameters[name] = parameter
        for name, each in module._buffers.items():
            if each is not None:
                module._buffers[name] = torch.empty(
                    each.shape, dtype=each.dtype, device='cpu'
                )


def _turn_frozen_into_buffers(model: nn.Module) -> None:
    """MemTracker wants a gradient of every parameter."""
    for module in model.modules():
        for name, each in list(module._parameters.items()):
            if each is not None and not each.requires_grad:
                del module._parameters[name]
                module._buffers[name] = each.data


def make_states(
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    keep_gradients: bool,
) -> None:
    """Let the optimizer allocate its states, as after its first step."""
    for each in parameters:
        each.grad = torch.zeros_like(each)
    optimizer.step()
    optimizer.zero_grad(set_to_none=not keep_gradients)


def _by_kind(snapshots: dict[torch.device, dict[str, int]]) -> dict[str, int]:
    """Memory by kind, summed over devices."""
    kinds = dict(weights=0, gradients=0, optimizer=0, activations=0)
    names = dict(
        Parameter='weights',
        Buffer='weights',
        Gradient='gradients',
        Optstate='optimizer',
    )
    for snapshot in snapshots.values():
        for kind, size in snapshot.items():
            if kind != 'Total':
                key = getattr(kind, 'value', kind)
                kinds[names.get(key, 'activations')] += size
    return kinds
