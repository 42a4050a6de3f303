"""Fine-tuning the large model.

The authors published no script for this size: all is as for the base model but
the drop path, which follows MAE's for its large model (arXiv 2111.06377, table 9).
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.2),
    head=dict(in_channels=1536),
)
