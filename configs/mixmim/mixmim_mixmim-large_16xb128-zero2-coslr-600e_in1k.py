"""The large model with DeepSpeed's ZeRO 2 in bfloat16."""

_base_ = [
    'mixmim_mixmim-large_16xb128-amp-coslr-600e_in1k.py',
    '../_base_/strategies/deepspeed_zero2.py',
]

optim_wrapper = dict(type='DeepSpeedOptimWrapper')
