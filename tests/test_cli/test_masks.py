"""Pretraining with a mask for each image."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmmixmim.cli.source import PythonDataset, find_source
from mmmixmim.datasets import RasterFolder
from mmmixmim.validation import UnreadableFileError

from .conftest import error_line, mixmim, write_pictures

VALID = np.tri(40, 36, 18, dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    """Six pictures, a file that is none, and masks of all in the next folder."""
    folder = tmp_path / 'images' / 'sea'
    write_pictures(folder, 6)
    (folder / 'broken.png').write_bytes(b'no image')
    for file in folder.iterdir():
        mask = tmp_path / 'masks' / 'sea' / f'{file.stem}_mask.tif'
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * VALID).save(mask)
        mask.with_suffix('.tfw').touch()  # where on the globe, as GIS programs write it
    return tmp_path / 'images'


def test_masked_pixels_count_nowhere(images, tmp_path):
    masks, out = tmp_path / 'masks', tmp_path / 'run'
    options = ['--masks', masks, '--out', out, '--epochs', 1]
    code, printed, err = mixmim('pretrain', images, *options)
    assert code == 0, printed + err
    assert f'masks *_mask.tif in {masks}, where 0 is no data' in printed
    assert '1 left out, as unreadable' in printed
    statistics = json.loads((out / 'statistics.json').read_text())
    assert statistics['pixels'] == 6 * VALID.sum() < 6 * VALID.size
    loader = Config.fromfile(out / 'config.py').train_dataloader
    dataset = RasterFolder(**{k: v for k, v in loader.dataset.items() if k != 'type'})
    assert len(dataset) == 6
    weights = [item['data_samples'].pixel_weight.mean() for item in dataset]
    assert 0 < np.mean(weights) < 1


def test_masks_that_cannot_be_used(images, tmp_path):
    masks, run = tmp_path / 'masks', tmp_path / 'run'

    def line(data, masks):
        return error_line('pretrain', data, '--masks', masks, '--out', run)

    nowhere = tmp_path / 'nowhere'
    assert f'no folder of masks {str(nowhere)!r}' in line(images, nowhere)
    assert 'lie in the folder of the images' in line(images, images / 'sea')
    (tmp_path / 'list.txt').write_text('images/sea/sea00.png\n')
    assert 'are for images of a folder' in line(tmp_path / 'list.txt', masks)
    assert "There is no folder '" in line(tmp_path / 'imagse', masks)
    Image.fromarray(VALID[:9]).save(masks / 'sea' / 'sea03_mask.tif')
    said = line(images, masks)
    assert 'sea03.png' in said and 'its mask has 9x36 pixels' in said
    (masks / 'sea' / 'sea04_mask.tif').unlink()
    said = line(images, masks)
    assert f"{images}/sea/sea04.png' has no mask in '{masks}'" in said


def test_images_that_the_scan_has_missed_are_skipped(images, tmp_path):
    """As those after the first 500, whose pixels it does not look at."""
    run, masks = tmp_path / 'run', tmp_path / 'masks'
    file = images / 'sea' / 'sea02.png'
    items = [
        dict(image=path, mask=VALID) for path in sorted(file.parent.glob('sea*.png'))
    ]
    sources = [find_source(images, run, masks), PythonDataset(items, run)]
    file.write_bytes(file.read_bytes()[:-200])
    for source in sources:
        source.prepare(None, 0)
        statistics = json.loads((run / 'statistics.json').read_text())
        assert statistics['images'] == 5
    (masks / 'sea' / 'sea04_mask.tif').write_bytes(b'no image')
    with pytest.raises(UnreadableFileError, match='sea04_mask.tif'):
        sources[0].prepare(None, 0)
