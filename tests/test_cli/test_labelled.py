"""Fine-tuning and probing by one command."""

import html
import json
import shlex
import shutil

import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.device import utils
from mmengine.logging import MMLogger
from PIL import Image
from torch import nn

from mmmixmim.checkpoint import load_encoder
from mmmixmim.cli.labelled import _per_class
from mmmixmim.cli.machine import Machine
from mmmixmim.cli.models import SIZES, Size, encoder
from mmmixmim.cli.weights import describe_weights
from mmmixmim.cli.weights import pretrained as pretrained_cfg
from mmmixmim.datasets import ChannelStatistics
from mmmixmim.datasets.labelled import (
    Labelled,
    check_counts,
    find_labelled,
    split,
)
from mmmixmim.datasets.tables import read_paths
from mmmixmim.evaluation import extract_features, find_mistakes
from mmmixmim.models import RasterClsDataPreprocessor
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError
from mmmixmim.visualization import draw_worst, mistakes

from .conftest import check_predictions, error_line, mixmim


@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    """A folder of 12 pictures for each of two classes that colours tell apart."""
    root = tmp_path_factory.mktemp('colours')
    rng = np.random.default_rng(0)
    for channel, name in ((0, 'red'), (2, 'blue')):
        (root / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / name / f'{number}.png')
    return root


def test_finetuning_ends_with_confusions_and_mistakes(colours, pretrained, tmp_path):
    out = tmp_path / 'run'
    arguments = ['--from', pretrained[0], '--out', out, '--epochs', 2]
    code, printed, err = mixmim('finetune', colours, *arguments)
    assert code == 0, printed + err
    assert '2 classes; 20 images to train on and 4 to validate' in printed
    assert 'images per class: blue (12), red (12)\n' in printed
    assert f'Encoder: {pretrained[0]}/epoch_2.pth, after 2 of 2 epochs\n' in printed
    found = json.loads((out / 'mistakes.json').read_text())
    assert found['classes'] == ['blue', 'red'] and found['images'] == 4
    assert np.array(found['confusion']).sum(axis=1).tolist() == [2, 2]
    assert (out / 'confusion.png').exists() and (out / 'report.html').exists()
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.model.backbone.init_cfg.checkpoint.endswith('epoch_2.pth')
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.75
    assert cfg.default_hooks.unreadable_images.max_share == 0.01
    assert cfg.train_dataloader.dataset.pipeline[0].ignore_empty
    assert 'ignore_empty' not in cfg.val_dataloader.dataset.pipeline[0]
    # The split is written down; each file is on one side.
    lines = [
        (out / f'{part}.txt').read_text().splitlines() for part in ('train', 'val')
    ]
    assert [len(each) for each in lines] == [20, 4]
    assert len({line.rsplit(' ', 1)[0] for each in lines for line in each}) == 24


def test_probing_tells_the_colours_apart(colours, pretrained, tmp_path, capsys):
    out = tmp_path / 'run'
    MMLogger.get_instance(str(tmp_path))  # writes to the terminal, as at first
    code, printed, err = mixmim('probe', colours, '--from', pretrained[0], '--out', out)
    assert code == 0, printed + err
    found = json.loads((out / 'mistakes.json').read_text())
    assert found['top1'] == 100 and not found['worst']
    assert (
        'Accuracy        100.0 % of 4 validation images (95 % interval 51.01 to 100.0 '
        '%; always answering the most frequent class gives 50.0 %)\n'
    ) in printed
    assert (
        f'Encoder: micro, 32 pixels, from {pretrained[0]}/epoch_2.pth, after 2 of 2 '
        'epochs\n'
    ) in printed
    assert 'is computed again' not in printed
    assert not capsys.readouterr().out

    command = printed.rpartition('Compare with    python -m mmmixmim ')[2]
    code, printed, err = mixmim(*shlex.split(command))
    assert code == 0, printed + err
    assert 'untrained' in command and 'Accuracy' in printed
    assert 'Encoder: micro, 32 pixels, untrained\n' in printed
    assert 'Compare with' not in printed
    # By the rule for 64 pixels, an untrained encoder has patches of another size.
    options = ['--image-size', 64, '--from', pretrained[0], '--out', tmp_path / 'small']
    code, printed, err = mixmim('probe', colours, *options)
    assert code == 0 and 'Compare with    a probe without --image-size' in printed, err
    other = tmp_path / 'run-untrained'
    assert (other / 'val.txt').read_text() == (out / 'val.txt').read_text()


