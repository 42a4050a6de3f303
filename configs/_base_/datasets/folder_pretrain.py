"""A folder of your own images, without labels.

Name it on the command line:
--cfg-options train_dataloader.dataset.data_root=FOLDER

5 % of the images, at most 1,000, are held out for validation.
"""

_base_ = 'pretrain.py'

train_dataloader = dict(
    dataset=dict(type='ImageFolder', data_root='data/images', held_out=0.05)
)
# The folder and the number of images are those of train_dataloader.
val_dataloader = dict(dataset=dict(type='ImageFolder', part='held_out'))
