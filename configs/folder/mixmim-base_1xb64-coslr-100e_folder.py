"""Fine-tuning the base model on labelled images of your own.

For N classes: --cfg-options model.head.num_classes=N
model.data_preprocessor.num_classes=N, beside the folders (see the dataset's file)
and the pretrained encoder (see the model's). All else is as on ImageNet-1K.
"""

_base_ = [
    '../_base_/models/mixmim_classify.py',
    '../_base_/datasets/folder_finetune.py',
    '../_base_/schedules/finetune_100e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(type='OptimWrapper')
custom_hooks = [dict(type='ClassCheckHook')]
