"""As the base model, with the encoder of the tiny pretraining config."""

_base_ = 'mixmim-base_1xb64-coslr-100e_folder.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=64,
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 8, 16],
        )
    ),
    head=dict(in_channels=512),
)
