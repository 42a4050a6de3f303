"""Layer-wise learning rate decay."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmmixmim.models.backbones.layer_depth import layer_depths
from mmmixmim.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmixmim.validation import UserError

from ..wrappers import original_name


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Decay the learning rate from the last layer of the backbone to the first.

    Parameters of layer ``i`` of ``n`` get the base learning rate times
    ``layer_decay_rate ** (n - 1 - i)``, as in the authors' fine-tuning code. Layers
    are numbered by a table for Swin, Swin V2, PVT and HiViT, whether from mmpretrain,
    mmdet or mmseg, and by ``get_layer_depth`` for any other backbone, see
    :func:`layer_depths`. Parameters outside of backbones keep the base rate.

    Parameters with at most one dimension or a name ending in ``.bias`` have no
    weight decay.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper.
        paramwise_cfg: Dict with

            - ``layer_decay_rate``: Defaults to 1, no layer decay.
            - ``custom_keys``: Maps a substring of parameter names to a dict with
              ``lr_mult`` and ``decay_mult``, both 1 by default. They multiply the
              values of the rules above. The longest matching key applies.

    Raises:
        UserError: If the model has no backbone whose layers are numbered, the numbers
            give no decay, ``paramwise_cfg`` has an unknown key, or the optimizer no
            ``lr``.
    """

    KEYS = ('layer_decay_rate', 'custom_keys')

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        # MMEngine calls add_params() only if paramwise_cfg is not empty.
        paramwise_cfg = dict(layer_decay_rate=1.0) | dict(paramwise_cfg or {})
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add one parameter group per pair of learning rate and weight decay.

        Args:
            params: List of parameter groups, extended in place.
            module: The model.
            **kwargs: Unused.
        """
        unknown = [key for key in self.paramwise_cfg if key not in self.KEYS]
        if unknown:
            raise UserError(
                f'paramwise_cfg of {type(self).__name__} takes '
                f'{" and ".join(self.KEYS)}, got {unknown[0]}: remove or rename it.'
            )
        if self.base_lr is None:
            raise UserError(
                f'{type(self).__name__} needs the learning rate that it decays: set '
                'optim_wrapper.optimizer.lr.'
            )
        above = _layers_above(module)
        rate = self.paramwise_cfg['layer_decay_rate']
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            name = original_name(name)
            lr_mult, decay_mult = self._custom_multipliers(name)
            scale = rate ** above.get(name, 0) * lr_mult
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


def _layers_above(model: nn.Module) -> dict[str, int]:
    """Number of layers above that of each parameter, of the outermost backbones."""
    above: dict[str, int] = {}
    found = False
    parameters = [original_name(name) for name, _ in model.named_parameters()]
    for module_name, module in model.named_modules():
        prefix = original_name(f'{module_name}.') if module_name else ''
        inside = [
            name for name in parameters if name.startswith(prefix) and name not in above
        ]
        names = [name.removeprefix(prefix) for name in inside]
        depths = layer_depths(module, names)
        if depths is not None:
            found = True
            for name, (depth, layers) in depths.items():
                above[prefix + name] = layers - 1 - depth
    if not found:
        raise UserError(
            f'{type(model).__name__} has no backbone whose layers are numbered, which '
            'layer-wise learning rate decay needs: use one with get_layer_depth, such '
            "as mmmixmim.MixMIMTransformer, or one of mmpretrain's, mmdet's or mmseg's "
            'Swin, Swin V2, PVT or HiViT, or the default constructor.'
        )
    return above
