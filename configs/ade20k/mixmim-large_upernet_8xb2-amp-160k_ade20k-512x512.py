"""As the base model's config, with a drop path rate of 0.2.

Nobody published a drop path rate for this model on ADE20K. This one is from our
fine-tuning recipe.
"""

_base_ = 'mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    decode_head=dict(in_channels=_base_.channels.large),
    auxiliary_head=dict(in_channels=_base_.channels.large[2]),
)
