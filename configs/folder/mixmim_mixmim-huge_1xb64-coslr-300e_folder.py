"""Pretraining the huge model on a folder of your own images."""

_base_ = 'mixmim_mixmim-base_1xb64-coslr-300e_folder.py'

model = dict(backbone=dict(arch='huge'))
