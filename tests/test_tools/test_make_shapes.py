"""Dataset and preview of tools/make_shapes.py."""

import json

import numpy as np
from PIL import Image

from mmmixmim.synthetic import CLASSES, write_dataset

from ..scripts import call, load, passed, run

COUNTS = ('--unlabelled', 3, '--train', 2, '--val', 1)


def content(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_options_determine_the_dataset(tmp_path):
    options = [*COUNTS, '--size', 64, '--seed', 5]
    output = passed(run('make_shapes.py', 'new/data', *options, cwd=tmp_path))
    assert output.splitlines()[-1] == 'new/data: 3 unlabelled, 2 train, 1 val'
    written = content(tmp_path / 'new' / 'data')
    assert Image.open(tmp_path / 'new' / 'data' / 'preview.png').width > 100
    del written['preview.png']
    write_dataset(tmp_path / 'same', dict(unlabelled=3, train=2, val=1), 64, seed=5)
    assert content(tmp_path / 'same') == written
    write_dataset(tmp_path / 'other', dict(unlabelled=3, train=2, val=1), 64, seed=6)
    assert content(tmp_path / 'other') != written


def test_defaults(tmp_path, monkeypatch):
    monkeypatch.setattr('mmmixmim.synthetic.write_dataset', lambda *a, **k: asked(a, k))
    monkeypatch.setattr('sys.stdout', None, raising=False)
    calls = []

    def asked(args, kwargs):
        calls.append((args, kwargs))
        raise SystemExit

    call('make_shapes.py', cwd=tmp_path)
    ((root, counts, size), options) = calls[0]
    assert str(root) == 'data/shapes' and size == 96 and options == dict(seed=0)
    assert counts == dict(unlabelled=3500, train=500, val=200)


def test_preview_shows_both_label_formats(tmp_path, monkeypatch):
    """Both label formats give the same classes, from 0; the background is -1."""
    write_dataset(tmp_path, dict(train=1, val=4), 64)
    script = load('make_shapes.py')
    drawn = []
    monkeypatch.setattr(script, 'draw_label_maps', lambda *args: drawn.append(args))
    script.draw_preview(tmp_path, count=3)
    ((pictures, columns, classes, path),) = drawn
    assert classes == list(CLASSES) and path == tmp_path / 'preview.png'
    assert len(pictures) == 3
    truth = json.loads((tmp_path / 'annotations' / 'instances_val.json').read_text())
    for i, (masks, labels) in enumerate(zip(*columns.values(), strict=True)):
        entry = truth['images'][i]
        kinds = {
            each['category_id'] - 1
            for each in truth['annotations']
            if each['image_id'] == entry['id']
        }
        assert set(np.unique(labels)) - {-1} == set(np.unique(masks)) - {-1} <= kinds
        assert -1 in labels and (masks == labels).mean() > 0.95
        file = tmp_path / 'images' / 'val' / entry['file_name']
        assert np.array_equal(pictures[i], np.asarray(Image.open(file)))
