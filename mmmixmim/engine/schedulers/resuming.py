"""Let a run that is resumed follow the optimizer's options in its config."""

from __future__ import annotations

from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from mmmixmim.log import warn

from ..wrappers import optim_wrappers
from .warmup_cosine import WarmupCosineLR

# Where a schedule is, not what it is.
_POSITION = {
    *('base_values', 'last_step', '_global_step', '_last_value', 'verbose'),
    *('best', 'num_bad_epochs', 'cooldown_counter'),
}

_OPTIONS = {'weight_decay', 'betas', 'eps', 'momentum'}
_KERNELS = {'fused', 'foreach', 'capturable'}


def follow_config(optim_wrapper, schedulers, checkpoint: dict) -> None:
    """Put the optimizer's options of the config into a checkpoint, in place.

    MMEngine resumes the options and schedules of the checkpoint and ignores the config
    without a word. Learning rates, weight decay, betas, momentum, eps and the choice of
    kernels follow the config here. So does ``WarmupCosineLR``; for other schedules,
    which compute each rate from the one before, a warning says that they go on as in
    the checkpoint. Nothing changes if the config is the same, for options that a
    schedule sets, with several optimizers, and with engines that have an optimizer
    wrapper of their own.

    Args:
        optim_wrapper: The optimizer wrapper, before anything is loaded.
        schedulers: The schedulers of a runner.
        checkpoint: What is about to be loaded.
    """
    single = len(optim_wrappers(optim_wrapper)) == 1
    own = optim_wrapper.param_groups if single else ()
    state = checkpoint.get('optimizer') or {}
    saved = list(state.get('param_groups', ()))
    if state.get('base_param_settings'):  # MMEngine's last group, of the rate it logs
        saved.append(state['base_param_settings'])
    ratios = [1.0] * len(own)
    if len(own) == len(saved):
        _follow_options(own, saved)
        ratios = [_follow(*pair) for pair in zip(own, saved, strict=True)]
    changed = [i for i, ratio in enumerate(ratios) if ratio != 1]
    if changed:
        group, ratio = own[changed[0]], ratios[changed[0]]
        rate = group[_rate(group)]
        warn(
            f'The learning rate of the config, {rate:.4g}, replaces that of the '
            f'checkpoint, {rate / ratio:.4g}.'
        )
    states = checkpoint.get('param_schedulers')
    if not isinstance(schedulers, list) or not isinstance(states, list):
        return
    if len(schedulers) != len(states):
        warn(
            f'The checkpoint has {len(states)} schedules and the config '
            f'{len(schedulers)}, so the learning rate may jump.'
        )
    for scheduler, state in zip(schedulers, states, strict=False):
        if changed and state.get('param_name') == 'lr':
            for name in {'base_values', '_last_value'} & state.keys():
                pairs = zip(state[name], ratios, strict=True)
                state[name] = [value * ratio for value, ratio in pairs]
        _compare(scheduler, state)


def _follow_options(own: list[dict], saved: list[dict]) -> None:
    """Let saved groups have the other options of the config."""
    changed = {}
    for ours, theirs in zip(own, saved, strict=True):
        scheduled = {name for name in _OPTIONS if f'initial_{name}' in ours}
        if 'momentum' in scheduled:
            scheduled.add('betas')
        for name in (_OPTIONS - scheduled) & ours.keys() & theirs.keys():
            if _as_tuple(ours[name]) != _as_tuple(theirs[name]):
                changed.setdefault(name, (ours[name], theirs[name]))
                theirs[name] = ours[name]
        # Which kernels run changes no result by more than roundings.
        theirs |= {name: ours[name] for name in _KERNELS & ours.keys()}
    for name, (now, before) in sorted(changed.items()):
        warn(f'{name} of the config, {now}, replaces that of the checkpoint, {before}.')


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _follow(own: dict, saved: dict) -> float:
    """Let a saved group have the rate of the config; return the ratio of both."""
    name = _rate(own)
    before, now = saved.get(name), own.get(name)
    if not before or now is None or before == now:
        return 1.0
    saved |= dict(lr=saved['lr'] * now / before) | {name: now}
    return now / before


def _rate(group: dict) -> str:
    """Name of the rate that the config sets: schedules keep it apart."""
    return 'initial_lr' if 'initial_lr' in group else 'lr'


def _compare(scheduler: _ParamScheduler, state: dict) -> None:
    if isinstance(scheduler, WarmupCosineLR):
        return
    own = scheduler.state_dict()
    if (own.keys() ^ state.keys()) - _POSITION:
        warn(
            f'{type(scheduler).__name__} is another schedule than that of the '
            'checkpoint, so the learning rate may jump.'
        )
        return
    names = own.keys() & state.keys() - _POSITION
    odd = sorted(name for name in names if own[name] != state[name])
    if odd:
        values = ', '.join(f'{n}={state[n]} (config: {own[n]})' for n in odd)
        warn(
            f'{type(scheduler).__name__} goes on as in the checkpoint: {values}. '
            'WarmupCosineLR would follow the config.'
        )
