"""Every config of detection and segmentation trains and tests its own model."""

import json
import re
import resource
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from mmmixmim.models.meta import meta_device
from mmmixmim.runtime import build_runner
from mmmixmim.synthetic import write_dataset

from .conftest import DENSE_CONFIGS, ROOT

OURS = [path for path in DENSE_CONFIGS if '_mixmim-pre_' not in path.stem]
STOCK = [path for path in DENSE_CONFIGS if path not in OURS]
# Small encoders by the arguments of the stock classes, and their channels.
SMALL = {
    'mmpretrain.SwinTransformer': dict(
        arch=dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    ),
    'mmpretrain.ConvNeXt': dict(
        arch=dict(depths=[1, 1, 2, 1], channels=[32, 64, 128, 256])
    ),
}
SMALL_CHANNELS = [32, 64, 128, 256]
FULL_SIZE = ROOT / 'configs/coco/mask-rcnn_mixmim-base_fpn_32xb2-amp-lsj-100e_coco.py'


def load(path):
    cfg = Config.fromfile(path)
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision takes a GPU
    cfg.model.backbone.init_cfg = None
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.fixture(params=DENSE_CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    return load(request.param)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A dataset of a few images of 128 pixels, also under COCO's categories."""
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('shapes')
    write_dataset(root, dict(train=4, val=2), size=128)
    names = enumerate(CocoDataset.METAINFO['classes'], start=1)
    categories = [dict(id=i, name=name) for i, name in names]
    for split in ('train', 'val'):
        content = json.loads((root / f'annotations/instances_{split}.json').read_text())
        content['categories'] = categories
        (root / f'annotations/coco_{split}.json').write_text(json.dumps(content))
    return root


def shrink(node):
    """Reduce the sizes in a pipeline to about a tenth."""
    if isinstance(node, (list, tuple)):
        for child in node:
            shrink(child)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ('scale', 'crop_size', 'size'):
                node[key] = (160, 96) if key == 'scale' else (96, 96)
            elif key == 'scales':
                node[key] = [(96, 160), (128, 160)]
            else:
                shrink(value)


def use_shapes(cfg, shapes, indices=None):
    """Put the drawn dataset in place of COCO or ADE20K."""
    kind = 'coco' if '_coco' in cfg.filename else 'instances'
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        dataset = loader.dataset.get('dataset', loader.dataset)
        folder = split.replace('test', 'val')
        dataset.update(data_root=str(shapes), indices=indices)
        if cfg.default_scope == 'mmdet':
            dataset.ann_file = f'annotations/{kind}_{folder}.json'
            dataset.data_prefix = dict(img=f'images/{folder}/')
        else:
            dataset.data_prefix = dict(
                img_path=f'images/{folder}', seg_map_path=f'labels/{folder}'
            )
    if cfg.default_scope == 'mmdet':
        truth = str(shapes / 'annotations' / f'{kind}_val.json')
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = truth


def one_iteration(cfg, tmp_path):
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint = None
    for scheduler in cfg.param_scheduler:
        scheduler.update(begin=0, end=10, convert_to_iter_based=False)
        if scheduler.type == 'mmmixmim.WarmupCosineLR':
            scheduler.pop('begin')
    cfg.work_dir = str(tmp_path)
    return Runner.from_cfg(cfg)


def shrink_stock_encoder(cfg):
    """Put a small one in place of a stock encoder, if the config has one."""
    backbone = cfg.model.backbone
    if backbone.type in SMALL:
        backbone.update(SMALL[backbone.type])
        if cfg.default_scope == 'mmdet':
            cfg.model.neck.in_channels = SMALL_CHANNELS
        else:
            cfg.model.decode_head.in_channels = SMALL_CHANNELS
            cfg.model.auxiliary_head.in_channels = SMALL_CHANNELS[2]


@pytest.mark.slow
def test_trains_and_tests(cfg, shapes, tmp_path):
    """One real iteration, and a validation, of the config's own model.

    Stock encoders are small ones.
    """
    use_shapes(cfg, shapes, indices=2)
    shrink_stock_encoder(cfg)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        shrink(loader.dataset.get('dataset', loader.dataset).pipeline)
    shrink(cfg.model.data_preprocessor)
    if cfg.default_scope == 'mmseg':
        cfg.model.test_cfg.update(crop_size=(96, 96), stride=(64, 64))
        for head in ('decode_head', 'auxiliary_head'):
            if head in cfg.model:
                cfg.model[head].norm_cfg.type = 'BN'
    else:
        # An untrained detector is sure of nothing. Few boxes take little time.
        cfg.model.test_cfg.rpn.max_per_img = 50
        cfg.model.test_cfg.rcnn.update(score_thr=0, max_per_img=10)
        rcnn = cfg.model.train_cfg.rcnn  # a list for a cascade
        for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
            stage.sampler.num = 32
    runner = one_iteration(cfg, tmp_path)
    backbone = runner.model.backbone
    kind = cfg.model.backbone.type.split('.')[1]
    assert type(backbone).__name__ == kind
    gradients = []
    first = next(p for p in backbone.parameters() if p.ndim == 4)
    first.register_hook(gradients.append)
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert 0 < scalars['train/loss'].current() < 100
    (gradient,) = gradients
    assert gradient.isfinite().all() and gradient.any()

    metrics = runner.test()
    if cfg.default_scope == 'mmdet':
        assert 'val/coco/segm_mAP' in scalars
        assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= metrics.keys()
    else:
        assert 'val/mIoU' in scalars and 0 <= metrics['mIoU'] <= 100


@pytest.mark.parametrize('pattern', ['mask-rcnn*', '*upernet*'])
def test_broken_image_is_replaced(pattern, shapes, tmp_path):
    (path,) = (ROOT / 'configs' / 'shapes').glob(f'{pattern}.py')
    cfg = load(path)
    shutil.copytree(shapes, tmp_path / 'shapes')
    use_shapes(cfg, tmp_path / 'shapes')
    broken, *_ = sorted((tmp_path / 'shapes' / 'images' / 'train').iterdir())
    broken.write_bytes(b'not an image')
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    cfg.default_hooks.unreadable_images = dict(max_share=0.25)
    cfg.train_cfg = dict(type='mmmixmim.ResumableEpochLoop', max_epochs=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.work_dir, cfg.launcher = str(tmp_path / 'run'), 'none'
    build_runner(cfg).train()
    listed = (tmp_path / 'run' / 'unreadable_images.txt').read_text()
    assert listed == f'{broken}\tit is no image, or is damaged\n'


@pytest.mark.slow
@pytest.mark.parametrize('pattern', ['mask-rcnn*', '*upernet*'])
def test_trains_in_low_precision(pattern, shapes, tmp_path):
    """Autocast to bfloat16, which a CPU has too, though not for mmcv's NMS."""
    (path,) = (ROOT / 'configs' / 'shapes').glob(f'{pattern}.py')
    cfg = load(path)
    use_shapes(cfg, shapes, indices=2)
    model = one_iteration(cfg, tmp_path).model
    data = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
    data = model.data_preprocessor(data, training=True)
    losses = {}
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            if cfg.default_scope == 'mmdet':
                maps = model.extract_feat(data['inputs'])
                loss = torch.stack(
                    [each.float().square().mean() for each in maps]
                ).sum()
            else:
                loss, _ = model.parse_losses(model(**data, mode='loss'))
        model.zero_grad()
        loss.backward()
        gradient = model.backbone.layers[0].blocks[0].attn.qkv.weight.grad
        assert gradient.isfinite().all() and gradient.any()
        losses[enabled] = loss.item()
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_segmentation_of_images_of_any_size(mode):
    """By sliding windows and at once, on the base model of ADE20K."""
    cfg = load(
        ROOT / 'configs/ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
    )
    cfg.model.test_cfg = dict(mode=mode, crop_size=(96, 96), stride=(64, 64))
    for head in ('decode_head', 'auxiliary_head'):
        cfg.model[head].norm_cfg.type = 'BN'
    model = MODELS.build(cfg.model).eval()
    from mmseg.structures import SegDataSample

    meta = dict(img_shape=(101, 150), ori_shape=(202, 300), pad_shape=(101, 150))
    data = dict(
        inputs=[torch.randint(0, 256, (3, 101, 150), dtype=torch.uint8)],
        data_samples=[SegDataSample(metainfo=meta | dict(flip=False))],
    )
    with torch.no_grad():
        (result,) = model.test_step(data)
    assert result.pred_sem_seg.data.shape == (1, 202, 300)
    assert result.seg_logits.data.isfinite().all()


@pytest.mark.slow
def test_segmentation_with_test_time_augmentation(shapes, tmp_path):
    """As mmseg's script does it with --tta."""
    cfg = load(
        ROOT / 'configs/ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
    )
    cfg.model.backbone.arch = dict(
        embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]
    )
    cfg.model.decode_head.in_channels = [16, 32, 64, 128]
    cfg.model.auxiliary_head.in_channels = 64
    cfg.model.test_cfg.update(crop_size=(96, 96), stride=(64, 64))
    use_shapes(cfg, shapes, indices=2)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = cfg.tta_model | dict(module=cfg.model)
    cfg.work_dir = str(tmp_path)
    assert 0 <= Runner.from_cfg(cfg).test()['mIoU'] <= 100


@pytest.mark.slow
@pytest.mark.parametrize('pattern', ['mask-rcnn*', '*upernet*'])
@pytest.mark.parametrize('encoder', SMALL)
def test_small_stock_encoder_learns_the_shapes(pattern, encoder, shapes, tmp_path):
    """In the models for the drawn shapes, as the recipes put it into larger ones."""
    (path,) = (ROOT / 'configs' / 'shapes').glob(f'{pattern}.py')
    (recipe, *_) = [
        p for p in STOCK if Config.fromfile(p).model.backbone.type == encoder
    ]
    cfg = load(path)
    backbone = load(recipe).model.backbone
    arch = {
        k: v[:3] if isinstance(v, list) else v
        for k, v in SMALL[encoder]['arch'].items()
    }
    backbone.update(arch=arch, out_indices=(0, 1, 2), drop_path_rate=0.0)
    cfg.model.backbone = backbone
    use_shapes(cfg, shapes)
    if encoder.endswith('ConvNeXt'):  # whose layers have numbers with four stages only
        for name in ('constructor', 'paramwise_cfg'):
            cfg.optim_wrapper.pop(name, None)
    cfg.train_dataloader.update(
        batch_size=4, sampler=dict(type='InfiniteSampler', shuffle=True)
    )
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = []
    runner = one_iteration(cfg, tmp_path)
    runner.train_loop._max_iters = 12
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 12
    assert losses[-3:].sum() < 0.8 * losses[:3].sum()


@pytest.mark.parametrize('cfg', OURS, ids=lambda path: path.stem, indirect=True)
def test_layer_decay_reaches_the_backbone_and_not_the_heads(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scale = {
        parameter: group['lr_scale']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    rate = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    blocks = sum(len(stage.blocks) for stage in model.backbone.layers)
    named = {n: scale[p] for n, p in model.named_parameters() if p.requires_grad}
    assert named['backbone.patch_embed.proj.weight'] == pytest.approx(
        rate ** (blocks + 1)
    )
    last = [name for name in named if name.startswith('backbone.norm.')]
    assert all(named[name] == pytest.approx(rate) for name in last)
    new = re.compile(r'(?!backbone\.)|backbone\.norm\d')
    heads = {n: s for n, s in named.items() if new.match(n)}
    maps = len(model.backbone.layers)
    assert {f'backbone.norm{i}.bias' for i in range(maps - 1)} < set(heads)
    assert heads and all(value == 1 for value in heads.values())
    assert len(named) == len(scale)


@pytest.mark.parametrize('cfg', STOCK, ids=lambda path: path.stem, indirect=True)
def test_layer_decay_numbers_the_layers_of_stock_encoders(cfg):
    """From the patch embedding to the last norm, which has the base rate's decay."""
    with meta_device():
        model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    scale = {
        parameter: group['lr_scale']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    named = {n: scale[p] for n, p in model.named_parameters() if p.requires_grad}
    heads = [value for n, value in named.items() if not n.startswith('backbone.')]
    assert heads and set(heads) == {1}
    encoder = [value for n, value in named.items() if n.startswith('backbone.')]
    rate = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    # Swin has a layer per block, ConvNeXt 12 groups of blocks.
    layers = 24 if 'swin' in cfg.filename else 12
    assert min(encoder) == pytest.approx(rate ** (layers + 1))
    assert next(iter(named.values())) == min(encoder)


def test_checkpoints_are_whole_and_plain(cfg):
    """Also with the scripts of mmdet and mmsegmentation, which add no hook."""
    hooks = {hook.type for hook in cfg.default_hooks.values()}
    assert {'mmmixmim.SafeCheckpointHook', 'mmmixmim.PlainCheckpointHook'} <= hooks


def test_name_tells_batch_and_precision(cfg):
    name = cfg.filename.rsplit('/', 1)[-1]
    assert f'xb{cfg.train_dataloader.batch_size}-' in name
    original = Config.fromfile(cfg.filename).optim_wrapper.type
    assert ('-amp-' in name) == (original == 'AmpOptimWrapper')


@pytest.mark.parametrize(
    'cfg',
    [p for p in OURS if 'lsj' in p.stem or 'ade20k' in p.stem],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_windows_divide_the_maps(cfg):
    """What the headers promise of LSJ and of ADE20K."""
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model).backbone
    for i, stage in enumerate(backbone.layers):
        sides = [side // 2**i for side in backbone.map_size]
        assert all(a % b == 0 for a, b in zip(sides, stage.window, strict=True))


@pytest.mark.slow
def test_base_mask_rcnn_at_full_size(shapes, tmp_path):
    """A training iteration on an image of 1024 pixels, within 24 GiB."""
    cfg = load(FULL_SIZE)
    use_shapes(cfg, shapes, indices=1)
    cfg.train_dataloader.batch_size = 1
    cfg.train_dataloader.dataset.dataset.pipeline[2].ratio_range = (1, 1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = one_iteration(cfg, tmp_path)
    runner.train()
    assert runner.message_hub.get_scalar('train/loss').current() > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 24 * 2**20
