"""Fine-tuning the large model at 384 pixels, tested without a crop margin.

The authors published no script for it. Everything is as for the base model at 384
pixels except drop path, which is that of the large model at 224 pixels.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k-384px.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    head=dict(in_channels=_base_.channels.large[-1]),
)
