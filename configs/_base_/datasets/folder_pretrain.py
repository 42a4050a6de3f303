"""A folder of your own images, without labels.

Name it on the command line:
--cfg-options train_dataloader.dataset.data_root=FOLDER
"""

_base_ = 'pretrain.py'

train_dataloader = dict(dataset=dict(type='ImageFolder', data_root='data/images'))
