"""Classifying images with a fine-tuned classifier."""

import csv
import multiprocessing
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.device import utils
from mmpretrain import get_model
from PIL import Image

import mmmixmim
from mmmixmim.cli.predict import _loader
from mmmixmim.validation import UserError

from .conftest import check_predictions, error_line, mixmim


@pytest.fixture(scope='module')
def classifier(photos, tmp_path_factory):
    """A classifier of one epoch, and what the command printed."""
    out = tmp_path_factory.mktemp('classifiers') / 'run'
    code, printed, err = mixmim('finetune', photos, '--out', out, '--epochs', 1)
    assert code == 0, printed + err
    return out, printed


def read(file):
    with file.open(newline='') as table:
        return list(csv.DictReader(table))


def test_validation_images_get_the_classes_that_the_run_has_counted(
    classifier, tmp_path
):
    printed = check_predictions(classifier[0], tmp_path)
    assert f'Classifier   {classifier[0]}/epoch_1.pth, 2 classes' in printed
    assert 'Images       14\n' in printed and 'Unreadable' not in printed
    assert printed.endswith(f'Predictions  {tmp_path}/val.csv\n')


def test_finetuning_and_its_report_say_how(classifier, photos):
    run, printed = classifier
    assert 'mmmixmim predict FOLDER --from' in (run / 'report.html').read_text()
    _, _, command = printed.rpartition('python -m mmmixmim ')
    words = shlex.split(command.replace('FOLDER', str(photos / 'sea')))
    code, printed, err = mixmim(*words)
    assert code == 0, err
    file = run / 'predictions.csv'
    assert len(read(file)) == 36 and printed.endswith(f'Predictions  {file}\n')
    assert f"{file}' exists: remove it, or choose another" in error_line(*words)


def test_images_that_cannot_be_read_are_named(classifier, photos, tmp_path):
    images = [photos / 'sea' / 'sea01.jpg', tmp_path / 'b.png', tmp_path / 'hills']
    images[1].write_bytes(b'no image')
    shutil.copytree(photos / 'hills', images[2])
    (images[2] / 'notes.txt').touch()
    options = ['--from', classifier[0] / 'epoch_1.pth', '--out', tmp_path / 'a.csv']
    code, printed, err = mixmim('predict', *images, *options, '--batch-size', 8)
    assert code == 0, err
    assert 'Images       38\nSkipped      1 file whose ending is not' in printed
    assert f'Unreadable   1, without a class in the file\n  {images[1]}: ' in printed
    rows = read(tmp_path / 'a.csv')
    paths = [*images[:2], *sorted(images[2].glob('*.png'))]
    assert [row['path'] for row in rows] == list(map(str, paths))
    assert not any(rows[1][name] for name in rows[1] if name != 'path')
    assert all(all(row.values()) for row in rows[:1] + rows[2:])


def test_macs_predict_on_the_cpu(classifier, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, 'DEVICE', 'mps')
    images = photos / 'sea' / 'sea01.jpg'
    assert read(mmmixmim.predict(images, classifier[0], tmp_path / 'a.csv'))


@pytest.mark.skipif(sys.platform == 'darwin', reason='forks crash')
def test_images_are_loaded_as_a_runner_does():
    """Python 3.14's own way would run a script without __main__ guard again."""
    like = dict(batch_size=2, num_workers=1, dataset=dict(pipeline=[]))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method('spawn', force=True)
    try:
        loader = _loader([Path('a'), Path('b'), Path('c')], Config(like), None)
        assert loader.multiprocessing_context.get_start_method() == 'fork'
        assert [len(batch['img_path']) for _, batch in loader] == [2, 1]
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_link_of_a_run_leads_to_nothing_that_is_written(classifier, photos, tmp_path):
    """One that leads nowhere would make a file of the run's choice."""
    run, mine = tmp_path / 'run', tmp_path / 'mine.csv'
    run.mkdir()
    for name in ('config.py', 'epoch_1.pth'):
        shutil.copy(classifier[0] / name, run)
    (run / 'predictions.csv').symlink_to(mine)
    images = ('predict', photos / 'sea', '--from', run / 'epoch_1.pth')
    code, _, err = mixmim(*images)
    assert code == 0, err
    file = run / 'predictions.csv'
    assert not file.is_symlink() and len(read(file)) == 36 and not mine.exists()
    given = tmp_path / 'given.csv'
    given.symlink_to(mine)
    code, _, err = mixmim(*images, '--out', given)
    assert code == 0, err
    assert given.is_symlink() and len(read(mine)) == 36


