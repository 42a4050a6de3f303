"""The config of docs/images.md runs as it is printed there, and so does mmdet."""

import re

import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.datasets import LoadRasterCrop, measure_channels
from mmmixmim.models import MixMIM, RasterDataPreprocessor
from mmmixmim.synthetic import write_dataset

from .conftest import ROOT

PAGE = (ROOT / 'docs' / 'images.md').read_text()
(CODE,) = re.findall(r"```python\n(_base_ = 'your_config.py'\n.*?)```", PAGE, re.DOTALL)
CONFIGS = {
    'mmseg': 'mixmim-tiny_upernet_1xb8-24e_shapes.py',
    'mmdet': 'mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes.py',
}
ENCODER = Config.fromfile(ROOT / 'configs/_base_/backbones/mixmim_shapes.py').encoder


def write_scene(picture, number):
    """13 bands of 16 bits in place of a JPEG, without data at an edge."""
    pixels = np.asarray(Image.open(picture)).astype('uint16')
    pixels = pixels[..., np.arange(13) % 3] * np.arange(50, 63, dtype='uint16') + 1
    pixels[:20, :30, number % 13] = 0  # in one band, which is enough
    planar = number % 2
    tifffile.imwrite(
        picture.with_suffix('.tif'),
        pixels.transpose(2, 0, 1) if planar else pixels,
        photometric='minisblack',
        planarconfig='separate' if planar else 'contig',
    )
    picture.unlink()


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """Labelled images of 13 bands, their statistics and a pretrained encoder."""
    root = tmp_path_factory.mktemp('bands')
    write_dataset(root / 'data', dict(train=2, val=2), size=96)
    for number, picture in enumerate(sorted(root.rglob('*.jpg'))):
        write_scene(picture, number)
    for path in root.rglob('*.json'):
        path.write_text(path.read_text().replace('.jpg', '.tif'))
    scenes = root / 'work_dirs' / 'scenes'
    images = sorted(root.rglob('*.tif'))
    measure_channels(images, no_data=0).save(scenes / 'statistics.json')
    encoder = dict(ENCODER, type='MixMIMTransformer', in_channels=13)
    neck = dict(decoder_embed_dims=16, decoder_depth=1, decoder_num_heads=2)
    weights = dict(state_dict=MixMIM(backbone=encoder, neck=neck).state_dict())
    torch.save(weights, scenes / 'epoch_300.pth')
    return root


def printed(scope, work, monkeypatch):
    """The config that the page prints, on top of one for RGB images."""
    base = ROOT / 'configs' / 'shapes' / CONFIGS[scope]
    (work / 'your_config.py').write_text(f'_base_ = {str(base)!r}')
    (work / 'bands.py').write_text(CODE.replace('512', '96'))
    monkeypatch.chdir(work)
    cfg = Config.fromfile('bands.py')
    init_default_scope(scope)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = None
    cfg.work_dir = str(work / scope)
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(work / 'data')
    return cfg


def train_and_validate(cfg):
    """One iteration and one validation from the pretrained weights."""
    runner = Runner.from_cfg(cfg)
    model = runner.model
    model.init_weights()
    start = torch.load(cfg.checkpoint, weights_only=True)['state_dict']
    assert start['backbone.patch_embed.proj.weight'].shape[1] == 13
    for name, value in model.backbone.state_dict().items():
        if f'backbone.{name}' in start:
            assert torch.equal(value, start[f'backbone.{name}']), name
    runner.train()
    history, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(history) == 1 and np.isfinite(history).all()
    return runner


def as_in_pretraining(paths, cfg):
    """The whole images, as pretraining's loader and data preprocessor give them."""
    whole = dict(crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1), max_attempts=0)
    load = LoadRasterCrop(scale=96, no_data=0, **whole)
    images = [torch.from_numpy(load(dict(img_path=path))['img']) for path in paths]
    normalise = RasterDataPreprocessor(statistics=cfg.load[1].statistics)
    batch = torch.stack(images).permute(0, 3, 1, 2)
    return normalise(dict(inputs=batch, data_samples=None))['inputs']


def check_inputs(runner, cfg):
    """The model sees in validation what the encoder saw in pretraining."""
    batch = next(iter(runner.val_dataloader))
    data = runner.model.data_preprocessor(batch)
    paths = [sample.img_path for sample in data['data_samples']]
    found, wanted = data['inputs'], as_in_pretraining(paths, cfg)
    assert torch.equal(found, wanted)
    assert (found[:, :, :20, :30] == 0).all() and found.std() > 0.5


def test_mmseg_trains_on_13_bands(work, monkeypatch):
    cfg = printed('mmseg', work, monkeypatch)
    runner = train_and_validate(cfg)
    assert runner.message_hub.get_scalar('val/mIoU').current() >= 0
    check_inputs(runner, cfg)


def test_mmdet_trains_on_13_bands(work, monkeypatch):
    cfg = printed('mmdet', work, monkeypatch)
    cfg.train_dataloader.dataset.pop('img_suffix')
    cfg.val_dataloader.dataset.pop('img_suffix')
    cfg.train_dataloader.dataset.pipeline = [
        *cfg.load,
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    cfg.val_dataloader.dataset.pipeline = [
        *cfg.load,
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs'),
    ]
    cfg.val_evaluator.ann_file = str(work / 'data/annotations/instances_val.json')
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    runner = train_and_validate(cfg)
    check_inputs(runner, cfg)
