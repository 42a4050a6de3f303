"""tools/convert_checkpoint.py on real files."""

import re

import pytest
import timm
import torch

from ..scripts import call, error_line, passed, run

TOOL = 'convert_checkpoint.py'


def state_of(path, key='state_dict'):
    return torch.load(path, weights_only=True)[key]


@pytest.fixture(scope='module')
def theirs(pretraining, tmp_path_factory):
    """A pretraining checkpoint in the authors' format, and the script's output."""
    tmp_path = tmp_path_factory.mktemp('theirs')
    path, pretrained = tmp_path / 'theirs.pth', pretraining[0] / 'epoch_1.pth'
    return path, passed(run(TOOL, pretrained, path, '--to', 'authors', cwd=tmp_path))


def test_conversion_says_what_it_did(theirs):
    path, output = theirs
    assert re.search(r'pretraining model, [\d,]+ parameters, .*mmmixmim', output)
    assert re.search(r'added 6 index', output) and 'patch merging' not in output
    assert 'meta.epoch' in output
    assert 'mask_token' in state_of(path, 'model')


def test_converting_back_restores_every_bit(theirs, pretrained, tmp_path):
    back = tmp_path / 'back.pth'
    output = passed(call(TOOL, theirs[0], back, cwd=tmp_path))
    assert re.search('left out 6 index', output)
    before = torch.load(pretrained, weights_only=False)['state_dict']
    after = state_of(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    output = passed(call(TOOL, back, 'mm.pth', '--to', 'mmpretrain', cwd=tmp_path))
    assert 'patch merging' in output
    passed(call(TOOL, 'mm.pth', 'again.pth', cwd=tmp_path))
    again = state_of(tmp_path / 'again.pth')
    assert again.keys() == after.keys()
    assert all(torch.equal(again[name], after[name]) for name in after)


@pytest.mark.parametrize(
    'meta, kept',
    [
        (dict(dataset_meta=dict(classes=('cat', 'dog'))), True),
        (dict(dataset_meta=dict(size=torch.Size([1]), other=torch.ones(1))), False),
        (None, False),
    ],
)
def test_names_of_classes_are_kept(pretrained, tmp_path, meta, kept):
    weights = torch.load(pretrained, weights_only=False)['state_dict']
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'named.pth')
    output = passed(call(TOOL, 'named.pth', 'back.pth', cwd=tmp_path))
    content = torch.load(tmp_path / 'back.pth', weights_only=True)
    assert content.get('meta') == (meta if kept else None)
    assert ('meta.dataset_meta' in output) == (not kept and meta is not None)


def test_mistakes_end_in_one_line(theirs, tmp_path):
    path = theirs[0]
    before = path.read_bytes()
    for source, target, message in (
        (path, tmp_path, str(tmp_path)),
        (path, path, 'theirs.pth is the source'),
        (__file__, 'new.pth', 'test_convert_checkpoint.py'),
        ('nowhere.pth', 'new.pth', 'nowhere.pth'),
    ):
        assert message in error_line(call(TOOL, source, target, cwd=tmp_path))
    assert path.read_bytes() == before and not (tmp_path / 'new.pth').exists()


def test_export_to_timm(tmp_path):
    from mmpretrain.models import SwinTransformer

    arch = dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)
    encoder = SwinTransformer(arch, img_size=64, window_size=2)
    encoder.eval()
    state = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    state |= {'neck.mask_token': torch.ones(1)}
    torch.save(dict(state_dict=state, meta=dict(epoch=1)), tmp_path / 'swin.pth')
    line = error_line(call(TOOL, 'swin.pth', 'no.pth', '--to', 'authors', cwd=tmp_path))
    assert 'another encoder than MixMIMTransformer' in line and '--to timm' in line
    options = ['--to', 'timm']
    output = passed(call(TOOL, 'swin.pth', 'new/timm.pth', *options, cwd=tmp_path))
    count = sum(each.numel() for each in encoder.parameters())
    assert f'new/timm.pth: encoder of {count:,} parameters' in output
    assert 'left out 1 entries: neck.mask_token' in output

    model = timm.create_model(
        'swin_tiny_patch4_window7_224',
        num_classes=0,
        checkpoint_path=str(tmp_path / 'new' / 'timm.pth'),
        img_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
    )
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = encoder(images)[-1].mean((2, 3))
        assert torch.allclose(model.eval()(images), wanted, atol=1e-5)


def test_our_encoder_has_no_class_in_timm(pretrained, tmp_path):
    result = call(TOOL, pretrained, 'timm.pth', '--to', 'timm', cwd=tmp_path)
    assert 'timm, which has no MixMIMTransformer' in error_line(result)
    assert not (tmp_path / 'timm.pth').exists()
