"""The large model, sharded over all processes (FSDP) in bfloat16."""

_base_ = [
    'mixmim_mixmim-large_16xb128-amp-coslr-600e_in1k.py',
    '../_base_/strategies/fsdp.py',
]

optim_wrapper = dict(type='OptimWrapper')
