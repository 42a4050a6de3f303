"""iNaturalist 2018, with the annotation files of the competition."""

_base_ = 'finetune.py'

num_classes = 8142
inaturalist = dict(type='INaturalist', data_root='data/inaturalist/2018')

train_dataloader = dict(dataset=dict(**inaturalist, ann_file='train2018.json'))
val_dataloader = dict(dataset=dict(**inaturalist, ann_file='val2018.json'))
test_dataloader = val_dataloader
