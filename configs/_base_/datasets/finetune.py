"""Augmentation and loaders for fine-tuning; a dataset's file adds the images.

The authors augment with timm. RandAugment here is timm's rand-m9-mstd0.5-inc1,
random erasing its pixel mode.
"""

img_size = 224

# Images are BGR until the data preprocessor normalises them.
bgr_mean = [103.53, 116.28, 123.675]
bgr_std = [57.375, 57.12, 58.395]

augmentation = [
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=bgr_mean,
        fill_std=bgr_std,
    ),
]
load, test_load = dict(type='LoadImageOrSkip'), dict(type='LoadImageFromFile')
pack = dict(type='PackInputs')
bicubic = dict(backend='pillow', interpolation='bicubic')
train_crop = dict(type='RandomResizedCrop', scale=img_size, **bicubic)
train_pipeline = [load, train_crop, *augmentation, pack]
# 224 / 0.875, a margin around the crop
test_resize = dict(type='ResizeEdge', scale=256, edge='short', **bicubic)
test_crop = dict(type='CenterCrop', crop_size=img_size)
test_pipeline = [test_load, test_resize, test_crop, pack]

train_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(_scope_='mmmixmim', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(_scope_='mmmixmim', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
