"""Real files of each kind, from a folder to the loss, through MMEngine's runner."""

import math

import cv2
import numpy as np
import pytest
import tifffile
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.datasets import measure_channels, write_shards
from mmmixmim.visualization import draw_reconstruction

from .conftest import ROOT, TINY_ARCH
from .test_datasets.test_readers.test_opening import write_dicom

FOLDER = ROOT / 'configs' / 'folder'
(GREY,) = FOLDER.glob('mixmim_*_folder-grey16.py')
(BANDS,) = FOLDER.glob('mixmim_*_folder-13bands.py')


def scene(channels, seed, low=100, high=10000):
    """Smooth structures, other ones in each channel."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((5, 6, channels)).astype('float32')
    fine = cv2.resize(coarse.reshape(5, 6, -1), (90, 80), interpolation=cv2.INTER_CUBIC)
    return low + (high - low) * np.clip(fine.reshape(80, 90, channels), 0, 1)


def write_grey_png(folder, i):
    cv2.imwrite(str(folder / f'{i}.png'), scene(1, i, high=60000).astype('uint16'))


def write_satellite_tiff(folder, i):
    pixels = scene(13, i).astype('uint16').transpose(2, 0, 1)
    if i % 2:  # the edge of the swath
        pixels[:, :50, :40] = 0
    tifffile.imwrite(
        folder / f'{i}.tif', pixels, tile=(32, 32), compression='zlib',
        planarconfig='separate', photometric='minisblack', predictor=True,
    )  # fmt: skip


def write_pages_with_nan(folder, i):
    pixels = scene(2, i, -30, 5).transpose(2, 0, 1)
    pixels[1, :20] = np.nan
    with tifffile.TiffWriter(folder / f'{i}.tif') as file:
        for page in pixels:
            file.write(page, contiguous=False)


def write_array(folder, i):
    np.savez(folder / f'{i}.npz', scene(64, i).astype('float32'))


def write_scan(folder, i):
    pixels = scene(1, i, -900, 1200).astype('int16')[..., 0].copy()
    write_dicom(folder / f'{i}.dcm', pixels, slope=(2, -5))


def write_masked(folder, i):
    np.save(folder / f'{i}.npy', scene(4, i).astype('uint16'))
    mask = np.full((80, 90), 255, np.uint8)
    mask[i * 5 : i * 5 + 30] = 0
    masks = folder.parent / 'masks'
    masks.mkdir(exist_ok=True)
    Image.fromarray(mask).save(masks / f'{i}.png')


KINDS = {
    'grey16': (GREY, write_grey_png, 1, {}, {}),
    '13bands': (BANDS, write_satellite_tiff, 13, dict(no_data=0), {}),
    'nan': (GREY, write_pages_with_nan, 2, dict(no_data='nan'), {}),
    '64channels': (GREY, write_array, 64, {}, {}),
    'dicom': (GREY, write_scan, 1, {}, {}),
    'masks': (GREY, write_masked, 4, {}, dict(mask_suffix='.png')),
}


def prepare(path, folder, channels, crop, dataset=None):
    """The config for images of a folder, with a small model."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(
        arch=TINY_ARCH, img_size=64, in_channels=channels, window_size=[8, 8, 4, 2]
    )
    cfg.model.neck.update(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=4)
    loader = cfg.train_dataloader
    loader.update(
        batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False
    )
    loader.dataset.pipeline[0].update(scale=64, num_channels=channels, **crop)
    loader.dataset.update(data_root=str(folder), **dataset or {})
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'param_scheduler': [],
            'optim_wrapper.optimizer.lr': 1e-2,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': 1,
            'work_dir': str(folder.parent / 'work'),
        }
    )
    return cfg


def losses(runner):
    history, _ = runner.message_hub.get_scalar('train/loss').data
    return [float(value) for value in history]


