"""Images and runs that the tests of the commands share."""

import csv
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image

from mmmixmim.cli.main import main


def picture(seed: int, size: tuple[int, ...]) -> np.ndarray:
    """Smooth random colours, uint8."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def write_pictures(folder, count: int, size=(40, 36), ending: str = 'png') -> None:
    """Write pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = folder / f'{folder.name}{number:02}.{ending}'
        Image.fromarray(picture(number + 100 * len(folder.name), size)).save(file)


def mixmim(*arguments) -> tuple[int, str, str]:
    """Run the command line in this process: exit status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ['mixmim', *map(str, arguments)]
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as exit:
        code = exit.code or 0
        if isinstance(code, str):
            print(code, file=err)
            code = 1
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def error_line(*arguments) -> str:
    """The one line of a command that fails before training."""
    code, out, err = mixmim(*arguments)
    assert code == 1, out + err
    assert 'Training' not in out
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and 'Traceback' not in err
    return lines[0]


def check_predictions(run, folder) -> str:
    """Predict the validation images of a run, of which it knows the accuracy.

    Args:
        run: A run of finetune.
        folder: Where the list of the images and the predictions go.

    Returns:
        What the command prints.
    """
    lines = (run / 'val.txt').read_text().splitlines()
    files, labels = zip(*(line.rsplit(' ', 1) for line in lines), strict=True)
    (folder / 'val-files.txt').write_text('\n'.join(files))
    out = folder / 'val.csv'
    options = ['--from', run, '--out', out]
    code, printed, err = mixmim('predict', folder / 'val-files.txt', *options)
    assert code == 0, printed + err
    with out.open(newline='') as table:
        rows = list(csv.DictReader(table))
    known = json.loads((run / 'mistakes.json').read_text())
    classes = known['classes']
    assert list(rows[0]) == ['path', 'class', 'score', *(f'score_{x}' for x in classes)]
    assert [row['path'] for row in rows] == list(files)
    confusion = np.zeros((len(classes), len(classes)), int)
    for row, label in zip(rows, labels, strict=True):
        scores = [float(row[f'score_{name}']) for name in classes]
        assert sum(scores) == pytest.approx(1, abs=1e-4)
        assert row['class'] == classes[int(np.argmax(scores))]
        assert float(row['score']) == max(scores)
        confusion[int(label), classes.index(row['class'])] += 1
    assert confusion.tolist() == known['confusion']
    assert round(100 * confusion.trace() / len(rows), 2) == known['top1']
    given = {row['path']: float(row['score']) for row in rows}
    for each in known['worst']:
        assert given[each['file']] == pytest.approx(each['confidence'], abs=1e-4)
    return printed


@pytest.fixture(scope='package')
def photos(tmp_path_factory):
    """72 small pictures in two folders."""
    folder = tmp_path_factory.mktemp('photos')
    write_pictures(folder / 'sea', 36, ending='jpg')
    write_pictures(folder / 'hills', 36)
    return folder


@pytest.fixture(scope='package')
def pretrained(photos, tmp_path_factory):
    """A run of two epochs, and what the command printed."""
    out = tmp_path_factory.mktemp('runs') / 'first'
    code, printed, err = mixmim('pretrain', photos, '--out', out, '--epochs', 2)
    assert code == 0, printed + err
    return out, printed
