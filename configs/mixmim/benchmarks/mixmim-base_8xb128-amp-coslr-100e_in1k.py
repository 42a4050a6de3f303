"""The authors' recipe of fine-tuning the base model."""

_base_ = [
    '../../_base_/models/mixmim_classify.py',
    '../../_base_/datasets/in1k_finetune.py',
    '../../_base_/schedules/finetune_100e.py',
    '../../_base_/default_runtime.py',
]
