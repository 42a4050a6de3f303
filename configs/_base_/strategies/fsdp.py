"""Weights, gradients and optimizer state sharded over all processes (FSDP).

For models that do not fit one GPU. Blocks are the units, and their activations are
recomputed. They compute in bfloat16, which needs no loss scale; gradients are summed
and weights are kept in float32. The target is made of float32 pixels.
"""

runner_type = 'FlexibleRunner'

strategy = dict(
    type='mmmixmim.FSDPStrategy',
    model_wrapper=dict(
        mixed_precision=dict(
            param_dtype='bfloat16',
            reduce_dtype='float32',
            cast_forward_inputs=True,
            cast_root_forward_inputs=False,
        )
    ),
    state_dict_cfg='full',
)
