"""Smaller learning rates for earlier layers of the backbone."""

from __future__ import annotations

import inspect

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmmixmim.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmixmim.validation import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scale learning rates by layer, as the authors do in fine-tuning.

    A parameter of layer ``i`` of ``n`` gets the base learning rate times
    ``layer_decay_rate ** (n - 1 - i)``. Layers are what the ``get_layer_depth``
    of the model's backbone says. Whatever is not in a backbone keeps the base
    rate. It works for any model that holds such a backbone, of mmpretrain,
    mmdet, mmseg or your own.

    Weight decay is for matrices: parameters of one dimension, and those whose
    name ends in ``.bias``, have none.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper.
        paramwise_cfg: A dict with

            - ``layer_decay_rate``: The rate. Defaults to 1, no layer decay.
            - ``custom_keys``: For names that contain a key, a dict with
              ``lr_mult`` and ``decay_mult``; the longest key counts. They
              multiply what the rules above give.

    Raises:
        ValueError: If the model holds no backbone that knows its layers, or
            ``paramwise_cfg`` has another key.
    """

    KEYS = ('layer_decay_rate', 'custom_keys')

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        # Without any option MMEngine would not ask for groups at all.
        paramwise_cfg = dict(layer_decay_rate=1.0) | dict(paramwise_cfg or {})
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add one group for each pair of learning rate and weight decay.

        Args:
            params: The list of groups, modified in place.
            module: The model.
            **kwargs: Not used.
        """
        unknown = [key for key in self.paramwise_cfg if key not in self.KEYS]
        if unknown:
            raise UserError(
                f'paramwise_cfg of {type(self).__name__} has the keys '
                f'{" and ".join(self.KEYS)}, got {unknown[0]}.'
            )
        backbones = _find_backbones(module)
        rate = self.paramwise_cfg['layer_decay_rate']
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            name = _unwrapped(name)
            lr_mult, decay_mult = self._custom_multipliers(name)
            scale = rate ** _layers_above(name, backbones) * lr_mult
            if parameter.ndim <= 1 or name.endswith('.bias'):
                decay_mult = 0.0
            group = groups.setdefault((scale, decay_mult), dict(params=[]))
            group['params'].append(parameter)
        for (scale, decay_mult), group in sorted(groups.items(), key=lambda g: g[0]):
            group['lr'] = self.base_lr * scale
            group['lr_scale'] = scale
            if self.base_wd is not None:
                group['weight_decay'] = self.base_wd * decay_mult
            params.append(group)

    def _custom_multipliers(self, name: str) -> tuple[float, float]:
        custom = self.paramwise_cfg.get('custom_keys', {})
        keys = sorted((key for key in custom if key in name), key=len)
        chosen = custom[keys[-1]] if keys else {}
        return chosen.get('lr_mult', 1.0), chosen.get('decay_mult', 1.0)


def _find_backbones(model: nn.Module) -> dict[str, nn.Module]:
    """Backbones that know their layers, by the prefix of their parameters."""
    found = {}
    for name, module in model.named_modules():
        prefix = _unwrapped(f'{name}.') if name else ''
        if _knows_layers(module) and not any(map(prefix.startswith, found)):
            found[prefix] = module
    if not found:
        raise UserError(
            f'{type(model).__name__} has no backbone with get_layer_depth, so layers '
            'cannot get learning rates of their own. Use a backbone that has it, as '
            'mmmixmim.MixMIMTransformer, or the default constructor.'
        )
    return found


def _unwrapped(name: str) -> str:
    """Leave out what FSDP, checkpointing and ``torch.compile`` put into names."""
    for wrapper in (
        '_fsdp_wrapped_module.',
        '_checkpoint_wrapped_module.',
        '_orig_mod.',
    ):
        name = name.replace(wrapper, '')
    return name


def _knows_layers(module: nn.Module) -> bool:
    """Whether it has the interface of mmpretrain's backbones for layers."""
    ask = getattr(module, 'get_layer_depth', None)
    # Whole models of mmpretrain have the method too, without the prefix.
    return ask is not None and 'prefix' in inspect.signature(ask).parameters


def _layers_above(name: str, backbones: dict[str, nn.Module]) -> int:
    for prefix, backbone in backbones.items():
        if not name.startswith(prefix):
            continue
        try:
            depth, layers = backbone.get_layer_depth(name, prefix)
        except NotImplementedError as error:  # as a ResNet of 18 layers
            raise UserError(
                f'{type(backbone).__name__} does not tell the layer of {name}, so '
                'layers cannot get learning rates of their own. Use the default '
                'constructor.'
            ) from error
        return layers - 1 - depth
    return 0
