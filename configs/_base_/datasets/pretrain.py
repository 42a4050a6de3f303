"""Loaders of pretraining, and what is measured on held-out images.

A dataset's file adds the images.
"""

img_size = 224

train_crop = dict(
    type='LoadRandomResizedCrop',
    scale=img_size,
    crop_ratio_range=(0.2, 1.0),
    interpolation='bicubic',
    flip_prob=0.5,
    ignore_empty=True,  # UnreadableImagesHook counts and lists them
)
pack = dict(type='PackInputs')
train_pipeline = [train_crop, pack]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(_scope_='mmmixmim', pipeline=train_pipeline),
)

# The largest square in the middle, without draws.
held_out_crop = dict(
    type='LoadRandomResizedCrop',
    scale=img_size,
    max_attempts=0,
    aspect_ratio_range=(1.0, 1.0),
    interpolation='bicubic',
    ignore_empty=True,
)
held_out_pipeline = [held_out_crop, pack]

val_dataloader = dict(
    batch_size=32,  # groups, of two images with two in a mixture
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(_scope_='mmmixmim', pipeline=held_out_pipeline),
)
val_cfg = dict(type='HeldOutLoop')
val_evaluator = [dict(type='ReconstructionLoss'), dict(type='FeatureHealth')]
custom_hooks = [
    dict(type='ReconstructionHook'),
    dict(type='DiagnosisHook'),
    dict(type='ReportHook'),
]
