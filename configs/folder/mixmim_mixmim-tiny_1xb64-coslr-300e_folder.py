"""Pretraining a tiny model on a folder of images of your own.

One device, 64 images a step, single precision; all else is the authors' recipe for
ImageNet-1K, for 300 epochs. The learning rate follows the batch.
"""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]

# 12.5 M parameters in the encoder, small enough to try things out on a laptop.
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=64,
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 8, 16],
        )
    ),
    neck=dict(decoder_embed_dim=256, decoder_depth=4, decoder_num_heads=8),
)
