"""The huge model with DeepSpeed's ZeRO 3 in bfloat16."""

_base_ = [
    'mixmim_mixmim-huge_32xb64-amp-coslr-600e_in1k.py',
    '../_base_/strategies/deepspeed_zero3.py',
]

optim_wrapper = dict(type='DeepSpeedOptimWrapper')
