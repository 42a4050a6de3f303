"""Places205, in the folder structure that mmpretrain's dataset reads."""

_base_ = 'finetune.py'

num_classes = 205
places = dict(
    type='Places205',
    data_root='data/places205',
    data_prefix='data/vision/torralba/deeplearning/images256',
)
splits = 'trainvalsplit_places205'

train_dataloader = dict(
    dataset=dict(**places, ann_file=f'{splits}/train_places205.csv')
)
val_dataloader = dict(dataset=dict(**places, ann_file=f'{splits}/val_places205.csv'))
test_dataloader = val_dataloader
