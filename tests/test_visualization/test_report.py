"""Reports of runs that MMEngine's own backend has written."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend

from mmmixmim.validation import MissingFileError, UserError
from mmmixmim.visualization import render_report, write_report

CONFIG = dict(
    model=dict(
        type='MixMIM',
        backbone=dict(type='MixMIMTransformer', arch='base', img_size=224),
        head=dict(type='MixMIMPretrainHead'),
    ),
    train_dataloader=dict(
        batch_size=8, dataset=dict(type='ImageFolder', data_root='/data/<b>x</b>')
    ),
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
    train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=10),
)


class Page(HTMLParser):
    """What the tests look at in a page."""

    VOID = {'meta', 'img', 'br'}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]

    @property
    def words(self):
        return ' '.join(' '.join(self.text).split())


def write_run(
    folder, loss=(1.1, 0.5), time='20260101_120000', epochs=range(1, 11), **changes
):
    """Write a run of ten iterations per epoch."""
    backend = LocalVisBackend(str(folder / time / 'vis_data'))
    backend.add_config(Config(CONFIG | changes))
    for i in epochs:
        part = (i - 1) / 9
        value = loss[0] + (loss[1] - loss[0]) * part
        for step in (10 * i - 5, 10 * i):
            rate = 1e-3 * (1.1 - part)
            backend.add_scalars(dict(loss=value, lr=rate, epoch=i, iter=step), step)
        health = {f'features/rank_stage{n}': 9.0 + n for n in (1, 2, 3, 4)}
        val = {'reconstruction/loss': value + 0.1, 'knn/top1': 50.0}
        backend.add_scalars(val | health, step=i)
        picture = np.full((8, 12, 3), 20 * i, np.uint8)
        backend.add_image('reconstruction', picture, step=10 * i)
    (folder / 'config.py').write_text('')
    (folder / f'epoch_{epochs[-1]}.pth').write_bytes(b'')
    return folder


def check(page):
    """What holds for every report."""
    ids = [attrs['id'] for _, attrs in page.tags if attrs.get('id')]
    assert len(ids) == len(set(ids))
    used = [a['aria-labelledby'] for _, a in page.tags if 'aria-labelledby' in a]
    used += [a['href'][1:] for a in page.all('a')]
    assert used and set(used) <= set(ids)
    for attrs in page.all('use'):
        assert attrs['xlink:href'].removeprefix('#') in ids
    assert all(attrs.get('alt') for attrs in page.all('img'))
    assert all(attrs.get('aria-label') for attrs in page.all('svg'))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    # Nothing is requested and nothing runs.
    assert not page.all('script', 'link', 'iframe', 'object', 'form')
    assert all(attrs['src'].startswith('data:image/') for attrs in page.all('img'))
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith('on')]


def test_a_report_says_what_was_seen_and_trained_and_what_to_do_next(tmp_path):
    run = write_run(tmp_path / 'my run')
    path = write_report(run)
    assert path == run / 'report.html'
    page = Page(path.read_text())
    check(page)
    words = page.words
    assert 'Healthy' in words and 'from 1.1 to 0.5' in words
    assert '10 of 10 epochs' in words and 'ImageFolder, /data/<b>x</b>' in words
    assert 'at most 80 (10 batches of 8)' in words
    assert (
        f"visualize_reconstruction.py '{run}/config.py' '{run}/epoch_10.pth'" in words
    )
    assert f"finetune /data/labelled --from '{run}/epoch_10.pth'" in words
    assert 'held-out 0.6' in words and 'stage 4 13' in words
    assert len(page.all('img')) == 6
    assert 'Epoch 1, iteration 10' in words and 'Epoch 10, iteration 100' in words


def test_charts_tell_their_values_and_share_the_colours_of_the_page(tmp_path):
    text = render_report([write_run(tmp_path / 'run')])
    loss = next(a for a in Page(text).all('svg') if 'Loss by' in a['aria-label'])
    assert 'training: from 1.1 to 0.5' in loss['aria-label']
    assert 'held-out: from 1.2 to 0.6' in loss['aria-label']
    assert not re.search('#0000[0-9a-f]{2}', text)
    styles = text[: text.index('</style>')]
    for name in set(re.findall(r'var\(--([a-z0-9-]+)\)', text)):
        assert styles.count(f'--{name}:') == 2, name  # light and dark


def test_everything_from_files_is_escaped(tmp_path):
    attack = '"><script>alert(1)</script>'
    run = write_run(tmp_path / '<img src=x onerror=1>', experiment_name=attack)
    run = run.rename(tmp_path / '<img onerror=1>')
    (run / '20260101_120000/vis_data/vis_image').joinpath('<i>x_1.png').symlink_to(
        run / '20260101_120000/vis_data/vis_image/reconstruction_10.png'
    )
    page = Page(render_report([run]))
    check(page)
    assert not page.all('i')
    assert attack in page.words and '<img onerror=1>' in page.words


def test_a_config_is_read_and_not_run(tmp_path):
    run = write_run(tmp_path / 'run')
    mark = tmp_path / 'mark'
    config = run / '20260101_120000' / 'vis_data' / 'config.py'
    config.write_text(
        f'open({str(mark)!r}, "w")\n'
        f'seed = open({str(mark)!r}, "w")\n'
        'randomness = dict(seed=7)\nbroken[0] = 1\n'
    )
    words = Page(render_report([run])).words
    assert 'Seed 7' in words
    assert not mark.exists()
    config.write_text('this is no Python')
    assert 'this is no Python' in Page(render_report([run])).words


def test_a_picture_that_is_none_or_cut_off_is_left_out(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 4))
    folder = run / '20260101_120000' / 'vis_data' / 'vis_image'
    (folder / 'reconstruction_5.png').write_text('<svg onload="alert(1)"/>')
    cut = (folder / 'reconstruction_10.png').read_bytes()[:60]
    (folder / 'reconstruction_15.png').write_bytes(cut)
    assert len(Page(render_report([run])).all('img')) == 3


def test_a_resumed_run_is_shown_as_one(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 6))
    write_run(run, time='20260102_120000', epochs=range(4, 11), resume=True)
    words = Page(render_report([run])).words
    assert 'Healthy' in words and '10 of 10 epochs' in words
    assert '2026-01-01 12:00, resumed 2026-01-02 12:00' in words


def test_a_run_that_is_wrong_gets_another_next_step(tmp_path):
    run = write_run(tmp_path / 'run', loss=(1.0, float('nan')))
    words = Page(render_report([run])).words
    assert 'Loss is not finite' in words
    assert f'--work-dir {run}-lower-lr' in words and 'optimizer.lr=0.0001' in words
    assert 'probe /data' not in words


def test_a_run_has_ended_when_its_last_checkpoint_is_there(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 10))
    (run / 'epoch_10.pth').write_bytes(b'')
    words = Page(render_report([run])).words
    assert '10 of 10 epochs' in words and '--resume' not in words


def test_a_run_that_goes_on_can_be_resumed(tmp_path):
    words = Page(render_report([write_run(tmp_path / 'run', epochs=range(1, 7))])).words
    assert '6 of 10 epochs' in words and f'--work-dir {tmp_path}/run --resume' in words


def test_a_run_of_a_command_is_resumed_by_the_command(tmp_path):
    hooks = dict(preemption=dict(type='PreemptionHook', resume_by='mine --out "a b"'))
    run = write_run(tmp_path / 'run', epochs=range(1, 7), default_hooks=hooks)
    words = Page(render_report([run])).words
    assert 'by the same command again' in words and 'mine --out "a b"' in words
    assert '--resume' not in words.split('The config')[0]


def test_a_classifier_gets_its_own_measures_pictures_and_commands(tmp_path):
    run = write_run(tmp_path / 'run', model=dict(type='ImageClassifier'))
    (run / 'confusion.png').write_bytes(
        next(run.rglob('reconstruction_10.png')).read_bytes()
    )
    (run / 'mistakes.png').write_bytes(b'')
    page = Page(render_report([run]))
    check(page)
    words = page.words
    assert 'Training, 10 of 10 epochs' in words and 'tools/test.py' in words
    assert 'Confusions' in words and 'Worst mistakes' not in words
    assert 'predicting the mean' not in words and 'finetune' not in words
    assert 'Run these where the training was started.' in words


def test_several_runs_stand_side_by_side(tmp_path):
    good = write_run(tmp_path / 'good')
    bad = write_run(tmp_path / 'bad', loss=(1.0, float('nan')), num_classes=3)
    page = Page(render_report([good, bad]))
    check(page)
    words = page.words
    assert '2 runs side by side' in words
    assert 'good Fine Healthy' in words and 'Held-out loss 0.6 ' in words
    assert 'num_classes not set 3' in words
    assert 'bad: Loss is not finite' in words
    curves = [a['aria-label'] for a in page.all('svg')]
    assert any('Training loss by epoch. good: from 1.1' in a for a in curves)


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    runs = [write_run(tmp_path / parent / 'run') for parent in 'ab']
    words = Page(render_report(runs)).words
    assert f'{tmp_path}/a/run Fine' in words and f'{tmp_path}/b/run Fine' in words


def test_a_long_run_gives_a_small_file(tmp_path):
    folder = tmp_path / 'run' / '20260101_120000' / 'vis_data'
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / 'scalars.json').open('w') as file:
        for step in range(20_000):
            loss = 1 + rng.normal() / 10
            file.write(json.dumps(dict(loss=loss, iter=step + 1)) + '\n')
    assert len(render_report([tmp_path / 'run'])) < 300_000


def test_a_folder_without_a_run_is_one_clear_line(tmp_path):
    with pytest.raises(MissingFileError, match='none is no folder: give the work_dir'):
        render_report([tmp_path / 'none'])
    with pytest.raises(UserError, match='holds no run: give the work_dir'):
        render_report([tmp_path])
    with pytest.raises(UserError, match='no run given'):
        render_report([])
    run = write_run(tmp_path / 'run')
    with pytest.raises(UserError, match='is a folder: name a file'):
        write_report(run, tmp_path)
    with pytest.raises(UserError, match=f'Did you mean {run}?'):
        render_report([tmp_path])
    (run / '20260101_120000' / 'vis_data' / 'scalars.json').write_text('')
    with pytest.raises(UserError, match='has no scalars of a training'):
        render_report([run])
