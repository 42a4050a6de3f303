"""Confusions and the worst mistakes of a classifier."""

import json

import numpy as np
import pytest
from PIL import Image

from mmmixmim.evaluation import find_mistakes
from mmmixmim.evaluation.mistakes import wilson_interval
from mmmixmim.validation import UserError
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


def test_an_accuracy_has_an_interval_and_what_needs_no_model():
    found = find_mistakes(SCORES, LABELS, FILES, ['cat', 'dog'])
    assert found['chance'] == 60  # three of five are cats
    assert found['top1_interval'] == wilson_interval(2, 5)


@pytest.mark.parametrize('right, total', [(0, 10), (10, 10), (1, 2), (34, 46)])
def test_the_interval_is_that_of_wilson(right, total):
    binomtest = pytest.importorskip('scipy.stats').binomtest
    wanted = binomtest(right, total).proportion_ci(method='wilson')
    found = wilson_interval(right, total)
    assert found == pytest.approx([100 * wanted.low, 100 * wanted.high], abs=0.01)
    assert str(found[0])[0] != '-'


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


def test_scores_that_are_not_finite_are_no_answer():
    scores = SCORES.copy()
    scores[1], scores[4, 1] = np.nan, np.inf
    with pytest.raises(UserError, match="2 of 5 images overflow .*: 'b', 'e'. Expect"):
        find_mistakes(scores, LABELS, FILES, ['cat', 'dog'])


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
            pixels = np.asarray(picture.convert('RGB'))
        assert len(np.unique(pixels)) > 10
    assert (pixels == (255, 0, 0)).all(-1).mean() > 0.02
