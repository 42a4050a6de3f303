"""Reports of runs that MMEngine's own backend has written."""

import json
import os
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.visualization import LocalVisBackend

from mmmixmim.checkpoint.resumable import set_earlier_aside, start_afresh
from mmmixmim.validation import MissingFileError, UserError
from mmmixmim.visualization import render_report, write_report
from mmmixmim.visualization.report import charts
from mmmixmim.visualization.report.charts import draw_key
from mmmixmim.visualization.report.panels import Line, panels_of_all
from mmmixmim.visualization.report.run import read_run

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

    VOID = {'meta', 'img', 'br', 'wbr'}

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
            record = dict(loss=value, lr=1e-3 / i, epoch=i, iter=step)
            backend.add_scalars(record, step)
        health = {f'features/rank_stage{n}': 9.0 + n for n in (1, 2, 3, 4)}
        val = {'reconstruction/loss': value + 0.1, 'knn/top1': 50.0}
        backend.add_scalars(val | health, step=i)
        picture = np.full((8, 12, 3), 10 * i, np.uint8)
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
    assert all(a.get('aria-label') or a.get('aria-hidden') for a in page.all('svg'))
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
    assert 'Healthy' in words and 'from 1.03 to 0.567' in words
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
    charts = [a['aria-label'] for a in Page(text).all('svg') if 'role' in a]
    loss = next(each for each in charts if 'Loss by' in each)
    assert 'training: from 1.1 to 0.5' in loss
    assert 'held-out: from 1.2 to 0.6' in loss
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


def test_lines_are_told_apart_without_colours_too():
    keys = [draw_key(Line('', [], i, 1.8, '', '')) for i in range(8)]
    assert len({re.search('stroke="(.*?)"', key)[1] for key in keys}) == 6
    # By dashes and marker.
    assert len({re.sub('var.*?[)]', '', key) for key in keys}) == 8


def test_colours_of_lines_are_told_apart_by_colour_blind_readers():
    text = Path(charts.__file__).with_name('report.css').read_text()
    pattern = r'--card: (#\w+);.*?((?:--line-\d: #\w+;\s*)+)'
    light, dark = re.findall(pattern, text, re.DOTALL)
    for card, block in (light, dark):
        card = card if len(card) == 7 else '#' + ''.join(2 * c for c in card[1:])
        lines = [linear(each) for each in re.findall(r'#\w+', block)]
        assert len(lines) == 6
        for a, b in combinations(lines, 2):
            for matrix in (np.eye(3), *DEFICIENCIES.values()):
                assert np.linalg.norm(oklab(matrix @ a) - oklab(matrix @ b)) > 0.1
        for line in lines:  # WCAG asks graphics for a contrast of 3
            low, high = sorted(each @ LUMINANCE for each in (line, linear(card)))
            assert (high + 0.05) / (low + 0.05) > 3


LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
DEFICIENCIES = dict(
    protanopia=np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    deuteranopia=np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    tritanopia=np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
)


def linear(colour):
    """Linear RGB of '#rrggbb'."""
    levels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)


