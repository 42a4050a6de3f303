"""The large model; the authors published no script, so as the base model's."""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/in1k_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='large'))
optim_wrapper = dict(type='AmpOptimWrapper')
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=40, end=600, convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=600)
