"""Your own labelled images: one folder per class below train/ and val/.

Both have the same classes. Name the folders on the command line:
--cfg-options train_dataloader.dataset.data_root=FOLDER/train
val_dataloader.dataset.data_root=FOLDER/val
test_dataloader.dataset.data_root=FOLDER/val
"""

_base_ = 'finetune.py'

# ImageNet's. Set your own by --cfg-options model.head.num_classes=N
# model.data_preprocessor.num_classes=N
num_classes = 1000

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    drop_last=False,
    dataset=dict(type='CustomDataset', data_root='data/images/train'),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(type='CustomDataset', data_root='data/images/val'),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
