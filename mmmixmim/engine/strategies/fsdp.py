"""Shard a model over the processes: fully sharded data parallel (FSDP)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_distributed
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy
from torch.nn.utils import clip_grad_norm_

from mmmixmim.log import warn
from mmmixmim.models import MixMIM
from mmmixmim.registry import STRATEGIES
from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError

from ..wrappers import original_name
from .casts import check_casts

# Of the decoder and of all encoders.
BLOCKS = (
    'TransformerBlock',
    'MixMIMSwinBlock',
    'MixMIMSwinBlockV2',
    'MixMIMConvNeXtBlock',
    'MixMIMHiViTBlock',
    'MixMIMPVTLayer',
)


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's FSDP, on GPUs and CPUs, with the recipes of one process.

    Each process holds a share of the weights, gradients and optimizer state. It gathers
    the weights of one unit at a time. What differs from MMEngine's strategy:

    - The optimizer's groups are made of the whole model, before it is sharded. A shard
      is flat and has another name, so weight decay and layer decay would go wrong.
    - Optimizer states are resumed. MMEngine passes arguments in the order of
      PyTorch 2.0, which later versions refuse.
    - Gradients are clipped by the norm of all of them, not by that of each shard.
    - It also runs on CPUs, where checkpoints are gathered without a copy.
    - Encoder and decoder of a pretraining model are units. So the images stay float32
      outside of them, where the target is made.

    Args:
        units: Names of the classes that are sharded unit by unit. What is in none of
            them forms one more unit. Defaults to the blocks of all encoders here and
            of the decoder, and ``MixMIMTransformer``.
        recomputed: Names of the classes, among ``units``, whose activations are
            recomputed in the backward pass. Defaults to the blocks; () keeps all.
        model_wrapper: Arguments of ``MMFullyShardedDataParallel``, e.g.
            ``mixed_precision``.
        state_dict_cfg: 'full' gathers checkpoints to one file that every tool reads.
            'local' writes one file per process, which resumes as many processes only.
            Defaults to 'full'.
        **kwargs: See MMEngine's strategy.

    Raises:
        UserError: If no launcher connected the processes, the model has none of
            ``units``, or it cannot compute in the precision.
    """

    def __init__(
        self,
        *,
        units: Sequence[str] = (*BLOCKS, 'MixMIMTransformer'),
        recomputed: Sequence[str] = BLOCKS,
        model_wrapper: dict | None = None,
        state_dict_cfg: str | dict = 'full',
        **kwargs,
    ) -> None:
        self.units = units
        self.recomputed = recomputed
        self._parts: list[nn.Module] = []
        # Names and shapes in gathered checkpoints; None if they are not gathered.
        self.whole_state: dict[str, Tensor] | None = None
        wrapper = dict(
            type='MMFullyShardedDataParallel',
            use_orig_params=True,
            auto_wrap_policy=partial(lambda_auto_wrap_policy, lambda_fn=self._is_unit),
        )
        if get_device() == 'cpu':
            wrapper['device_id'] = torch.device('cpu')
            if state_dict_cfg == 'full':  # offloading from the CPU crashes
                options = dict(rank0_only=True, offload_to_cpu=False)
                state_dict_cfg = dict(
                    state_dict_type='FULL_STATE_DICT',
                    state_dict_config=dict(type='FullStateDictConfig', **options),
                    optim_state_dict_config=dict(
                        type='FullOptimStateDictConfig', **options
                    ),
                )
        super().__init__(
            model_wrapper=wrapper | (model_wrapper or {}),
            state_dict_cfg=state_dict_cfg,
            **kwargs,
        )

    def prepare(self, model: nn.Module | dict, *, optim_wrapper=None, **kwargs):
        """Build and shard model and optimizer; see MMEngine's strategy."""
        self._optim_wrapper_cfg = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not is_distributed():
            raise UserError(
                'FSDPStrategy needs processes that are connected: start them with '
                'tools/dist_train.sh CONFIG GPUS or another launcher.'
            )
        if not any(_is_one_of(self.units, module) for module in model.modules()):
            raise UserError(
                f'FSDPStrategy shards by units, but the model has none of '
                f'{", ".join(self.units)}: name the classes of its blocks in '
                'strategy.units.'
            )
        precision = self.model_wrapper.get('mixed_precision')
        kept = (None, 'float32', torch.float32)  # parameters are not cast
        if _param_dtype(precision) not in kept:
            check_casts(model, 'strategy.model_wrapper.mixed_precision=None')
        if isinstance(model, MixMIM):
            self._parts = [
                part
                for part in (model.backbone, model.neck, model.filling)
                if part is not None and any(True for _ in part.parameters())
            ]
        # Before sharding, which flattens parameters and renames them.
        if self._is_full_state_dict():
            self.whole_state = {
                name: value.to('meta') for name, value in model.state_dict().items()
            }
        if isinstance(self._optim_wrapper_cfg, dict):
            self._whole = super().build_optim_wrapper(self._optim_wrapper_cfg, model)
        model = super()._wrap_model(model)
        apply_activation_checkpointing(
            model, check_fn=partial(_is_one_of, self.recomputed)
        )
        return model

    def _is_unit(self, module: nn.Module) -> bool:
        return _is_one_of(self.units, module) or any(
            module is part for part in self._parts
        )

    def build_optim_wrapper(self, optim_wrapper, model: nn.Module | None = None):
        """Give the optimizer of the whole model the shards in place of parameters."""
        if not isinstance(optim_wrapper, dict):
            return super().build_optim_wrapper(optim_wrapper, model)
        shards = {
            original_name(name): shard for name, shard in model.named_parameters()
        }
        for group in self._whole.optimizer.param_groups:
            names = (self.id_to_name[id(param)] for param in group['params'])
            group['params'] = [shards[name] for name in names]
        if self._whole.clip_grad_kwargs and self._whole.clip_func is clip_grad_norm_:
            self._whole.clip_func = partial(_clip, model)
        return self._whole

    def model_state_dict(self) -> dict:
        """The whole weights, or the shards of this process, by the model's names."""
        if not self._is_full_state_dict():
            return self._shards()
        state_dict = super().model_state_dict()
        metadata = state_dict._metadata
        for name in list(metadata):
            metadata[original_name(f'{name}.')[:-1]] = metadata.pop(name)
        return state_dict

    def load_model_state_dict(self, state_dict: dict, **kwargs) -> None:
        """Load whole weights, or the shards of this process."""
        if not self._is_full_state_dict():
            return self._load_shards(state_dict)
        metadata = getattr(state_dict, '_metadata', {})
        for name, _ in self.model.named_modules():
            whole = original_name(f'{name}.')[:-1]
            if whole in metadata:
                metadata[name] = metadata[whole]
        strict = kwargs.get('strict', False)
        result = self.model.load_state_dict(state_dict, strict=strict)
        for names, what in (
            (result.missing_keys, 'keep their first values, since they are not there'),
            (result.unexpected_keys, 'are not used'),
        ):
            if names:
                warn(f'Weights of the checkpoint: {summarise_keys(names)} {what}.')

    def optim_state_dict(self) -> dict:
        """State of the optimizer wrapper: gathered, or of this process."""
        if not self._is_full_state_dict():
            return self.optim_wrapper.state_dict()
        state_dict = super().optim_state_dict()
        if state_dict:  # that of other ranks is empty if rank 0 gathers
            state_dict = self.optim_wrapper.state_dict() | state_dict
        return state_dict

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Resume the optimizer wrapper."""
        if self._is_full_state_dict():
            names = ('state', 'param_groups')
            state_dict = state_dict | FSDP.optim_state_dict_to_load(
                model=self.model,
                optim=self.optim_wrapper.optimizer,
                optim_state_dict={name: state_dict[name] for name in names},
            )
        self.optim_wrapper.load_state_dict(state_dict)

    def _shards(self) -> dict[str, Tensor]:
        tensors = chain(self.model.named_parameters(), self.model.named_buffers())
        return {original_name(name): tensor.detach() for name, tensor in tensors}

    def _load_shards(self, state_dict: dict[str, Tensor]) -> None:
        shards = self._shards()
        sizes = {name: shard.shape for name, shard in shards.items()}
        if sizes != {name: shard.shape for name, shard in state_dict.items()}:
            raise UserError(
                'A sharded checkpoint continues the same model in as many processes as '
                f'saved it, and this one does not fit {self.world_size}. Gathered ones '
                "(strategy.state_dict_cfg='full') fit any number."
            )
        for name, shard in shards.items():
            shard.copy_(state_dict[name])


def _param_dtype(precision: dict | object | None) -> object:
    if isinstance(precision, dict):
        return precision.get('param_dtype')
    return getattr(precision, 'param_dtype', None)


def _is_one_of(names: Sequence[str], module: nn.Module) -> bool:
    return type(module).__name__ in names


def _clip(model: FSDP, shards: Sequence[Tensor], **options) -> Tensor:
    """Clip by the norm over all processes, where PyTorch's takes that of the shards."""
    return model.clip_grad_norm_(**options)
