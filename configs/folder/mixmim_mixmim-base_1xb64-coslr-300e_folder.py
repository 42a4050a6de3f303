"""Pretraining the base model on a folder of your own images.

One device, 64 images per step, float32. Everything else is the authors' recipe for
ImageNet-1K, for 300 epochs. The learning rate scales with the batch size.
"""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]
