"""Gradients and optimizer state sharded over all processes (DeepSpeed's ZeRO 2)."""

runner_type = 'FlexibleRunner'

strategy = dict(
    type='mmmixmim.DeepSpeedStrategy',
    bf16=dict(enabled=True),
    inputs_to_half=['inputs'],  # the targets are made of these pixels, too
    zero_optimization=dict(stage=2, overlap_comm=True, contiguous_gradients=True),
)
