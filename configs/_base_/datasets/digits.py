"""scikit-learn's digits with labels: 8x8 grey images, upscaled to 32x32."""

_base_ = 'digits_pretrain.py'

test_pipeline = [
    dict(
        type='Resize', scale=(_base_.img_size, _base_.img_size), interpolation='bicubic'
    ),
    dict(type='PackInputs'),
]

val_dataloader = dict(
    batch_size=256,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _scope_='mmmixmim', type='Digits', split='test', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator
