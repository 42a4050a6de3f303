"""Count what a compiled step would run, from the graphs that Inductor lowers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, fx
from torch._dynamo.device_interface import CudaInterface
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import compile_fx, config, ir, scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import BaseSchedulerNode
from torch._inductor.utils import get_fused_kernel_name
from torch._inductor.virtualized import V
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_map_only

from mmmixmim.runtime.entries import config_entry

from .batches import random_batch
from .roofline import KernelCounter, gpu_operators
from .step_cost import build_model, image_size, make_fake, make_states
from .workloads import PRECISIONS

# What Inductor asks of a card: here an H100 or H200.
_CARD = SimpleNamespace(
    name='H200',
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=2**16,
    max_threads_per_multi_processor=2048,
    warp_size=32,
)


def compiled_kernels(
    cfg: Config,
    batch: int,
    size: tuple[int, int] | None = None,
    precision: str = 'bf16',
) -> dict[str, KernelCounter]:
    """Count the kernels of a training step whose loss ``torch.compile`` compiles.

    Inductor lowers and fuses the graph of forward and backward pass for a GPU, on fake
    tensors. It counts the bytes of its own kernels, named 'fused' and what they
    compute; those of GEMMs and attention are counted as in the eager step. No code is
    generated, so no GPU is needed. AdamW is fused and not compiled.

    Args:
        cfg: Config of a model with a method ``loss(inputs, data_samples)``. Inductor
            gets the ``options`` of its hook ``default_hooks.compile``, if any.
        batch: Number of images.
        size: Height and width in pixels. Defaults to None: the backbone's.
        precision: 'fp32', or 'bf16' or 'fp16' with autocast.

    Returns:
        Kernels by phase, as of :func:`step_cost`.
    """
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    options = config_entry(cfg, 'default_hooks.compile.options')
    counter = _InductorCounter(options or {})
    torch.compiler.reset()
    model = build_model(cfg, real=False)
    size = image_size(model, size)
    with FakeTensorMode(allow_non_fake_inputs=True), gpu_operators():
        make_fake(model)
        inputs = random_batch(cfg, model.train(), batch, size)
        trained = [each for each in model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        make_states(trained, optimizer, keep_gradients=False)
        with counter.kernels['forward']:
            data = model.data_preprocessor(inputs, training=True)
        loss = torch.compile(model.loss, backend=counter, fullgraph=True)
        low = precision != 'fp32'
        with torch.autocast('cpu', PRECISIONS[precision], enabled=low):
            losses = loss(data['inputs'], data['data_samples'])
        model.parse_losses(losses)[0].backward()
        with counter.kernels['optimizer']:
            optimizer.step()
    return counter.kernels


@contextmanager
def _a_card() -> Iterator[None]:
    """Let Inductor lower for a GPU that is not there: nothing asks for its driver."""
    answers = dict(
        current_device=lambda: 0,
        device_count=lambda: 1,
        get_device_properties=lambda device=None: _CARD,
    )
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
            stack.enter_context(patch.object(CudaInterface, name, staticmethod(answer)))
        for module, name, answer in (
            (CudaInterface.Worker, 'get_device_properties', lambda device=None: _CARD),
            (torch.cuda, 'get_device_capability', lambda device=None: (9, 0)),
            (scheduler, 'has_triton', lambda: True),
            (fake_tensor, 'init_gpu_context', lambda device: None),
        ):
            stack.enter_context(patch.object(module, name, answer))
        yield


def _move(graph: fx.GraphModule, inputs: Sequence) -> list:
    """Move a graph to the GPU, and return its fake inputs there."""
    gpu = torch.device('cuda', 0)

    def moved(each: object) -> object:
        return gpu if isinstance(each, torch.device) else each

    for node in graph.graph.nodes:
        node.args = map_aggregate(node.args, moved)
        node.kwargs = map_aggregate(node.kwargs, moved)
    return [
        torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=gpu)
        if isinstance(each, Tensor)
        else each
        for each in inputs
    ]


class _InductorCounter:
    """A backend of ``torch.compile`` that counts kernels and runs the plain graph."""

    def __init__(self, options: dict) -> None:
        self.options = options
        phases = ('forward', 'backward', 'optimizer')
        self.kernels = {phase: KernelCounter() for phase in phases}

    def __call__(self, graph: fx.GraphModule, inputs: Sequence) -> Callable:
        with config.patch(fx_graph_cache=False, **self.options):
            return compile_fx.compile_fx(graph, inputs, inner_compile=self._lower)

    def _lower(
        self,
        graph: fx.GraphModule,
        inputs: Sequence,
        is_backward: bool | None = False,
        **kwargs,
    ) -> Callable:
        """Lower and schedule a graph, as Inductor does before it generates code."""
        counter = self.kernels['backward' if is_backward else 'forward']
        mode = compile_fx.fake_tensor_prop(graph, inputs)
        plain, graph = graph, fx.GraphModule(graph, copy.deepcopy(graph.graph))
        with _a_card(), V.set_fake_mode(mode), DebugContext():
            with mode:
                inputs = _move(graph, inputs)
            compile_fx.fake_tensor_prop(graph, inputs)
            compile_fx.record_original_output_strides(graph)
            compile_fx._recursive_post_grad_passes(graph, is_inference=False)
            lowered = GraphLowering(graph, inputs, shape_env=mode.shape_env)
            with V.set_graph_handler(lowered):
                lowered.run(*inputs)
                lowered.init_wrapper_code()
                lowered._update_scheduler()
                for node in lowered.scheduler.nodes:
                    self._count(node, counter)
        return make_boxed_func(plain.forward)

    def _count(self, node: BaseSchedulerNode, counter: KernelCounter) -> None:
        origin = _operator(node.node) if node.is_extern() else None
        if origin is not None:
            args, kwargs, out = tree_map_only(
                fx.Node,
                lambda each: each.meta['val'],
                (origin.args, origin.kwargs, origin),
            )
            counter.add(origin.target, args, kwargs, out)
        elif size := node.get_read_write_buffers_sizes():
            counter.calls[_name(node), True, 0, size] += 1


def _name(node: BaseSchedulerNode) -> str:
    """Name of one of Inductor's kernels: the operators of the model in it."""
    operators = get_fused_kernel_name(node.get_nodes(), 'original_aten')
    return operators.replace('_', ' ', 1)  # 'fused' and the rest


def _operator(kernel: ir.ExternKernel) -> fx.Node | None:
    """The call of the graph that a library's kernel runs, if it is known."""
    origin = kernel.get_origin_node()
    if origin is not None and isinstance(origin.target, torch._ops.OpOverload):
        return origin
    operator = getattr(kernel, 'op_overload', None) or object()
    return next((each for each in kernel.origins if each.target is operator), None)
