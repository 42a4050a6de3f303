"""As the base model's config, with a drop path of 0.2.

No one published a drop path of this model here: it is that of our fine-tuning recipe.
"""

_base_ = 'mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