def test_no_path_begins_like_a_formula(classifier, photos, tmp_path, monkeypatch):
    """As spreadsheet programs run one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / '@a').mkdir()
    for name in ('=1+1.jpg', '-a.jpg', '@a/b.jpg', 'c.jpg'):
        shutil.copy(photos / 'sea' / 'sea01.jpg', name)
    (tmp_path / '+b.jpg').write_bytes(b'no image')
    images = ['=1+1.jpg', './-a.jpg', '@a', 'c.jpg', '+b.jpg']
    file = mmmixmim.predict(images, classifier[0], tmp_path / 'a.csv')
    paths = [row['path'] for row in read(file)]
    assert paths == ['./=1+1.jpg', './-a.jpg', './@a/b.jpg', 'c.jpg', './+b.jpg']


def test_a_run_on_pictures_says_that_it_reads_8_bits(classifier, photos, tmp_path):
    images = [photos / 'sea' / 'sea01.jpg', tmp_path / 'a.tif']
    pixels = np.ones((40, 40, 3), np.float32)
    tifffile.imwrite(images[1], pixels, photometric='rgb')
    options = ['--from', classifier[0], '--out', tmp_path / 'a.csv']
    code, printed, err = mixmim('predict', *images, *options)
    assert code == 0, printed + err
    assert '32 bits, those of the training 8. This run reads pictures of 8' in printed
    assert 'wrong classes' not in printed and 'Unreadable   1' in printed


def test_bits_of_readable_images_are_compared(classifier, photos, tmp_path):
    """Of those that are looked at first, two of three cannot be read."""
    bad, torn, deep = (tmp_path / name for name in ('bad.png', 'torn.tif', 'deep.tif'))
    bad.write_bytes(b'no image')
    tifffile.imwrite(torn, np.ones((40, 40), np.uint16))
    torn.write_bytes(torn.read_bytes()[:-9])  # its header is whole
    pixels = np.ones((40, 40, 3), np.float32)
    tifffile.imwrite(deep, pixels, photometric='rgb')
    images = [bad, torn, deep] * 20 + [photos / 'sea' / 'sea01.jpg']
    options = ['--from', classifier[0], '--out', tmp_path / 'a.csv']
    code, printed, err = mixmim('predict', *images, *options)
    assert code == 0, printed + err
    assert 'Careful: some have 32 bits, those of the training 8.' in printed


def test_a_run_of_mim_train_with_loader_processes(classifier, photos, tmp_path):
    """It has a config and checkpoints, and no run.json."""
    run = tmp_path / 'again'
    shutil.copytree(classifier[0], run)
    (run / 'run.json').unlink()
    text = (run / 'config.py').read_text()
    assert 'num_workers=0' in text
    (run / 'config.py').write_text(text.replace('num_workers=0', 'num_workers=2'))
    found = mmmixmim.predict(str(photos), run, tmp_path / 'new' / 'a.csv', batch_size=9)
    assert found == tmp_path / 'new' / 'a.csv'
    files = [str(file) for file in sorted(photos.glob('*/*'))]
    rows = read(found)
    assert [row['path'] for row in rows] == files
    again = mmmixmim.predict(files, classifier[0], tmp_path / 'b.csv')
    for row, other in zip(rows, read(again), strict=True):
        assert float(row['score_sea']) == pytest.approx(
            float(other['score_sea']), abs=1e-5
        )


def test_mmpretrain_loads_the_classifier(classifier):
    config, checkpoint = (classifier[0] / name for name in ('config.py', 'epoch_1.pth'))
    model = get_model(str(config), pretrained=str(checkpoint))
    assert model._dataset_meta['classes'] == ['hills', 'sea']
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_what_is_no_classifier(pretrained, photos, tmp_path):
    (tmp_path / 'probe').mkdir()
    (tmp_path / 'alone.pth').touch()
    for start, said in (
        (pretrained[0], 'knows no classes, as a pretraining: train a classifier by'),
        (pretrained[0] / 'epoch_2.pth', 'mixmim finetune DATA --from'),
        (tmp_path / 'probe', 'is no classifier: there is no'),
        (tmp_path / 'alone.pth', 'Name the folder of a run of `mixmim finetune`'),
        (tmp_path / 'nowhere', "nowhere' does not exist: check the path"),
    ):
        line = error_line('predict', photos, '--from', start)
        assert said in line and str(start) in line
    assert not list(pretrained[0].glob('*.csv'))


def test_a_classifier_whose_config_names_no_classes(classifier, photos, tmp_path):
    """A folder of classes names them, so a config for `mim train` need not."""
    config = tmp_path / 'config.py'
    text = (classifier[0] / 'config.py').read_text()
    config.write_text(f"{text}\nval_dataloader['dataset'].pop('metainfo')\n")
    command = ['predict', photos, '--from', tmp_path]
    line = error_line(*command)
    assert 'does not name its classes' in line and 'pretraining' not in line
    entry = line.partition(', as ')[2].replace('[...]).', "['hills', 'sea'])")
    config.write_text(f'{config.read_text()}{entry}\n')
    assert 'has no checkpoint yet' in error_line(*command)


def test_a_classifier_without_checkpoint(classifier, photos, tmp_path):
    shutil.copy(classifier[0] / 'config.py', tmp_path)
    assert 'has no checkpoint yet' in error_line('predict', photos, '--from', tmp_path)


def test_images_and_files_that_cannot_be(classifier, photos, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'list.txt').write_text('missing.png\n')
    for images, out, said in (
        ('nowhere.png', 'a.csv', 'There is no image, folder or list'),
        ('empty', 'a.csv', 'holds no images'),
        ('list.txt', 'a.csv', "missing.png', which does not exist"),
        ('a.png', 'new/a.csv', 'None of the images (1) can be read. The first, '),
        ('a.png', 'a.parquet', 'must be the name of a .csv file'),
        (
            'a.png',
            'a.png/new/x.csv',
            f"written in '{tmp_path}/a.png' (Not a directory)",
        ),
        ('a.png', '/proc/x.csv', "'/proc/x.csv' cannot be written in '/"),
    ):
        options = ['--from', classifier[0], '--out', tmp_path / out]
        assert said in error_line('predict', tmp_path / images, *options)
    assert {path.name for path in tmp_path.iterdir()} == {'a.png', 'empty', 'list.txt'}
    with pytest.raises(UserError, match='batch_size must be a positive int, got 0'):
        mmmixmim.predict(photos, classifier[0], tmp_path / 'a.csv', batch_size=0)
    picture = Image.new('RGB', (8, 8))
    for images in ([picture], picture, 3, None, np.eye(8)):
        with pytest.raises(UserError, match='predict takes paths of images, .* name'):
            mmmixmim.predict(images, classifier[0], tmp_path / 'a.csv')
    for given, said in (
        ((None, tmp_path / 'a.csv'), '--from must be a path, got None'),
        ((classifier[0], 3), '--out must be a path, got 3'),
    ):
        with pytest.raises(UserError, match=said):
            mmmixmim.predict(photos, *given)
