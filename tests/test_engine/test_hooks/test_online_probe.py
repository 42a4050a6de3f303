"""Probe and nearest neighbours in real runs on the digits."""

import re

import pytest

from mmmixmim.datasets import Digits
from mmmixmim.registry import DATASETS

from ...watched_run import config, log, measures, train

HOOK = dict(type='OnlineProbeHook', max_images=200, batch_size=100)


@DATASETS.register_module()
class PartlyLabelled(Digits):
    """Digits of which some have no label, or all the same."""

    def __init__(self, labels, **kwargs):
        self.labels = labels
        super().__init__(**kwargs)

    def load_data_list(self):
        samples = super().load_data_list()
        for i, sample in enumerate(samples):
            if self.labels == 'none' or (self.labels == 'half' and i % 2):
                del sample['gt_label']
            elif self.labels == 'one class':
                sample['gt_label'] = 3
        return samples


def partly(labels, split='train'):
    pipeline = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    return dict(type='PartlyLabelled', labels=labels, split=split, pipeline=pipeline)


def run(tmp_path, **options):
    cfg = config(tmp_path, custom_hooks=[HOOK | options])
    train(cfg)
    return measures(tmp_path), log(tmp_path)


def test_accuracies_are_logged_and_can_choose_the_best_checkpoint(tmp_path):
    cfg = config(tmp_path, custom_hooks=[HOOK])
    cfg.default_hooks.checkpoint.update(save_best='probe/top1', rule='greater')
    train(cfg)
    for record in measures(tmp_path):
        assert 30 < record['knn/top1'] <= 100 and 30 < record['probe/top1'] <= 100
        assert record['reconstruction/loss'] > 0
    text = log(tmp_path)
    assert 'probe/top1:' in text and 'label' not in text
    assert list(tmp_path.glob('best_probe_top1_epoch_*.pth'))


def test_images_without_a_label_are_left_out(tmp_path):
    records, text = run(tmp_path, train=partly('half'))
    assert len(records) == 2 and all('probe/top1' in each for each in records)
    assert len(re.findall(r'\d+ of 200 training images have a label', text)) == 1


@pytest.mark.parametrize(
    'labels, line',
    [
        ('none', 'The training images have no labels'),
        ('one class', 'All training images are of class 3.'),
    ],
)
def test_labels_that_do_not_do_give_one_line(tmp_path, labels, line):
    records, text = run(tmp_path, train=partly(labels))
    assert len(records) == 2
    assert not any('probe/top1' in each or 'knn/top1' in each for each in records)
    assert text.count(line) == 1


def test_classes_that_differ_give_one_line(tmp_path):
    """Without a class the labels of those after it are others."""
    classes = dict(train=tuple('0123456789'), test=tuple('012345678'))
    options = {
        split: partly('all', split) | dict(metainfo=dict(classes=names))
        for split, names in classes.items()
    }
    records, text = run(tmp_path, **options)
    assert not any('probe/top1' in each or 'knn/top1' in each for each in records)
    line = "and the validation data 9, but '9' is only in one of them"
    assert text.count(line) == 1


def test_datasets_are_completed_and_repetition_is_left_out(tmp_path):
    cfg = config(tmp_path, custom_hooks=[HOOK])
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    train(cfg)
    assert all('probe/top1' in record for record in measures(tmp_path))


def test_streams_have_no_probe(tmp_path):
    stream = dict(type='WrappedIterable', iterable=[1], pipeline=[])
    records, text = run(tmp_path, train=stream)
    assert not any('probe/top1' in each for each in records)
    assert text.count('needs labelled datasets with a length') == 1
