"""docs/method.md: its numbers are the model's, its links and recipes work."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmmixmim
from mmmixmim.models import MixMIM, TokenOwnership
from mmmixmim.models.layers import WindowLayout

from .conftest import ROOT

DOCS = ROOT / 'docs'
PAGE = (DOCS / 'method.md').read_text()
LINK = re.compile(r'\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)')
PACKAGE = Path(mmmixmim.__file__).parent


def table(*head):
    """Rows of the tables with this head, each a list of cells."""
    start = '| ' + ' | '.join(head) + ' |\n'
    blocks = PAGE.split(start)[1:]
    assert blocks, f'no table {start}'
    return [
        [
            [cell.strip() for cell in line.strip('|').split(' | ')]
            for line in block.partition('\n\n')[0].splitlines()[1:]
        ]
        for block in blocks
    ]


def load(path):
    """Module of a file."""
    name = path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
    return importlib.import_module(name)


def shape_of(value):
    """Shape of a tensor, a mask or the last map, as the page writes it."""
    if isinstance(value, (tuple, list)):
        value = value[-1]
    if isinstance(value, TokenOwnership):
        value = value.mask
    return 'x'.join(map(str, value.shape)) or 'scalar'


@pytest.fixture
def record(monkeypatch):
    """Recorder of calls of the functions that the page names."""
    calls = []

    def watch(name, path):
        module = load(path)
        *owner, function = name.split('.')
        owner = getattr(module, owner[0]) if owner else module
        original = getattr(owner, function)

        def watched(*args, **kwargs):
            out = original(*args, **kwargs)
            given = args if owner is module else args[1:]
            calls.append((name, shape_of(given[0]), shape_of(out)))
            return out

        holders = [owner]
        if owner is module:  # others import it by name
            holders = [m for n, m in sys.modules.items() if n.startswith('mmmixmim')]
        for holder in holders:
            if getattr(holder, function, None) is original:
                monkeypatch.setattr(holder, function, watched)

    tables = table('step', 'function', 'runs', 'in', 'out')
    for name, path in {LINK.search(row[1]).groups() for rows in tables for row in rows}:
        watch(name, path)
    return tables, calls


def test_traced_batch(record):
    """Every row: the function is in the linked file, in this order, so often."""
    tables, calls = record
    with torch.no_grad(), torch.device('meta'):
        MixMIM(dict(type='MixMIMTransformer', arch='base')).loss(
            torch.empty(4, 3, 224, 224)
        )
    assert [len(rows) for rows in tables] == [23, 7]
    for rows in tables:
        rest = iter(calls)
        for _, function, runs, given, out in rows:
            event = (LINK.search(function)[1], given, out)
            assert calls.count(event) == int(runs), event
            assert event in rest, f'{event} comes too late'


def test_stages():
    (rows,) = table(
        'stage', 'map', 'channels', 'heads', 'blocks', 'windows', 'segments by owner'
    )
    with torch.device('meta'):
        model = MixMIM(dict(type='MixMIMTransformer', arch='base'))
        ownership = model.ownership(torch.empty(4, 3, 224, 224))
    assert ownership.grid == (7, 7) and ownership._counts == [25, 24]
    ownership = TokenOwnership.random((7, 7), 24)
    stages = zip(rows, model.backbone.layers, model.backbone.out_channels, strict=True)
    lengths = {}
    for i, (row, stage, channels) in enumerate(stages):
        number, size, width, heads, blocks, windows, split = row
        size = tuple(map(int, size.split('x')))
        assert size == tuple(side // 2**i for side in model.backbone.map_size)
        attention = stage.blocks[0].attn
        assert (int(number), int(width)) == (i + 1, channels)
        assert (int(heads), int(blocks)) == (attention.num_heads, len(stage.blocks))
        whole = WindowLayout(size, stage.window, None, torch.device('cpu'))
        (segment,) = whole.segments
        assert windows == f'{segment.windows} of {"x".join(map(str, stage.window))}'
        layout = WindowLayout(size, stage.window, ownership, torch.device('cpu'))
        lengths[size] = [each.length for each in layout.segments]
        assert sum(lengths[size]) == size[0] * size[1]
        numbers = list(map(int, re.findall(r'\d+', split)))
        if split.startswith('up to'):
            assert segment.windows < len(lengths[size]) <= 2 * segment.windows
            assert numbers[0] == 2 * segment.windows
        else:
            assert numbers == lengths[size]
    pairs = re.search(r'(\d+)² \+ (\d+)² pairs\s+instead of (\d+)²', PAGE)
    assert list(map(int, pairs.groups())) == [*lengths[14, 14], 14 * 14]


def test_links_lead_to_what_they_name():
    for path in re.findall(r'\]\((?!https?:)([^)#]+)', PAGE):
        assert (DOCS / path).exists(), path
    for name, path in LINK.findall(PAGE):
        text = (ROOT / path).read_text()
        owner, *attributes = name.split('.')
        assert re.search(rf'^(class |def |){owner}\b', text, re.MULTILINE), (name, path)
        owner = getattr(load(path), owner)
        for attribute in attributes:  # of the class, or set in its __init__
            declared = rf'^ +(self\.{attribute} = |{attribute}: )'
            assert hasattr(owner, attribute) or re.search(declared, text, re.MULTILINE)


def test_the_switch_runs_as_printed(make_mixmim):
    (code,) = re.findall(r'```python\n(import mmmixmim\.ops.*?)```', PAGE, re.DOTALL)
    names = dict(model=make_mixmim(), images=torch.randn(2, 3, 64, 64))
    exec(code, names)
    assert isinstance(names['loss'], Tensor) and names['loss'].isfinite()


# ------------------------------------------------------------------------------------
# Recipes
# ------------------------------------------------------------------------------------

MODEL = """
import torch
from mmmixmim import ops
from mmmixmim.models import MixMIM