def oklab(rgb):
    """Ottosson's perceptual colour space; a distance of 0.02 is just seen."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return axes @ np.cbrt(cones @ np.clip(rgb, 0, 1))


def ticks(text, title):
    """Labels of the y axis of a chart, from SVG."""
    chart = text[text.index(f'aria-label="{title} by') :]
    chart = chart[chart.index('matplotlib.axis_2') : chart.index('</svg>')]
    return [float(each) for each in re.findall(r'<text[^>]*>([\d.e-]+)</text>', chart)]


@pytest.mark.parametrize('peak', (8.0, 40.0, 3e3, 2e7))
def test_an_axis_that_a_peak_makes_logarithmic_has_ticks_that_can_be_read(
    tmp_path, peak
):
    run = write_run(tmp_path / 'run', loss=(0.5, 0.4))
    (backend,) = run.glob('*/vis_data')
    with (backend / 'scalars.json').open('a') as file:
        file.write(json.dumps(dict(loss=peak, iter=105, step=105)) + '\n')
    found = ticks(render_report([run]), 'Loss')
    assert 3 <= len(found) <= 9 and len(set(found)) == len(found)


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
    os.mkfifo(folder / 'pipe_5.png')
    assert len(Page(render_report([run])).all('img')) == 3


def test_a_resumed_run_is_shown_as_one(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 6))
    write_run(run, time='20260102_120000', epochs=range(4, 11), resume=True)
    words = Page(render_report([run])).words
    assert 'Healthy' in words and '10 of 10 epochs' in words
    assert '2026-01-01 12:00, resumed 2026-01-02 12:00' in words


def test_pictures_of_other_batches_are_those_of_the_same_epochs(tmp_path):
    """Five epochs of 20 batches, then resumed with 10."""
    run = write_run(tmp_path / 'run', epochs=range(1, 4))
    images = run / '20260101_120000' / 'vis_data' / 'vis_image'
    for epoch in (3, 2, 1):
        (images / f'reconstruction_{10 * epoch}.png').rename(
            images / f'reconstruction_{20 * epoch}.png'
        )
    write_run(run, time='20260102_120000', epochs=range(3, 6), resume=True)
    for time, batches in (('20260101_120000', 20), ('20260102_120000', 10)):
        counts = run / time / 'vis_data' / 'counts.json'
        counts.write_text(json.dumps(dict(iters_per_epoch=batches)))
    pictures = read_run(run).pictures
    assert [each.step for each in pictures] == [10, 20, 30, 40, 50]
    # The later start has drawn the third epoch again.
    assert '20260102' in str(pictures[2].path)


def next_words(run):
    """What the report advises."""
    words = Page(render_report([run])).words
    return words[words.rindex('What to do next') :].split('The whole config')[0]


def test_a_run_that_is_wrong_gets_another_next_step(tmp_path):
    run = write_run(tmp_path / 'run', loss=(1.0, float('nan')))
    assert 'Loss is not finite' in Page(render_report([run])).words
    steps = next_words(run)
    assert f'--work-dir {run}-lower-lr' in steps and 'optimizer.lr=0.0001' in steps
    assert 'clip_grad.max_norm=1.0' in steps and 'bfloat16' not in steps
    assert 'probe /data' not in steps and 'resume' not in steps


def test_runs_on_python_data_are_told_what_the_call_cannot_change(tmp_path):
    data = dict(batch_size=8, dataset=dict(type='WrappedDataset', dataset='mine'))
    bad = dict(loss=(1.0, float('nan')), train_dataloader=data)
    steps = next_words(write_run(tmp_path / 'rate', **bad))
    assert 'call mmmixmim.pretrain with another out and lr=0.0001, and set ' in steps
    assert 'clip_grad.max_norm=1.0 in a config (mmmixmim.pretrain has no arg' in steps
    model = CONFIG['model'] | dict(mask_ratio=0.9)
    steps = next_words(
        write_run(tmp_path / 'ratio', train_dataloader=data, model=model)
    )
    assert 'each image: set model.mask_ratio=0.5 in a config (mmmixmim.pret' in steps
    assert 'call mmmixmim.pretrain' not in steps


def test_starting_again_does_not_resume(tmp_path):
    """The config that a resumed run saved says that it resumes."""
    bad = dict(loss=(1.0, float('nan')), resume=True, load_from='epoch_1.pth')
    steps = next_words(write_run(tmp_path / 'run', **bad))
    assert 'resume=False load_from=None' in steps


def test_starting_again_begins_with_the_weights_of_the_first_start(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 3), load_from='weights.pth')
    changes = dict(resume=True, load_from='epoch_2.pth', time='20260102_120000')
    write_run(run, loss=(1.0, float('nan')), epochs=range(3, 6), **changes)
    assert 'resume=False load_from=weights.pth' in next_words(run)


def test_a_start_from_scratch_does_not_count_checkpoints_of_an_earlier_run(tmp_path):
    run = write_run(tmp_path / 'run')
    assert start_afresh(run) == str(run / 'epoch_10.pth')
    set_earlier_aside(run)
    write_run(run, epochs=range(1, 4), time='20260102_120000')
    words = Page(render_report([run])).words
    assert '3 of 10 epochs' in words and 'epoch_10.pth' not in words
    assert read_run(run).checkpoints == [run / 'epoch_3.pth']


def test_scalars_without_a_loss_make_a_report(tmp_path):
    backend = LocalVisBackend(str(tmp_path / '20260101_120000' / 'vis_data'))
    backend.add_config(Config(CONFIG))
    for step in (5, 10):
        backend.add_scalars(dict(loss_generator=1.5, lr=0.1, iter=step), step)
    words = Page(render_report([tmp_path])).words
    assert 'loss_generator' in words and '10 1.5' in words


def test_overflow_of_float16_asks_for_bfloat16_and_clips_no_second_time(tmp_path):
    wrapper = CONFIG['optim_wrapper'] | dict(
        type='mmengine.AmpOptimWrapper', clip_grad=dict(max_norm=3.0)
    )
    run = write_run(tmp_path / 'run', loss=(1.0, float('nan')), optim_wrapper=wrapper)
    steps = next_words(run)
    assert 'optim_wrapper.dtype=bfloat16' in steps and 'max_norm=1.0' not in steps


def add_health(run, **values):
    """Log another validation, with these features of the last stage."""
    (folder,) = run.glob('*/vis_data')
    record = {f'features/{name}_stage4': value for name, value in values.items()}
    with (folder / 'scalars.json').open('a') as file:
        file.write(json.dumps(record | dict(step=100)) + '\n')


def test_a_target_without_information_gets_images_and_normalisation_checked(tmp_path):
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[0.0], std=[1e6])
    model = CONFIG['model'] | dict(data_preprocessor=preprocessor)
    run = write_run(tmp_path / 'run', loss=(0.01, 0.001), model=model)
    add_health(run, rank=1.0)
    words = Page(render_report([run])).words
    assert 'Loss near zero' in words and 'Features collapsed' in words
    assert 'because the target carries no information: fix that first' in words
    assert 'do not trust its accuracy' in words
    steps = next_words(run)
    assert 'model gets are blank' in steps and 'mean [0.0], std [1000000.0]' in steps
    assert "data_preprocessor.std=[STD]'" in steps and 'MEAN and STD' in steps
    assert 'learning rate' not in steps and 'optimizer.lr' not in steps
    assert 'finetune' not in steps


def test_a_collapse_alone_gets_the_images_checked_and_a_lower_rate(tmp_path):
    run = write_run(tmp_path / 'run')
    add_health(run, rank=1.0)
    steps = next_words(run)
    assert 'model gets are blank' in steps and 'optimizer.lr=0.0001' in steps


def test_too_few_images_get_more_and_the_best_checkpoint(tmp_path):
    run = write_run(tmp_path / 'run', loss=(1.0, 0.3))
    (folder,) = run.glob('*/vis_data')
    (folder / 'counts.json').write_text('{"images": 10}')
    with (folder / 'scalars.json').open('a') as file:
        for i, value in enumerate((0.5, 0.6, 0.7, 0.8, 0.9)):
            loss = {'loss': 0.2, 'iter': 101 + i, 'step': 101 + i}
            file.write(json.dumps(loss) + '\n')
            value = {'reconstruction/loss': value, 'step': 101 + i}
            file.write(json.dumps(value) + '\n')
    steps = next_words(run)
    assert (
        'Add images to /data/<b>x</b> (now 10): more images usually help most' in steps
    )
    assert 'checkpoint.save_best=reconstruction/loss' in steps
    assert 'learning rate' not in steps and 'finetune' in steps
    (run / 'best_reconstruction_loss_epoch_4.pth').write_bytes(b'')
    assert 'save_best' not in next_words(run)


def test_a_high_mask_ratio_gets_a_lower_one_and_is_among_the_facts(tmp_path):
    model = CONFIG['model'] | dict(mask_ratio=0.9)
    run = write_run(tmp_path / 'run', model=model)
    assert 'model.mask_ratio=0.5' in next_words(run)
    assert 'Mask ratio 0.9' in Page(render_report([run])).words


def test_the_speed_is_that_of_iterations(tmp_path):
    run = write_run(tmp_path / 'run')
    (file,) = run.glob('*/vis_data/scalars.json')
    with file.open('a') as scalars:
        for step, seconds in ((101, 0.5), (102, 0.5), (103, 9.0)):
            scalars.write(json.dumps(dict(time=seconds, iter=step, step=step)) + '\n')
    speed = 'Speed 0.5 s per iteration, 16 images/s per device (median, without valid'
    assert speed in Page(render_report([run])).words


def test_nothing_learned_tries_rates_on_both_sides(tmp_path):
    run = write_run(tmp_path / 'run', loss=(1.0, 1.0), epochs=range(1, 21))
    steps = next_words(run)
    assert 'optimizer.lr=0.0001' in steps and 'optimizer.lr=0.01' in steps


def test_a_run_of_the_command_gets_commands_that_need_no_repository(tmp_path):
    run = write_run(tmp_path / 'run', loss=(1.0, float('nan')))
    (run / 'run.json').write_text('{}')
    assert f'mim train mmmixmim {run}/config.py' in next_words(run)


@pytest.mark.parametrize(
    'changes, ratio',
    (
        ({}, '0.5'),
        (dict(num_images=4), '0.75'),
        (dict(range_mask_ratio=0.1), '0.5 to 0.6'),
    ),
)
def test_the_mask_ratio_is_told_where_the_config_leaves_it_to_the_model(
    tmp_path, changes, ratio
):
    run = write_run(tmp_path / 'run', model=CONFIG['model'] | changes)
    assert f'Mask ratio {ratio} Dataset' in Page(render_report([run])).words


def test_counts_of_the_run_are_told_and_what_is_no_count_is_left_out(tmp_path):
    run = write_run(tmp_path / 'run')
    (folder,) = run.glob('*/vis_data')
    counts = dict(images=12345, held_out=0, processes=8, parameters='<b>')
    (folder / 'counts.json').write_text(json.dumps(counts))
    page = Page(render_report([run]))
    check(page)
    words = page.words
    assert 'Training images 12,345 Held-out images none' in words
    assert 'Batch size 8 in each of 8 processes' in words and '<b> ' not in words
    (folder / 'counts.json').write_text('[1')
    assert 'at most 80' in Page(render_report([run])).words


def test_a_run_has_ended_when_its_last_checkpoint_is_there(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 10))
    (run / 'epoch_10.pth').write_bytes(b'')
    words = Page(render_report([run])).words
    assert '10 of 10 epochs' in words and '--resume' not in words


def test_a_loop_by_iterations_has_no_epochs(tmp_path):
    loop = dict(type='IterBasedTrainLoop', max_iters=100)
    run = write_run(tmp_path / 'run', train_cfg=loop)
    (run / 'iter_100.pth').write_bytes(b'')
    assert 'Length 100 of 100 iterations' in Page(render_report([run])).words


def test_the_rate_is_that_without_layer_decay(tmp_path):
    run = write_run(tmp_path / 'run')
    backend = LocalVisBackend(str(run / '20260101_120000' / 'vis_data'))
    backend.add_scalars(dict(base_lr=0.25, lr=1e-7, loss=0.5), 101)
    words = Page(render_report([run])).words
    assert 'Highest learning rate in the log 0.25' in words


def test_a_run_that_goes_on_can_be_resumed(tmp_path):
    words = Page(render_report([write_run(tmp_path / 'run', epochs=range(1, 7))])).words
    assert '6 of 10 epochs' in words and f'--work-dir {tmp_path}/run --resume' in words


def test_a_run_of_several_processes_is_resumed_by_as_many(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 7))
    (folder,) = run.glob('*/vis_data')
    (folder / 'counts.json').write_text(json.dumps(dict(processes=8)))
    words = Page(render_report([run])).words
    command = f'bash tools/dist_train.sh {run}/config.py 8 --work-dir {run} --resume'
    assert command in words
    counts = dict(processes=16, processes_here=8)
    (folder / 'counts.json').write_text(json.dumps(counts))
    words = Page(render_report([run])).words
    assert f'NNODES=2 NODE_RANK=RANK MASTER_ADDR=ADDRESS {command}' in words
    (run / 'run.json').write_text('{}')
    words = Page(render_report([run])).words
    assert (
        'PET_NNODES=2 PET_NODE_RANK=RANK PET_MASTER_ADDR=ADDRESS mim train mmmixmim '
        f'{run}/config.py --gpus 8 --launcher pytorch --port 29500 --work-dir' in words
    )


@pytest.mark.parametrize(
    'changes, mean',
    [
        ({}, 1.0),
        (dict(head=None), 1.0),
        (dict(head=dict(type='mmmixmim.MixMIMPretrainHead')), 1.0),
        (dict(head=dict(type='MixMIMPretrainHead', norm_pix=False)), None),
        (dict(head=dict(type='SimMIMHead')), None),
        (dict(type='ImageClassifier'), None),
    ],
)
def test_the_loss_of_the_mean_is_known_for_our_head(tmp_path, changes, mean):
    run = read_run(write_run(tmp_path / 'run', model=CONFIG['model'] | changes))
    assert run.mean_loss == mean


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
    assert 'held_out' not in words and 'Judge the run by its scores' in words
    assert 'Run commands where the training was started, those of' in words
    assert 'Mask ratio' not in words


def test_several_runs_stand_side_by_side(tmp_path):
    good = write_run(tmp_path / 'good')
    hooks = [dict(type='ReportHook', max_share=0.5)]
    bad = write_run(
        tmp_path / 'bad', loss=(1.0, float('nan')), num_classes=3, custom_hooks=hooks
    )
    page = Page(render_report([good, bad]))
    check(page)
    words = page.words
    assert '2 runs side by side' in words
    assert 'good Fine Healthy' in words and 'Held-out loss 0.6 ' in words
    assert 'num_classes not set 3' in words
    assert 'custom_hooks. 0. max_share not set 0.5' in words
    assert 'bad: Loss is not finite' in words
    curves = [a['aria-label'] for a in page.all('svg') if 'role' in a]
    assert any('Training loss by epoch. good: from 1.1' in a for a in curves)


def test_means_that_differ_by_rounding_are_marked_in_a_comparison(tmp_path):
    runs = []
    for name, mean in (('a', 0.94880387), ('b', 0.94880391), ('c', 0.91)):
        folder = write_run(tmp_path / name)
        backend = LocalVisBackend(str(folder / '20260101_120000' / 'vis_data'))
        backend.add_scalars({'reconstruction/mean_loss': mean}, step=10)
        runs.append(read_run(folder))
    assert panels_of_all(runs[:2])[0].level == 0.949
    assert panels_of_all(runs)[0].level is None


def test_a_rate_of_other_groups_is_no_part_of_the_curves(tmp_path):
    run = write_run(tmp_path / 'run', epochs=range(1, 9))
    backend = LocalVisBackend(str(run / '20260101_120000' / 'vis_data'))
    for step in (90, 100):
        rates = dict(lr=1e-5, base_lr=1e-3)  # layers lower that of the first group
        backend.add_scalars(dict(loss=0.5, iter=step) | rates, step)
    loss = [(step, 1 - step / 200) for step in range(10, 90, 10)]
    curves = dict(loss=loss, lr=[(step, 1e-5) for step, _ in loss])
    path = run / '20260101_120000' / 'vis_data' / 'curves.json'
    path.write_text(json.dumps(dict(iteration=80, curves=curves)))
    found = read_run(run)
    assert [each.title for each in found.findings] == ['Healthy']
    assert found.history['lr'] == [(90, 1e-3), (100, 1e-3)]


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


def test_a_link_of_a_run_leads_to_nothing_that_is_written(tmp_path):
    """A stranger's folder may have one to a file of the reader's."""
    run, mine = write_run(tmp_path / 'run'), tmp_path / 'mine.txt'
    mine.write_text('keep')
    (run / 'report.html').symlink_to(mine)
    page = write_report(run)
    assert not page.is_symlink() and mine.read_text() == 'keep'
    given = tmp_path / 'given.html'
    given.symlink_to(mine)
    write_report(run, given)
    assert given.is_symlink() and '<!DOCTYPE' in mine.read_text()


def test_values_that_no_run_has_written(tmp_path):
    """Larger ones than floats are as infinite."""
    run = write_run(tmp_path / 'run')
    huge = '1' + 400 * '0'
    with next(run.glob('*/vis_data/scalars.json')).open('a') as file:
        for line in (
            f'{{"loss": {huge}, "iter": 101}}',
            f'{{"loss": 0.5, "iter": {huge}}}',
            f'{{"val": 0.5, "step": {huge}}}',
            '{"loss": 1.7e308, "iter": 102}',
            '{"loss": -1.7e308, "iter": 103}',
            200_000 * '[',
            '{"loss": NaN, "iter": 104}',
        ):
            file.write(line + '\n')
    (run / '20260101_120000' / 'vis_data' / 'counts.json').write_text(
        f'{{"iters_per_epoch": {huge}, "images": 200000, "started": {huge}}}'
    )
    page = Page(render_report([run]))
    check(page)
    assert 'not finite' in page.words and '200,000' in page.words


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
