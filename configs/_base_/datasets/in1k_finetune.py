"""ImageNet-1K for fine-tuning."""

_base_ = ['in1k.py', 'finetune.py']

train_dataloader = dict(dataset=dict(**_base_.imagenet, split='train'))
val_dataloader = dict(dataset=dict(**_base_.imagenet, split='val'))
test_dataloader = val_dataloader