torch.manual_seed(0)
arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
backbone = dict(type='MixMIMTransformer', arch=arch, img_size=64, window_size=2)
model = MixMIM(backbone, dict(decoder_embed_dims=32, decoder_depth=1))
"""
TRAIN = """
images = torch.randn(4, 3, 64, 64)
mask = model.ownership(images)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for _ in range(3):
    optimizer.zero_grad()
    loss = model.loss(images, mask=mask)['loss']
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[2] < losses[1] < losses[0], losses
for name, parameter in model.named_parameters():
    if parameter.requires_grad:
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
with ops.plain():
    plain = model.loss(images, mask=mask)['loss']
torch.testing.assert_close(plain, model.loss(images, mask=mask)['loss'])
"""
COSINE = """
from mmmixmim.models.layers import WindowAttention, WindowLayout

attention = WindowAttention(8, 2, (4, 4)).double()
torch.nn.init.normal_(attention.relative_position_bias_table)
torch.nn.init.uniform_(attention.temperature, 0.1, 1)
layout = WindowLayout((4, 4), (4, 4), None, torch.device('cpu'))
tokens = torch.randn(3, 16, 8).double()
q, k, v = attention.qkv(tokens).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
cosine = torch.cosine_similarity(q.unsqueeze(-2), k.unsqueeze(-3), dim=-1)
(bias,) = layout.biases(attention.relative_position_bias_table)
weights = (cosine / attention.temperature[:, None, None] + bias).softmax(-1)
wanted = attention.proj((weights @ v).transpose(1, 2).flatten(2))
torch.testing.assert_close(attention(tokens, layout), wanted)
with torch.autocast('cpu', torch.bfloat16):
    out = WindowAttention(8, 2, (4, 4))(tokens.float(), layout)
assert out.dtype == torch.bfloat16
"""
RMS = """
norms = [each for each in model.modules() if type(each).__name__ == 'Norm']
assert len(norms) == 18 and all(isinstance(n, torch.nn.RMSNorm) for n in norms)
assert not any(isinstance(each, torch.nn.LayerNorm) for each in model.modules())
"""
FORMAT = """
from mmengine.runner import load_checkpoint
from mmmixmim.checkpoint import load_encoder, load_whole
from mmmixmim.conversion import convert_state_dict

state = model.state_dict()
theirs = convert_state_dict(state, 'our_lab')
assert 'encoder.patch_embed/proj/weight' in theirs
torch.save(dict(weights=theirs), 'theirs.pth')
for load in (load_whole, load_checkpoint):
    fresh = MixMIM(backbone, dict(decoder_embed_dims=32, decoder_depth=1))
    load(fresh, 'theirs.pth')
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, state[name]), name
load_encoder(fresh.backbone, 'theirs.pth')
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package."""
    shutil.copytree(
        PACKAGE,
        tmp_path / 'mmmixmim',
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    return tmp_path / 'mmmixmim'


def section(title):
    return PAGE.partition(f'### {title}\n')[2].partition('\n### ')[0]


def apply_diffs(path, text):
    source = path.read_text()
    for diff in re.findall(r'```diff\n(.*?)```', text, re.DOTALL):
        lines = diff.splitlines(keepends=True)
        old = ''.join(line[1:] for line in lines if line[0] != '+')
        new = ''.join(line[1:] for line in lines if line[0] != '-')
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    assert source != path.read_text()
    path.write_text(source)


def run(package, code):
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=package.parent,
        env=os.environ | {'PYTHONPATH': str(package.parent)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_cosine_attention(package):
    text = section('Cosine attention')
    apply_diffs(package / 'models' / 'layers' / 'attention.py', text)
    run(package, MODEL + TRAIN + COSINE)


def test_another_norm(package):
    apply_diffs(package / 'models' / 'layers' / 'norm.py', section('Another norm'))
    run(package, MODEL + TRAIN + RMS)


def test_a_checkpoint_format(package):
    (code,) = re.findall(
        r'```python\n(.*?)```', section('A checkpoint format'), re.DOTALL
    )
    (package / 'checkpoint' / 'formats' / 'our_lab.py').write_text(code)
    run(package, MODEL + FORMAT)
