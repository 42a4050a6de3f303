"""Labelled images of your own: a folder for each class below train/ and val/.

Both have the same classes. Name the folders on the command line:
--cfg-options train_dataloader.dataset.data_root=FOLDER/train
val_dataloader.dataset.data_root=FOLDER/val
test_dataloader.dataset.data_root=FOLDER/val
"""

_base_ = 'in1k_finetune.py'

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    drop_last=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/images/train',
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/images/val',
        pipeline=_base_.test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
