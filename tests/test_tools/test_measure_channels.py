import json

import numpy as np
from PIL import Image

from ..scripts import call, error_line, passed


def test_measures_a_folder(tmp_path):
    """With masks, some channels and a value without data."""
    rng = np.random.default_rng(0)
    for folder in ('images/deep', 'masks/deep'):
        (tmp_path / folder).mkdir(parents=True)
    kept = []
    for i in range(6):
        pixels = rng.integers(1, 5000, (20, 30, 4)).astype('uint16')
        pixels[:3, :5] = 0
        np.save(tmp_path / 'images' / 'deep' / f'{i}.npy', pixels)
        mask = np.ones((20, 30), np.uint8)
        mask[:, 25:] = 0
        Image.fromarray(mask).save(tmp_path / 'masks' / 'deep' / f'{i}.png')
        if i in (0, 1, 3, 4):  # evenly spread
            valid = (mask > 0) & (pixels[..., 2] > 0)
            kept.append(pixels[valid][:, [2, 0]])
    options = ['--no-data', '0', '--channels', '2', '0', '--max-images', '4']
    options += ['--mask-root', 'masks', '--mask-suffix', '.png', '--out', 'a/s.json']
    output = passed(call('measure_channels.py', 'images', *options, cwd=tmp_path))
    found = json.loads((tmp_path / 'a' / 's.json').read_text())
    wanted = np.concatenate(kept).astype(float)
    assert np.allclose(found['mean'], wanted.mean(0))
    assert np.allclose(found['std'], wanted.std(0))
    assert found['images'] == 4 and f'{len(wanted)} valid pixels' in output


def test_errors_are_one_line(tmp_path):
    (tmp_path / 'images').mkdir()
    options = ['images', '--out', 's.json']
    line = error_line(call('measure_channels.py', *options, cwd=tmp_path))
    assert 'holds no images' in line
    np.save(tmp_path / 'images' / 'a.npy', np.full((8, 8), 7.0))
    line = error_line(call('measure_channels.py', *options, cwd=tmp_path))
    assert 'Channel 0 has the value 7' in line and not (tmp_path / 's.json').exists()
    options += ['--no-data', 'zero']
    line = error_line(call('measure_channels.py', *options, cwd=tmp_path))
    assert "'zero'" in line


def test_options_are_checked_before_measuring(tmp_path):
    (tmp_path / 'images').mkdir()
    np.save(tmp_path / 'images' / 'a.npy', np.random.default_rng(0).random((8, 8)))
    (tmp_path / 'file').touch()
    for options, said in (
        (['--out', 'images'], "'images' is a folder"),
        (['--out', 'file/s.json'], "in 'file' (Not a directory)"),
        (['--out', 's.json', '--mask-suffix', '.png'], 'add --mask-root'),
    ):
        result = call('measure_channels.py', 'images', *options, cwd=tmp_path)
        assert said in error_line(result) and not result.stdout
