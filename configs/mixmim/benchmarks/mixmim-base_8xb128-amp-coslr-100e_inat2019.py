"""Fine-tuning the base model on iNaturalist 2019.

The authors published no script for it: everything else is as on ImageNet-1K.
"""

_base_ = [
    '../../_base_/models/mixmim_classify.py',
    '../../_base_/datasets/inat2019.py',
    '../../_base_/schedules/finetune_100e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    head=dict(num_classes=_base_.num_classes),
    data_preprocessor=dict(num_classes=_base_.num_classes),
)
