"""The huge model, sharded over all processes (FSDP) in bfloat16."""

_base_ = [
    'mixmim_mixmim-huge_32xb64-amp-coslr-600e_in1k.py',
    '../_base_/strategies/fsdp.py',
]

optim_wrapper = dict(type='OptimWrapper')
