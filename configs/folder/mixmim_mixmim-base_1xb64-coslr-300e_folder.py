"""Pretraining the base model on a folder of images of your own.

One device, 64 images a step, single precision; all else is the authors' recipe for
ImageNet-1K, for 300 epochs. The learning rate follows the batch.
"""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]
