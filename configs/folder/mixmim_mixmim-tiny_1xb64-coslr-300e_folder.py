"""Pretraining a tiny model on a folder of your own images.

As the base model, with smaller encoder and decoder.
"""

_base_ = [
    'mixmim_mixmim-base_1xb64-coslr-300e_folder.py',
    '../_base_/backbones/mixmim_tiny.py',
]

model = dict(
    backbone=dict(arch=dict(_delete_=True, **_base_.tiny_arch)),
    neck=dict(decoder_embed_dims=256, decoder_depth=4, decoder_num_heads=8),
)
