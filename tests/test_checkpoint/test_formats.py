"""Formats are found by being in the folder, and all follow one contract."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmmixmim
from mmmixmim.checkpoint import formats
from mmmixmim.checkpoint.formats import FORMATS, detect_entries, detect_format
from mmmixmim.conversion import convert_state_dict

FOLDER = Path(formats.__file__).parent
# A flat format that spells everything in capitals, as one file.
FOURTH = """
def file_key(part):
    return 'NETWORK', {'backbone': 'NET/', 'neck': 'NET/', 'head': 'TOP/'}[part]


def detect(entries):
    return 'PATCH_EMBED.PROJ.WEIGHT' in entries or 'DECODER_NORM.WEIGHT' in entries


def to_native(entries):
    return {name.lower(): value for name, value in entries.items()}


def from_native(entries):
    return {name.upper(): value for name, value in entries.items()}
"""
USE_IT = """
import sys
import torch
from mmengine.runner import load_checkpoint
from mmmixmim.checkpoint import load_encoder, load_whole
from mmmixmim.models import MixMIM

path, back = sys.argv[1:]
ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
backbone = dict(type='MixMIMTransformer', arch=ARCH, img_size=64, window_size=2)
neck = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)
models = [MixMIM(backbone, neck) for _ in range(4)]
wanted = torch.load(back, weights_only=True)['state_dict']
load_whole(models[0], path)
load_checkpoint(models[1], path, strict=True)
load_encoder(models[2].backbone, path)
load_checkpoint(models[3].backbone, path, strict=True)
for i, model in enumerate(models):
    for name, value in model.state_dict().items():
        if i < 2 or name.startswith('backbone.'):
            assert torch.equal(value, wanted[name]), (i, name)
print('loaded')
"""


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_has_the_four_functions(name, make_mixmim):
    module = FORMATS[name]
    assert module.__name__.endswith(f'formats.{name}')
    for function in ('detect', 'to_native', 'from_native', 'file_key'):
        assert getattr(module, function).__doc__
    model = make_mixmim()
    for part in (model.backbone, model.neck):
        entries = dict(part.state_dict())
        theirs = module.from_native(entries)
        assert module.detect(theirs)
        native = module.to_native(theirs)
        assert native.keys() == entries.keys()
        assert all(torch.equal(native[key], entries[key]) for key in entries)
    assert not module.detect({'conv1.weight': torch.ones(1)})


def test_entries_of_parts_are_told_apart(make_mixmim):
    for part in (make_mixmim().backbone, make_mixmim().neck):
        entries = dict(part.state_dict())
        theirs = FORMATS['mmpretrain'].from_native(entries)
        assert detect_entries(theirs) == 'mmpretrain'
        assert detect_entries(entries) == 'mmmixmim'
    assert (
        detect_entries({'ln1.weight': torch.ones(1)}) is None
    )  # of any mmpretrain ViT


@pytest.mark.parametrize('buffer', ['layers.0.blocks.1.attn_mask', 'x.logit_scale'])
def test_swin_transformers_are_not_taken_for_the_authors(make_mixmim, buffer):
    state = convert_state_dict(make_mixmim().state_dict(), 'authors')
    assert detect_format(state) == 'authors'
    with pytest.raises(ValueError, match='not a MixMIM checkpoint'):
        detect_format(state | {buffer: torch.ones(1)})


def test_unknown_entries_of_any_place_survive_the_translation(make_mixmim):
    """So that whoever loads them can say so."""
    for name in FORMATS:
        state = convert_state_dict(make_mixmim().state_dict(), name)
        native = formats.to_native(state | {'odd.entry': torch.ones(1)}, name)
        assert any(key.endswith('odd.entry') for key in native)


def test_a_fourth_format_is_one_file(make_mixmim, tmp_path):
    """Copied beside the others, it converts and loads everywhere."""
    package = tmp_path / 'mmmixmim'
    source = Path(mmmixmim.__file__).parent
    for path in source.rglob('*.py'):
        link = package / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    (package / 'checkpoint' / 'formats' / 'capitals.py').write_text(FOURTH)
    state = make_mixmim(
        backbone=dict(window_size=2), neck=dict(decoder_depth=1, decoder_num_heads=2)
    ).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'ours.pth')

    def run(*command):
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=os.environ | {'PYTHONPATH': str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    converter = source.parent / 'tools' / 'convert_checkpoint.py'
    run(converter, 'ours.pth', 'theirs.pth', '--to', 'capitals')
    content = torch.load(tmp_path / 'theirs.pth', weights_only=True)
    assert 'NET/DECODER_NORM.WEIGHT' in content['NETWORK']
    output = run(converter, 'theirs.pth', 'back.pth', '--to', 'mmmixmim')
    assert 'format capitals' in output
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert 'loaded' in run('-c', USE_IT, 'theirs.pth', 'back.pth')


def test_files_with_an_underscore_are_no_formats():
    assert importlib.util.find_spec('mmmixmim.checkpoint.formats._common')
    assert set(FORMATS) >= {'authors', 'mmmixmim', 'mmpretrain'}
    assert '_common' not in FORMATS
