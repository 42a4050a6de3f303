"""mmdet's runtime settings, for runs that may be killed at any moment."""

_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    checkpoint=dict(type='mmmixmim.SafeCheckpointHook'),
    preemption=dict(type='mmmixmim.PreemptionHook'),
    non_finite=dict(type='mmmixmim.NonFiniteHook'),
    plain_checkpoint=dict(type='mmmixmim.PlainCheckpointHook'),
)
