"""Fine-tuning the base model on your own labelled images.

Everything but device and batch is as on ImageNet-1K: one device, 64 images per
step, float32. For N classes add
--cfg-options model.head.num_classes=N model.data_preprocessor.num_classes=N
and the options that the dataset's and the model's base files name: the folders and
the pretrained encoder.
"""

_base_ = [
    '../_base_/models/mixmim_classify.py',
    '../_base_/datasets/folder_finetune.py',
    '../_base_/schedules/finetune_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    head=dict(num_classes=_base_.num_classes),
    data_preprocessor=dict(num_classes=_base_.num_classes),
)
optim_wrapper = dict(type='OptimWrapper')
