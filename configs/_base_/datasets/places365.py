"""Places365, in the "easy directory structure"."""

_base_ = 'finetune.py'

num_classes = 365
data_root = 'data/places365_standard'

train_dataloader = dict(
    dataset=dict(type='CustomDataset', data_root=f'{data_root}/train')
)
val_dataloader = dict(dataset=dict(type='CustomDataset', data_root=f'{data_root}/val'))
test_dataloader = val_dataloader
