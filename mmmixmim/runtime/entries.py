"""Look up entries of a config, live or saved."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config


def config_entry(config: dict | Config, key: str) -> object | None:
    """Look up a dotted key; None if there is no such entry, or it is None."""
    node = config
    for name in key.split('.'):
        node = node.get(name) if isinstance(node, (dict, Config)) else None
    return node


def type_name(config: dict, default: str = '') -> str:
    """Name of the type of a config, without a scope or module.

    Args:
        config: The config. Its type is a name, or a class, as in lazy configs.
        default: What an entry that is missing stands for. Defaults to ''.
    """
    kind = config.get('type', default)
    return getattr(kind, '__name__', str(kind).rpartition('.')[2])


def dicts_of(node: object, key: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict of a config with its dotted key, the outer ones first."""
    if isinstance(node, (list, tuple)):
        items = enumerate(node)
    elif isinstance(node, dict):
        yield key, node
        items = node.items()
    else:
        return
    for name, value in items:
        yield from dicts_of(value, f'{key}.{name}')


def datasets_of(node: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Yield the datasets of a dataloader, those in wrappers, with their keys."""
    if isinstance(node.get('dataset'), dict):  # not images from Python
        yield from datasets_of(node['dataset'], f'{key}.dataset')
    elif 'datasets' in node:
        for i, part in enumerate(node['datasets']):
            yield from datasets_of(part, f'{key}.datasets.{i}')
    elif 'type' in node:
        yield key, node


def training_precision(config: dict) -> str | None:
    """Tell the precision that a config trains in: 'fp32', 'bf16' or 'fp16'.

    Returns:
        None if the config tells none that is known.
    """
    wrapper = config_entry(config, 'optim_wrapper') or {}
    dtype = config_entry(config, 'strategy.model_wrapper.mixed_precision.param_dtype')
    if is_amp(wrapper):
        dtype = config_entry(config, 'optim_wrapper.dtype') or 'float16'
    for low, name in (('bf16', 'bfloat16'), ('fp16', 'float16')):
        by_deepspeed = config_entry(config, f'strategy.{low}.enabled')
        if by_deepspeed or name in str(dtype):
            return low
    known = ('OptimWrapper', 'DeepSpeedOptimWrapper')
    return 'fp32' if _class_names(wrapper)[0] in known else None


def is_amp(wrapper: dict) -> bool:
    """Whether an optimizer wrapper trains in mixed precision.

    Args:
        wrapper: Its config, see :func:`type_name`.
    """
    return 'AmpOptimWrapper' in _class_names(wrapper)


def _class_names(wrapper: dict) -> list[str]:
    """Name of the type of a wrapper; of a class, then those of its bases too."""
    if not isinstance(wrapper, dict):
        return ['']
    classes = getattr(wrapper.get('type'), '__mro__', ())
    return [each.__name__ for each in classes] or [type_name(wrapper)]