def test_a_repeated_probe_says_that_it_replaces_the_result(
    colours, pretrained, tmp_path
):
    command = ['probe', colours, '--from', pretrained[0], '--out', tmp_path]
    assert mixmim(*command)[0] == 0
    (tmp_path / 'mistakes.png').touch()  # now there are none
    (tmp_path / 'mistakes.json').unlink()
    code, printed, err = mixmim(*command)
    assert code == 0, err
    said = 'holds this probe: its result is computed again and replaced.'
    assert printed.splitlines()[0] == f'{tmp_path} {said}'
    assert (tmp_path / 'mistakes.json').exists()
    assert not (tmp_path / 'mistakes.png').exists()


@pytest.mark.parametrize('command', ['probe', 'finetune'])
def test_weights_of_an_interrupted_pretraining_are_unfinished(
    command, colours, pretrained, tmp_path
):
    run = tmp_path / 'run'
    shutil.copytree(pretrained[0], run)
    (run / 'epoch_2.pth').unlink()
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    options = ['--from', run, '--out', tmp_path / 'out']
    options += ['--dry-run'] if command == 'finetune' else []
    code, printed, err = mixmim(command, colours, *options)
    assert code == 0, err
    assert f'{run}/epoch_1.pth, after 1 of 2 epochs (unfinished)\n' in printed


@pytest.mark.parametrize(
    'extras, said',
    [
        ({}, ''),
        (dict(meta=dict(epoch=300)), ''),  # published
        (
            dict(
                meta=dict(epoch=0, iter=1500),  # a loop without epochs
                message_hub=dict(runtime_info=dict(max_epochs=1, max_iters=1500)),
            ),
            ', after 1,500 of 1,500 iterations',
        ),
        (
            dict(
                meta=dict(epoch=0, iter=12),  # stopped in the first epoch
                message_hub=dict(runtime_info=dict(max_epochs=3, max_iters=90)),
            ),
            ', after 12 of 90 iterations (unfinished)',
        ),
    ],
)
def test_a_checkpoint_says_how_long_it_was_trained(extras, said, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), **extras), file)
    assert describe_weights(file) == f'{file}{said}'


def test_of_many_classes_the_first_ones_are_counted():
    names = [f'class{number:03}' for number in range(200)]
    names[1] = 'a\nb'
    labels = [number for number in range(200) for _ in range(3 + number)]
    found = _per_class(Labelled([], labels, names, None))
    assert found.startswith(', 3 to 202: class000 (3), a\\nb (4), class002 (5)')
    assert found.endswith('class009 (12) and 190 more')


def test_an_untrained_stock_encoder_is_initialised(colours, tmp_path, monkeypatch):
    """Before, the tables of Swin are zeros."""
    swin = Size(16, (1, 1, 2), (1, 2, 4), (32, 1, 2), 'swin')
    monkeypatch.setitem(SIZES, 'small', swin)
    models = []

    def extract(model, loader):
        models.append(model)
        return extract_features(model, loader)

    monkeypatch.setattr('mmmixmim.cli.probe.extract_features', extract)
    options = ['--model', 'small', '--out', tmp_path / 'run']
    code, printed, err = mixmim('probe', colours, *options)
    assert code == 0, printed + err
    weights = models[0].backbone.state_dict()
    tables = [weights[name] for name in weights if name.endswith('bias_table')]
    assert tables and all(table.any() for table in tables)


