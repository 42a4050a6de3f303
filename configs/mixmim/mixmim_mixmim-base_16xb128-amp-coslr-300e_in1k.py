"""The authors' recipe for the base model, shortened from 600 to 300 epochs."""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/in1k_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(type='AmpOptimWrapper')
