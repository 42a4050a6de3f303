"""Confusions and the worst mistakes of a classifier."""

import json

import numpy as np
from PIL import Image

from mmmixmim.evaluation import find_mistakes
from mmmixmim.visualization import draw_confusion, draw_worst

SCORES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.05, 0.95]])
LABELS = [0, 0, 0, 1, 1]
FILES = ['a', 'b', 'c', 'd', 'e']


def test_confusions_have_the_true_class_in_rows():
    found = find_mistakes(SCORES, LABELS, FILES, ['cat', 'dog'])
    assert found['confusion'] == [[1, 2], [1, 1]]
    assert found['top1'] == 40 and found['images'] == 5
    assert found['recall'] == [33.33, 50]
    assert json.loads(json.dumps(found)) == found


def test_the_most_confident_mistake_comes_first(monkeypatch):
    monkeypatch.setattr('mmmixmim.evaluation.mistakes._WORST', 2)
    found = find_mistakes(SCORES, LABELS, FILES, ['cat', 'dog'])
    assert [each['file'] for each in found['worst']] == ['c', 'd']
    assert found['worst'][0] == dict(
        file='c', label='cat', answer='dog', confidence=0.8
    )


def test_a_class_without_images_has_no_recall():
    found = find_mistakes(SCORES[:3], LABELS[:3], FILES, ['cat', 'dog'])
    assert found['recall'] == [33.33, None]


def test_both_pictures_are_drawn(tmp_path):
    files = []
    for name in FILES:
        files.append(tmp_path / f'{name}.png')
        Image.new('RGB', (30, 20), 'red').save(files[-1])
    found = find_mistakes(SCORES, LABELS, files, ['cat', '$10_$20'])  # no formula
    draw_confusion(found, tmp_path / 'confusion.png')
    draw_worst(found, tmp_path / 'worst.png')
    for name in ('confusion', 'worst'):
        with Image.open(tmp_path / f'{name}.png') as picture:
            assert len(np.unique(np.asarray(picture.convert('RGB')))) > 10
