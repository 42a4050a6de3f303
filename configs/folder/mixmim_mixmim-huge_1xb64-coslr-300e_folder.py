_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='huge'))
