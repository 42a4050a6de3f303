"""Weights sharded too (DeepSpeed's ZeRO 3)."""

_base_ = 'deepspeed_zero2.py'

strategy = dict(
    zero_optimization=dict(stage=3, stage3_gather_16bit_weights_on_model_save=True)
)
