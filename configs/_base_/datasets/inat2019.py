"""iNaturalist 2019, with the annotation files of the competition."""

_base_ = 'finetune.py'

num_classes = 1010
inaturalist = dict(type='INaturalist', data_root='data/inaturalist/2019')

train_dataloader = dict(dataset=dict(**inaturalist, ann_file='train2019.json'))
val_dataloader = dict(dataset=dict(**inaturalist, ann_file='val2019.json'))
test_dataloader = val_dataloader