@pytest.mark.parametrize('kind', KINDS)
def test_trains_on_files_of_each_kind(tmp_path, kind):
    path, write, channels, crop, dataset = KINDS[kind]
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(4):
        write(folder, i)
    masks = None
    if dataset:
        dataset = dataset | dict(mask_root=str(tmp_path / 'masks'))
        masks = sorted((tmp_path / 'masks').iterdir())
    cfg = prepare(path, folder, channels, crop, dataset)
    found = measure_channels(sorted(folder.iterdir()), crop.get('no_data'), None, masks)
    found.save(tmp_path / 'statistics.json')
    cfg.model.data_preprocessor.statistics = str(tmp_path / 'statistics.json')
    runner = Runner.from_cfg(cfg)
    runner.train()
    curve = losses(runner)
    assert len(curve) == 2 and all(map(math.isfinite, curve))
    weights = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    weight = weights['state_dict']['backbone.patch_embed.proj.weight']
    assert weight.shape[1] == channels and weight.isfinite().all()

    batch = next(iter(runner.train_dataloader))
    weighted = crop or masks
    assert all(('pixel_weight' in s) == bool(weighted) for s in batch['data_samples'])
    inputs = runner.model.data_preprocessor(batch)['inputs']
    assert inputs.isfinite().all() and inputs.abs().max() < 20
    draw_reconstruction(runner.model, batch['inputs'], tmp_path / 'a.png')
    assert np.asarray(Image.open(tmp_path / 'a.png').convert('RGB')).std() > 20


def iteration_based(cfg, dataset):
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    cfg.train_dataloader.sampler = None
    cfg.train_dataloader.dataset = dataset
    cfg.log_processor = dict(by_epoch=False)
    cfg.model.data_preprocessor = dict(
        type='RasterDataPreprocessor', mean=[30000.0], std=[15000.0]
    )


def test_trains_on_shards_and_goes_on_with_the_next_batch(tmp_path):
    """A run resumed at iteration 2 has the third batch of an uninterrupted one."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(8):
        write_grey_png(folder, i)
    write_shards(folder, tmp_path / 'shards', images_per_shard=3)
    curves = []
    for resume in (False, True):
        cfg = prepare(GREY, folder, 1, dict(flip_prob=0, crop_ratio_range=(1, 1)))
        iteration_based(
            cfg,
            dict(
                type='ShardStream',
                shards=str(tmp_path / 'shards'),
                shuffle_buffer=2,
                pipeline=cfg.train_dataloader.dataset.pipeline,
            ),
        )
        if resume:
            cfg.load_from = str(tmp_path / 'work' / 'iter_2.pth')
            cfg.resume = True
        names = []
        runner = Runner.from_cfg(cfg)
        run_iter = runner.train_loop.run_iter

        def spy(batch, names=names, run_iter=run_iter):
            names.append([sample.img_path for sample in batch['data_samples']])
            run_iter(batch)

        runner.train_loop.run_iter = spy
        runner.train()
        curves.append(names)
        assert math.isfinite(losses(runner)[-1])
    assert len(curves[0]) == 3 and curves[1] == curves[0][2:]


def test_trains_on_an_iterable_of_arrays(tmp_path):
    (tmp_path / 'images').mkdir()
    cfg = prepare(GREY, tmp_path / 'images', 1, {})
    iteration_based(cfg, None)
    dataset = dict(
        type='WrappedIterable',
        iterable=lambda: (scene(1, i, high=60000) for i in range(5)),
        pipeline=[dict(type='LoadRasterCrop', scale=64), dict(type='PackInputs')],
    )
    loader = Runner.build_dataloader(dict(cfg.train_dataloader, dataset=dataset))
    runner = Runner(
        model=cfg.model,
        work_dir=cfg.work_dir,
        train_dataloader=loader,
        train_cfg=cfg.train_cfg,
        optim_wrapper=cfg.optim_wrapper,
        default_scope=cfg.default_scope,
        log_processor=cfg.log_processor,
    )
    runner.train()
    assert len(losses(runner)) == 3 and math.isfinite(losses(runner)[-1])