@pytest.mark.parametrize('device, workers', [('cpu', 0), ('cuda', 2)])
def test_probes_load_in_processes_beside_a_gpu(
    device, workers, colours, tmp_path, monkeypatch
):
    monkeypatch.setattr(utils, 'DEVICE', 'mps')  # a Mac's CPU computes
    loaders = []

    def extract(model, loader):
        loaders.append(loader.num_workers)
        return extract_features(model, loader)

    monkeypatch.setattr('mmmixmim.cli.probe.extract_features', extract)
    seen = Machine(device, 'Card', 2**34, cores=3)
    monkeypatch.setattr('mmmixmim.cli.probe.this_machine', lambda: seen)
    options = ['--model', 'micro', '--image-size', 32, '--out', tmp_path / 'run']
    code, printed, err = mixmim('probe', colours, *options)
    assert code == 0, printed + err
    assert loaders == [workers, workers]


@pytest.mark.parametrize(
    'family', ['mixmim', 'swin', 'swin-v2', 'convnext', 'convnext-v2', 'hivit', 'pvt']
)
def test_finetuning_starts_from_what_a_probe_loads(family, tmp_path, monkeypatch):
    """For images of another size and other channels."""
    heads, depths = ((), (1, 1, 2)) if 'convnext' in family else ((1, 2, 4), (1, 1, 2))
    if family == 'pvt':
        heads, depths = (1, 2, 4, 8), (1, 1, 1, 1)
    monkeypatch.setitem(SIZES, 'small', Size(16, depths, heads, family=family))
    source = MODELS.build(encoder('small', 64, 4, 3))
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    file = tmp_path / 'pretrained.pth'
    state = {f'backbone.{name}': v for name, v in source.state_dict().items()}
    torch.save(dict(state_dict=state), file)
    probed, tuned = (MODELS.build(encoder('small', 128, 4, 2)) for _ in range(2))
    load_encoder(probed, file, in_channels='mean')
    tuned.init_cfg = pretrained_cfg(file, dict(in_channels=3), 2)
    tuned.init_weights()
    for name, value in probed.state_dict().items():
        assert torch.equal(tuned.state_dict()[name], value), name
    assert torch.equal(list(tuned.parameters())[-1], list(source.parameters())[-1])


def test_a_stock_encoder_from_pretraining_to_classifier(colours, tmp_path, monkeypatch):
    swin = Size(16, (1, 1, 2), (1, 2, 4), (32, 1, 2), 'swin')
    monkeypatch.setitem(SIZES, 'small', swin)
    runs = [tmp_path / name for name in ('pretrain', 'finetune', 'probe')]
    options = ['--out', runs[0], '--epochs', 1, '--model', 'small']
    code, printed, err = mixmim('pretrain', colours, *options)
    assert code == 0, printed + err
    options = ['--out', runs[1], '--epochs', 1, '--from', runs[0], '--lr', 0]
    code, printed, err = mixmim('finetune', colours, *options)
    assert code == 0, printed + err
    first, last = (
        torch.load(run / 'epoch_1.pth', weights_only=False)['state_dict']
        for run in runs[:2]
    )
    names = [name for name in last if name.startswith('backbone.stages')]
    assert names
    for name in names:  # the rate ends at 1e-6
        assert torch.allclose(first[name], last[name], atol=1e-4)
    # A checkpoint in the folder of a run is as good as the folder.
    options = ['--out', runs[2], '--from', runs[0] / 'epoch_1.pth']
    code, printed, err = mixmim('probe', colours, *options)
    assert code == 0, printed + err
    # Elsewhere it does not tell its model.
    (runs[0] / 'epoch_1.pth').rename(tmp_path / 'alone.pth')
    options = ['--out', tmp_path / 'new', '--from', tmp_path / 'alone.pth']
    line = error_line('finetune', colours, *options)
    assert 'the folder of a run of this command tells the model' in line


