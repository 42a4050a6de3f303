import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmmixmim.evaluation import complexity
from mmmixmim.registry import MODELS

from ..conftest import ROOT

RECIPES = ROOT / 'configs' / 'mixmim' / 'benchmarks'
BATCH = '8xb128-amp-coslr-100e_in1k'


@pytest.mark.parametrize(
    'recipe, published, tolerance',
    [
        # GMACs from the README of the authors' code, rounded.
        (f'mixmim-base_{BATCH}', 16.3, 0.01),
        (f'mixmim-base_{BATCH}-384px', 52.6, 0.01),
        (f'mixmim-large_{BATCH}', 35.9, 0.01),
        (f'mixmim-large_{BATCH}-384px', 112, 0.01),
    ],
)
def test_published_figures(recipe, published, tolerance):
    cfg = Config.fromfile(RECIPES / f'{recipe}.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        images = torch.empty(2, 3, *model.backbone.img_size)
        figures = complexity(model, images, mode='tensor')
    assert figures['total']['macs'] / 1e9 == pytest.approx(published, rel=tolerance)
    assert (
        figures['backbone']['macs'] + figures['head']['macs']
        == (figures['total']['macs'])
    )
    assert figures['total']['parameters'] == sum(p.numel() for p in model.parameters())


def test_figures_equal_the_formula(make_backbone):
    """One stage, one window: all GEMMs of the forward."""
    arch = dict(embed_dims=8, depths=[1], num_heads=[2])
    backbone = make_backbone(arch=arch, img_size=16, window_size=4)
    figures = complexity(backbone, torch.randn(3, 3, 16, 16))
    tokens, dim = 16, 8
    embed = tokens * dim * 3 * 4 * 4
    linear = tokens * (3 * dim * dim + dim * dim + 2 * 4 * dim * dim)
    attention = 2 * tokens * tokens * dim
    assert figures['total']['macs'] == embed + linear + attention


class Detector(nn.Module):
    """Calls submodules of its head, as mmdet does; names share a prefix."""

    def __init__(self):
        super().__init__()
        self.neck = nn.Linear(4, 4, bias=False)
        self.neck2 = nn.Sequential(nn.Linear(4, 5, bias=False))
        self.head = nn.Module()
        self.head.classify = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU())
        self.head.box = nn.Linear(5, 7, bias=False)
        self.unused = nn.Linear(2, 2)
        self.neck.requires_grad_(False)

    def forward(self, x, times=1):
        for _ in range(times):
            x = self.neck(x)
        x = self.neck2(x)
        return self.head.classify(x), self.head.box(x)


@pytest.mark.parametrize('batch', [1, 3])
def test_every_part_has_its_own_figures(batch):
    figures = complexity(Detector(), torch.randn(batch, 4), times=2)
    assert figures == {
        'neck': dict(parameters=16, macs=32),
        'neck2': dict(parameters=20, macs=20),
        'head': dict(parameters=65, macs=65),
        'unused': dict(parameters=6, macs=0),
        'total': dict(parameters=107, macs=117),
    }


def test_mixing_masks_reduce_attention(make_mixmim):
    """In a single window, tokens attend only to tokens of their own image."""
    model = make_mixmim()
    plain = complexity(model.backbone, torch.randn(2, 3, 64, 64))
    mask = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mixed = complexity(model.backbone, torch.randn(2, 3, 64, 64), mask=mask)
    assert mixed['total']['macs'] < plain['total']['macs']
