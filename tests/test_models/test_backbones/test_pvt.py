"""PVT: the stock class without a mixture, no leak with one, an error without mmdet."""

import subprocess
import sys

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models import ImageClassifier
from torch import nn

from mmmixmim.models import MixMIM, MixMIMPyramidVisionTransformer, check_encoder
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from ...conftest import ROOT
from .contract import NECK, check_pretraining, shapes

backbones = pytest.importorskip('mmdet.models.backbones')
PyramidVisionTransformer = backbones.PyramidVisionTransformer

PVT = dict(
    pretrain_img_size=32,
    embed_dims=16,
    num_stages=3,
    num_layers=[1, 2, 1],
    num_heads=[1, 2, 4],
    patch_sizes=[4, 2, 2],
    strides=[4, 2, 2],
    paddings=[0, 0, 0],
    sr_ratios=[4, 2, 1],
    mlp_ratios=[2, 2, 2],
    drop_path_rate=0.0,
)
LAST = dict(out_indices=(2,))  # mmdet's default is all stages


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(use_abs_pos_embed=False, norm_after_stage=True, sr_ratios=[2, 1, 1]),
        dict(pretrain_img_size=(32, 64)),
    ],
    ids=['embedded', 'normalised', 'oblong'],
)
def test_contract(options):
    options = PVT | options
    check_encoder(
        lambda: MixMIMPyramidVisionTransformer(**options),
        lambda: PyramidVisionTransformer(**options | LAST),
    )


@pytest.mark.parametrize(
    'options',
    [dict(num_layers=[2, 2, 2, 2]), {}],  # mmdet's defaults are those of small
    ids=['tiny', 'small'],
)
def test_published_sizes_have_the_stock_parameters(options):
    model = MixMIMPyramidVisionTransformer(**options)
    stock = PyramidVisionTransformer(**options)
    assert isinstance(model, PyramidVisionTransformer)
    assert shapes(model) == shapes(stock)
    assert (model.stride, model.img_size) == (32, (224, 224))
    assert model.out_channels == [64, 128, 320, 512]


def test_pretraining():
    check_pretraining(
        MixMIMPyramidVisionTransformer(**PVT | dict(pretrain_img_size=64))
    )


def test_outputs():
    """The last map by default; of all stages on demand, with and without a mixture."""
    images = torch.rand(2, 3, 32, 48)
    last = MixMIMPyramidVisionTransformer(**PVT)
    model = MixMIMPyramidVisionTransformer(out_indices=[0, 1, 2], **PVT)
    model.load_state_dict(last.state_dict())
    for ownership in (None, MixMIM(last, NECK).ownership(images)):
        (only,), maps = last(images, ownership), model(images, ownership)
        assert [tuple(each.shape) for each in maps] == [
            (2, 16, 8, 12),
            (2, 32, 4, 6),
            (2, 64, 2, 3),
        ]
        assert torch.equal(only, maps[-1])
    with pytest.raises(UserError, match='leave out_indices out'):
        MixMIM(model)


def test_a_classifier_takes_its_maps():
    model = ImageClassifier(
        backbone=MixMIMPyramidVisionTransformer(**PVT),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64),
    )
    assert model(torch.rand(2, 3, 32, 64)).shape == (2, 5)


def test_one_graph_is_compiled():
    """With mmdet's own position embedding every reshape breaks the graph."""
    model = MixMIMPyramidVisionTransformer(**PVT)
    torch.compile(model, backend='eager', fullgraph=True)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(use_conv_ffn=True), 'does not support use_conv_ffn=True: its 3x3'),
        (
            dict(patch_sizes=[7, 3, 3], paddings=[3, 1, 1]),
            r'PVT v2 and MiT: those of patch_sizes\[0\], strides\[0\] and paddings\[0\]'
            r' have the kernel size \(7, 7\), stride \(4, 4\), padding \(3, 3\)',
        ),
        (dict(paddings=[0, 0, 1]), r'patch_sizes\[2\].*padding \(1, 1\)'),
        (dict(sr_ratios=[8, 2, 1]), r'sr_ratios\[0\] must divide the 4 tokens'),
        (dict(sr_ratios=[4, 2, 2]), r'sr_ratios\[2\] must divide the 1 tokens'),
        (dict(sr_ratios=[3, 2, 1]), r'got sr_ratios=\[3, 2, 1\]'),
        (dict(frozen_stages=1), 'cannot freeze stages.*frozen_stages=1: leave it out'),
        (dict(pretrain_img_size='224'), "positive int or .height, width., got '224'"),
    ],
)
def test_what_cannot_be_mixed_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        MixMIMPyramidVisionTransformer(**PVT | options)


def test_pretrained_weights_load_into_the_stock_class(tmp_path):
    """As ``load_from`` of a detector loads them."""
    backbone = dict(type='MixMIMPyramidVisionTransformer', **PVT)
    source = MODELS.build(dict(type='MixMIM', backbone=backbone, neck=NECK))
    source.init_weights()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'pvt.pth')
    model = nn.ModuleDict(dict(backbone=PyramidVisionTransformer(**PVT | LAST)))
    load_checkpoint(model, str(tmp_path / 'pvt.pth'))
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name


WITHOUT = """
import sys
sys.modules[{module!r}] = None
import mmmixmim.models
from mmmixmim.registry import MODELS
from mmmixmim.validation import MissingDependencyError
try:
    MODELS.build(dict(type='MixMIMPyramidVisionTransformer'))
except MissingDependencyError as error:
    print(error)
"""


@pytest.mark.parametrize(
    'module, what, then',
    [
        ('mmdet', 'needs mmdet (', 'Install it with: '),
        ('pycocotools', 'which is installed but cannot be imported: ', 'pycocotools'),
    ],
)
def test_without_mmdet(module, what, then):
    """The models import; building this one names what is missing."""
    result = subprocess.run(
        [sys.executable, '-c', WITHOUT.format(module=module)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    *_, line = result.stdout.splitlines()  # mmcv may print before
    assert line.startswith('MixMIMPyramidVisionTransformer needs ')
    assert what in line and then in line.split(what)[1]