def write_rasters(folder, channels, dtype, ending, level, no_data=None):
    """Eight smooth rasters; 'bright' or 'dark' is up to the level."""
    folder.mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).normal(level, 300, (channels, 36, 40))
        if no_data is not None:
            pixels[:, 4:9, 5:30] = no_data
        file = folder / f'{number}.{ending}'
        if ending == 'npy':
            np.save(file, pixels.astype(dtype))
        else:
            tifffile.imwrite(file, pixels.squeeze().astype(dtype))


def test_grey_rasters_from_pretraining_to_classifier(tmp_path):
    for name, level in (('bright', 9000), ('dark', 3000)):
        write_rasters(tmp_path / 'data' / name, 1, np.uint16, 'tif', level)
    runs = [tmp_path / name for name in ('pretrain', 'finetune', 'probe')]
    options = ['--out', runs[0], '--epochs', 1]
    code, _, err = mixmim('pretrain', tmp_path / 'data', *options)
    assert code == 0, err
    # Other images of the kind are normalised by the statistics of the run.
    for name, level in (('bright', 9900), ('dark', 3900)):
        write_rasters(tmp_path / 'new' / name, 1, np.uint16, 'tif', level)
    options = ['--from', runs[0], '--out', runs[1], '--epochs', 1]
    code, printed, err = mixmim('finetune', tmp_path / 'new', *options)
    assert code == 0, err
    assert 'those of --from' in printed
    measured = ChannelStatistics.load(runs[0] / 'statistics.json')
    for run in runs[:2]:  # in the config itself, so that a run may be moved
        cfg = Config.fromfile(run / 'config.py')
        assert cfg.model.data_preprocessor.mean == measured.mean
    assert cfg.model.backbone.in_channels == 1
    assert 'Careful' not in check_predictions(runs[1], tmp_path)
    Image.new('L', (40, 40)).save(tmp_path / 'shallow.png')
    options = ['--from', runs[1], '--out', tmp_path / 'shallow.csv']
    code, printed, err = mixmim('predict', tmp_path / 'shallow.png', *options)
    assert code == 0, err
    assert 'Careful: some have 8 bits, those of the training 16. Values of' in printed
    # What an interrupted probe has written is in the way of nothing.
    runs[2].mkdir()
    (runs[2] / 'train.txt').touch()
    options = ['--from', runs[0], '--out', runs[2]]
    assert 'has train.txt' in error_line('probe', tmp_path / 'new', *options)
    (runs[2] / 'scan.json').touch()
    code, printed, err = mixmim('probe', tmp_path / 'new', *options)
    assert code == 0, err
    assert json.loads((runs[2] / 'mistakes.json').read_text())['top1'] == 100


def test_runs_repeat_the_value_without_data_of_the_run_they_start_from(tmp_path):
    for name, level in (('bright', 9000), ('dark', 3000)):
        folder = tmp_path / 'data' / name
        write_rasters(folder, 1, np.float32, 'npy', level, no_data=-9999)
    first, second = tmp_path / 'first', tmp_path / 'second'
    data = [tmp_path / 'data', '--no-data=-9999', '--epochs', 1]
    code, printed, err = mixmim('pretrain', *data, '--out', first)
    assert code == 0, printed + err
    steps = [shlex.split(line) for line in printed.splitlines()[-2:]]
    assert [step[3] for step in steps] == ['probe', 'finetune']
    page = html.unescape((first / 'report.html').read_text())
    for step in steps:
        assert step[-1] == '--no-data=-9999.0'
        assert ' '.join(step[-3:]) in page  # behind --out
    said = 'trained with no_data=-9999.0, this run with None: pixels without'
    for command, rest in (
        ('pretrain', ['--dry-run']),
        ('finetune', ['--dry-run']),
        ('probe', []),
    ):
        rest = [*rest, '--from', first, '--out', second]
        code, printed, err = mixmim(command, data[0], *rest)
        assert code == 0 and f'Careful: --from was {said}' in printed, err
        shutil.rmtree(second, ignore_errors=True)
        code, printed, err = mixmim(command, *data[:2], *rest)
        assert code == 0 and 'this run with' not in printed, err
        shutil.rmtree(second, ignore_errors=True)


