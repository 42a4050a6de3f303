"""The authors' recipe for the base model."""

_base_ = 'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py'

param_scheduler = [
    dict(type='WarmupCosineLR', warmup=40, end=600, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=600)
