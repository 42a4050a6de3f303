"""The figure of docs/method.md, and what it shows."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from PIL import Image

from mmmixmim import ops
from mmmixmim.models import TokenOwnership
from mmmixmim.models.layers import WindowLayout

from ..conftest import ROOT

TOOL = ROOT / 'tools' / 'draw_method.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('draw_method', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_picture(path):
    assert path.stat().st_size < 400_000
    with Image.open(path) as picture:
        assert picture.width == 1200 and 'transparency' not in picture.info
        assert picture.convert('RGBA').getpixel((0, 0)) == (255, 255, 255, 255)


def test_the_figure_is_drawn_the_same_each_time(tool, tmp_path):
    command = [sys.executable, TOOL, '--steps', '2', '--out', 'new/method.png']
    result = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    drawn = tmp_path / 'new' / 'method.png'
    check_picture(drawn)
    tool.draw(2, 3, tmp_path / 'again.png')
    assert (tmp_path / 'again.png').read_bytes() == drawn.read_bytes()


def test_the_figure_of_the_page():
    check_picture(ROOT / 'docs' / 'method.png')


@pytest.mark.parametrize('window', [(4, 4), (8, 8)], ids=['windows', 'one-window'])
def test_seen_tokens_share_window_and_owner(tool, window):
    ownership = TokenOwnership(torch.rand(1, 4, 4) < 0.5)
    owner = ownership.at(8, 8).flatten()
    place = torch.arange(64)
    number = place // 8 // window[0] * 8 + place % 8 // window[1]

    def check():
        layout = WindowLayout((8, 8), window, ownership, torch.device('cpu'))
        for token in range(64):
            wanted = (owner == owner[token]) & (number == number[token])
            seen = tool.seen_tokens(layout, token)
            assert seen.sort().values.tolist() == wanted.nonzero().flatten().tolist()

    check()
    with ops.plain():
        check()
