"""The authors' recipe for fine-tuning the base model."""

_base_ = [
    '../../_base_/models/mixmim_classify.py',
    '../../_base_/datasets/in1k_finetune.py',
    '../../_base_/schedules/finetune_100e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    head=dict(num_classes=_base_.num_classes),
    data_preprocessor=dict(num_classes=_base_.num_classes),
)
