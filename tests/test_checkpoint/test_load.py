import pytest
import torch

from mmmixmim.checkpoint import load_whole, write_weights
from mmmixmim.conversion import convert_state_dict
from mmmixmim.registry import MODELS


@pytest.mark.parametrize('format', ['authors', 'mmpretrain', 'mmmixmim'])
def test_loads_a_model_of_any_format(make_mixmim, tmp_path, format):
    source = make_mixmim()
    weights = convert_state_dict(source.state_dict(), format)
    write_weights(weights, tmp_path / 'weights.pth', format)
    whole = make_mixmim()
    load_whole(whole, tmp_path / 'weights.pth')
    for name, value in source.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name


def test_resizes_to_the_size_of_the_model(make_mixmim, tmp_path):
    source = make_mixmim()
    write_weights(source.state_dict(), tmp_path / 'weights.pth', 'mmmixmim')
    found, wanted = (
        make_mixmim(backbone=dict(img_size=96, window_size=[12, 12, 6, 3]))
        for _ in range(2)
    )
    load_whole(found, tmp_path / 'weights.pth')
    wanted.load_state_dict(source.state_dict())
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_refuses_a_checkpoint_that_does_not_fit(make_mixmim, tmp_path):
    write_weights(make_mixmim().state_dict(), tmp_path / 'weights.pth', 'mmmixmim')
    wider = make_mixmim(neck=dict(decoder_embed_dims=64))
    with pytest.raises(ValueError, match=r'does not fit .*MixMIM: .* first of \d+'):
        load_whole(wider, tmp_path / 'weights.pth')


def test_refuses_another_arch(make_mixmim, tmp_path):
    write_weights(make_mixmim().state_dict(), tmp_path / 'weights.pth', 'mmmixmim')
    arch = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    with pytest.raises(ValueError, match=r'another arch.*\(1, 256, 16\) there and'):
        load_whole(make_mixmim(backbone=dict(arch=arch)), tmp_path / 'weights.pth')


def test_linear_probe_of_ours(tiny_arch, tmp_path):
    """Its neck has entries that no other format has."""
    neck = [
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=128),
    ]
    backbone = dict(type='MixMIMTransformer', arch=tiny_arch)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=128)
    cfg = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    with MODELS.switch_scope_and_registry('mmmixmim') as registry:
        source, target = registry.build(cfg), registry.build(cfg)
    torch.nn.init.normal_(source.neck[1].bn.running_mean)
    write_weights(source.state_dict(), tmp_path / 'probe.pth', 'mmmixmim')
    load_whole(target, tmp_path / 'probe.pth')
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name