def test_bands_without_data_count_nowhere(tmp_path):
    for name, level in (('bright', 900), ('dark', 300)):
        folder = tmp_path / 'data' / name
        write_rasters(folder, 13, np.float32, 'npy', level, no_data=np.nan)
    line = error_line('probe', tmp_path / 'data', '--out', tmp_path / 'run')
    assert 'say --no-data=nan' in line
    options = ['--no-data', 'nan', '--out', tmp_path / 'run', '--epochs', 1]
    code, printed, err = mixmim('finetune', tmp_path / 'data', *options)
    assert code == 0, err
    run = tmp_path / 'run'
    assert np.isfinite(ChannelStatistics.load(run / 'statistics.json').mean).all()
    weights = torch.load(run / 'epoch_1.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())
    assert (run / 'confusion.png').exists()
    check_predictions(run, tmp_path)
    write_rasters(tmp_path / 'few', 12, np.float32, 'npy', 300)
    line = error_line('predict', tmp_path / 'few', '--from', run)
    assert f"'{tmp_path}/few/0.npy': it has 12 channels, expected 13: leave" in line
    assert 'convert it, or train on images of 12 channels' in line


def test_only_images_to_train_on_are_measured(tmp_path):
    for part, levels in (('train', (900, 300)), ('val', (5900, 5300))):
        for name, level in zip('ab', levels, strict=True):
            write_rasters(tmp_path / 'data' / part / name, 1, np.int16, 'tif', level)
    options = ['--out', tmp_path / 'run', '--image-size', 32, '--model', 'micro']
    code, _, err = mixmim('probe', tmp_path / 'data', *options)
    assert code == 0, err
    measured = ChannelStatistics.load(tmp_path / 'run' / 'statistics.json')
    assert measured.images == 16 and 500 < measured.mean[0] < 700


def test_an_image_that_overflows_gets_no_class(tmp_path):
    for part in ('train', 'val'):
        for name, level in (('a', 900), ('b', 300)):
            folder = tmp_path / 'data' / part / name
            write_rasters(folder, 1, np.float32, 'npy', level)
    file = tmp_path / 'data' / 'val' / 'b' / '3.npy'
    pixels = np.load(file)
    pixels[0, 20, 20] = 1e25
    np.save(file, pixels)
    said = f"1 of 16 images overflow in the model: '{file}'. Expected values like"
    options = ['--model', 'micro', '--image-size', 32]
    line = error_line('probe', tmp_path / 'data', '--out', tmp_path / 'probe', *options)
    assert said in line
    run = tmp_path / 'run'
    command = ['finetune', tmp_path / 'data', '--out', run, *options, '--epochs', 1]
    code, _, err = mixmim(*command)
    assert code == 1 and said in err
    # The way out that the line names, without training again.
    file.rename(tmp_path / 'bad.npy')
    lines = (run / 'val.txt').read_text().splitlines(keepends=True)
    (run / 'val.txt').write_text(''.join(x for x in lines if str(file) not in x))
    code, printed, err = mixmim(*command)
    assert code == 0 and 'of 15 validation images' in printed, err
    files, out = [tmp_path / 'bad.npy', file.with_name('4.npy')], tmp_path / 'a.csv'
    code, printed, err = mixmim('predict', *files, '--from', run, '--out', out)
    assert code == 0, err
    assert f'  {files[0]}: its scores are not finite: its values are far' in printed
    lines = out.read_text().splitlines()
    assert lines[1] == f'{files[0]},,,,' and len(lines) == 3 and 'nan' not in lines[2]


def test_pixels_without_data_show_the_mean():
    preprocessor = RasterClsDataPreprocessor(mean=[10.0, 20], std=[2.0, 4])
    inputs = torch.full((1, 2, 2, 2), 14.0)
    inputs[0, :, 0, 0] = torch.nan
    found = preprocessor(dict(inputs=inputs))['inputs']
    assert found[0, :, 0, 0].tolist() == [0, 0]
    assert found[0, :, 1, 1].tolist() == [2, -1.5]


def test_pixels_without_data_show_the_mean_in_lists_of_images_too():
    preprocessor = RasterClsDataPreprocessor(mean=[10.0, 20], std=[2.0, 4])
    image = torch.full((2, 2, 2), torch.nan)
    found = preprocessor(dict(inputs=[image, image]))['inputs']
    assert not found.any()
    with pytest.raises(UserError, match='to_rgb=True'):
        RasterClsDataPreprocessor(to_rgb=True)


def test_worst_mistakes_are_shown_for_rasters_too(tmp_path):
    write_rasters(tmp_path / 'a', 13, np.float32, 'npy', 300, no_data=np.nan)
    write_rasters(tmp_path / 'b', 1, np.uint16, 'tif', 300)
    files = [tmp_path / 'a' / '0.npy', tmp_path / 'b' / '0.tif']
    scores = np.array([[0.2, 0.8], [0.9, 0.1]])
    found = find_mistakes(scores, [0, 1], files, ['a', 'b'])
    draw_worst(found, tmp_path / 'mistakes.png')
    assert (tmp_path / 'mistakes.png').stat().st_size
    for file in files:
        assert mistakes._thumbnail(file, None).std() > 10


def test_worst_mistakes_show_arrays_of_8_bits_and_pictures_with_alpha(tmp_path):
    colour = np.full((20, 20, 4), (200, 40, 90, 0), np.uint8)
    colour[:10] = 250, 250, 20, 0
    Image.fromarray(colour, 'RGBA').save(tmp_path / 'a.png')
    np.save(tmp_path / 'b.npy', colour[..., :3])
    for name in ('a.png', 'b.npy'):
        shown = mistakes._thumbnail(tmp_path / name, None)
        assert shown[-1, -1].tolist() == [200, 40, 90]
    found = mistakes._thumbnail(tmp_path / 'b.npy', '200')
    assert found[-1, -1].tolist() == [0, 0, 0] and found[0, 0].tolist() == [
        250,
        250,
        20,
    ]


def test_a_value_without_data_does_not_stretch_the_picture(tmp_path):
    pixels = np.random.default_rng(0).normal(500, 50, (40, 40, 1)).astype(np.float32)
    pixels[:20] = -9999
    np.save(tmp_path / 'a.npy', pixels)
    shown = mistakes._thumbnail(tmp_path / 'a.npy', '-9999')
    assert not shown[:20].any() and shown[20:].std() > 50


def test_splits_are_seeded_and_stratified(colours):
    labelled = find_labelled(colours)
    first, again, other = (split(labelled, 0.25, seed) for seed in (0, 0, 1))
    assert first.parts == again.parts != other.parts
    for each in (first, other):
        labels = [label for _, label in each.part('val')]
        assert (labels.count(0), labels.count(1)) == (3, 3)
    check_counts(first)


def test_splits_of_the_data_are_kept(colours, tmp_path):
    for part, numbers in (('train', range(8)), ('val', range(8, 12))):
        for name in ('red', 'blue'):
            (tmp_path / part / name).mkdir(parents=True)
            for number in numbers:
                file = f'{name}/{number}.png'
                (tmp_path / part / file).symlink_to(colours / file)
    found = find_labelled(tmp_path)
    assert [len(found.part(part)) for part in ('train', 'val')] == [16, 8]
    rows = [f'{file},{found.classes[y]},train' for file, y in found.part('train')]
    rows += [f'{file},{found.classes[y]},val' for file, y in found.part('val')]
    (tmp_path / 'table.csv').write_text('\n'.join(['path,label,part', *rows]))
    listed = find_labelled(tmp_path / 'table.csv')
    assert listed.part('val') == found.part('val')


def test_an_image_that_a_table_repeats_is_on_one_side(colours, tmp_path):
    lines = [f'{file},{file.parent.name}' for file in sorted(colours.glob('*/*'))]
    lines += [line.replace('/red/', '/blue/../red/') for line in lines]
    table = tmp_path / 'table.csv'
    table.write_text('\n'.join(['path,label', *lines]))
    found = split(find_labelled(table))
    sides = [{file for file, _ in found.part(part)} for part in ('train', 'val')]
    assert len(found.files) == 24 and not sides[0] & sides[1]
    table.write_text('\n'.join(['path,label', *lines, f'{lines[0][:-4]}red']))
    with pytest.raises(UserError, match='Lines 2 and 50 of .* two labels: keep one'):
        find_labelled(table)
    parts = [f'{lines[0]},{part}' for part in ('train', 'val')]
    table.write_text('\n'.join(['path,label,part', *parts]))
    with pytest.raises(UserError, match='Lines 2 and 3 of .* two parts'):
        find_labelled(table)


def test_labels_in_a_parquet_file(colours, tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    paths = sorted(map(str, colours.glob('*/*')))
    table = dict(path=paths, label=[int('red' in path) for path in paths])
    file, options = tmp_path / 'a.parquet', ['--out', tmp_path / 'run', '--dry-run']
    parquet.write_table(pyarrow.table(table), file)
    code, printed, err = mixmim('finetune', file, *options)
    assert code == 0, err
    assert '2 classes; 20 images to train on and 4 to validate, drawn' in printed
    assert find_labelled(file).classes == ['0', '1']
    table['part'] = ['train', 'val'] * 12
    parquet.write_table(pyarrow.table(table), file)
    code, printed, err = mixmim('finetune', file, *options)
    assert '12 images to train on and 12 to validate, as the data say' in printed
    table['label'][1] = None
    parquet.write_table(pyarrow.table(table), file)
    assert 'Row 2 of' in error_line('finetune', file, *options)
    table['part'] = ['elsewhere'] * 24
    parquet.write_table(pyarrow.table(table), file)
    assert len(read_paths(file)) == 24  # pretraining uses neither labels nor parts
    parquet.write_table(pyarrow.table(dict(path=paths)), file)
    assert "no column 'label'" in error_line('finetune', file, *options)


@pytest.mark.parametrize(
    'parts',
    [
        ('train', 'test'),
        ('train', 'valid'),
        ('Train', 'Validation', 'Test'),
        ('train',),
        ('training', 'testing'),
        ('seg_train', 'seg_test'),
        ('train2017', 'val2017'),
        ('dev_train', 'dev_test'),
        ('train', 'eval', 'test'),
        ('val', 'test'),
        ('train', 'dev', 'eval'),
    ],
)
def test_parts_of_other_names_are_no_classes(parts, colours, tmp_path):
    for part in parts:
        (tmp_path / part).symlink_to(colours)
    with pytest.raises(UserError) as error:
        find_labelled(tmp_path)
    assert f'{" and ".join(sorted(parts))}, which are no classes' in str(error.value)
    (tmp_path / 'bus').symlink_to(colours)  # a train may be a vehicle
    assert len(find_labelled(tmp_path).classes) == len(parts) + 1


def test_classes_may_have_words_of_parts(colours, tmp_path):
    for name in ('train_station', 'test_tube'):
        (tmp_path / name).symlink_to(colours / 'red')
    assert find_labelled(tmp_path).classes == ['test_tube', 'train_station']
