"""scikit-learn's digits for pretraining: 8x8 grey images, upscaled to 32x32."""

num_classes = 10
img_size = 32

train_pipeline = [
    dict(type='Resize', scale=(img_size, img_size), interpolation='bicubic'),
    dict(
        type='RandomResizedCrop',
        scale=img_size,
        crop_ratio_range=(0.6, 1.0),
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _scope_='mmmixmim', type='Digits', split='train', pipeline=train_pipeline
    ),
)
