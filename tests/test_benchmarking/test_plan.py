"""Plans of tiny models: memory against a real step, and the arithmetic of a run."""

import dataclasses
import math

import pytest
import torch
from mmengine.config import Config

from mmmixmim.benchmarking import (
    CARDS,
    batch_in_name,
    find_card,
    plan,
    plan_report,
    step_cost,
)
from mmmixmim.benchmarking.plan import _part, training_images
from mmmixmim.registry import MODELS
from mmmixmim.runtime import passes_of_step
from mmmixmim.validation import UserError
from tests.conftest import ROOT

ARCH = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])

TINY = dict(
    default_scope='mmmixmim',
    model=dict(
        type='MixMIM',
        backbone=dict(type='MixMIMTransformer', arch=ARCH, img_size=64),
        neck=dict(
            type='MixMIMPretrainDecoder',
            decoder_embed_dims=32,
            decoder_depth=1,
            decoder_num_heads=2,
        ),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127], std=[57]),
    ),
    train_dataloader=dict(batch_size=8, dataset=dict(type='ImageFolder')),
    optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16'),
    train_cfg=dict(max_epochs=10),
)


@pytest.fixture
def cfg():
    return Config(TINY)


def test_recomputation_trades_memory_for_kernels(cfg):
    none, norms, blocks = (
        step_cost(cfg, 8, precision='bf16', recompute=mode)
        for mode in ('none', 'norms', 'blocks')
    )
    activations = [each.memory['activations'] for each in (none, norms, blocks)]
    assert activations[0] > 1.05 * activations[1] > 1.1 * activations[2]
    kernels = [each.kernels['backward'].total() for each in (none, norms, blocks)]
    assert kernels[0].number < kernels[1].number < kernels[2].number
    assert kernels[0].flops == kernels[1].flops < kernels[2].flops
    assert none.flops == blocks.flops


def test_frozen_parts_have_no_backward_pass(cfg):
    trained = step_cost(cfg, 8, precision='bf16')
    cfg.merge_from_dict({'model.backbone.frozen_stages': 1})
    frozen = step_cost(cfg, 8, precision='bf16')
    assert frozen.trained < trained.trained
    forward, backward = (
        frozen.kernels[name].total().flops for name in ('forward', 'backward')
    )
    assert frozen.flops == (forward + backward) / 8 < trained.flops


def test_weights_and_states_are_those_of_the_model(cfg):
    cost = step_cost(cfg, 8)
    model = MODELS.build(cfg.model)
    assert cost.parameters == sum(each.numel() for each in model.parameters())
    frozen = sum(each.numel() for each in model.parameters() if not each.requires_grad)
    assert cost.trained == cost.parameters - frozen
    assert cost.memory['weights'] == pytest.approx(4 * cost.parameters, rel=1e-3)
    assert cost.memory['optimizer'] == pytest.approx(8 * cost.trained, rel=1e-2)


def test_predicted_activations_are_those_that_autograd_stores(cfg):
    """What a real forward pass saves for its backward pass, counted by hooks."""
    cost = step_cost(cfg, 8, gpu=False)
    model = MODELS.build(cfg.model).train()
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
        model.loss(torch.rand(8, 3, 64, 64))
    assert cost.memory['activations'] == pytest.approx(sum(saved.values()), rel=0.25)


def test_a_run_on_several_gpus(cfg):
    card = find_card('100,1,16')
    found = plan(cfg, card, [1, 2, 16], total_batch=32, images=3200)
    runs = {(run.gpus, run.strategy): run for run in found.runs}
    assert list(runs) == [
        *((1, 'DDP'), (2, 'DDP'), (2, 'FSDP'), (16, 'DDP'), (16, 'FSDP'))
    ]
    one, two, many = (runs[number, 'DDP'] for number in (1, 2, 16))
    assert (one.batch, two.batch, many.batch) == (32, 16, 2)
    assert one.traffic == 0 and one.hidden is None
    assert two.traffic == 4 * found.cost.trained
    assert many.seconds < two.seconds < one.seconds
    for run in found.runs:
        assert run.recompute == 'none'
        assert run.epoch == pytest.approx(100 * run.seconds)
        assert run.hours == pytest.approx(10 * run.epoch / 3600)
        assert run.images_per_second == pytest.approx(32 / run.seconds)
    assert found.checkpoint == 4 * (found.cost.parameters + 2 * found.cost.trained)
    text = plan_report(found, card, 'tiny')
    assert '| 16 | DDP | none | 1 x 2 |' in text and '3,200 training images' in text
    assert 'fewer than 8 images per pass' in text


def test_fsdp_gathers_weights_twice_and_scatters_gradients_once(cfg):
    found = plan(cfg, find_card('100,1,16'), [4], 32, recompute=['none'])
    ddp, fsdp = found.runs
    weights, gradients = (
        size * numel * 3 / 4  # the parts of the other GPUs
        for size, numel in ((2, found.cost.parameters), (4, found.cost.trained))
    )
    assert ddp.traffic == 2 * gradients
    assert fsdp.traffic == 2 * weights + gradients
    assert fsdp.peak < ddp.peak
    updating = found.cost.kernels['optimizer'].seconds(find_card('100,1,16'))
    assert ddp.seconds - fsdp.seconds == pytest.approx(updating * 3 / 4)
    full, _ = plan(cfg, find_card('100,1,16'), [4], 32, precision='fp32').runs[::-1]
    assert full.traffic == 4 * weights + gradients


def test_passes_of_the_config_count(cfg):
    """MMEngine counts an iteration per pass."""
    cfg.optim_wrapper.accumulative_counts = 4
    cfg.train_cfg = dict(max_iters=400)
    (run,) = plan(cfg, CARDS['a10'], [1], recompute=['none']).runs
    assert run.batch == 32
    assert run.hours == pytest.approx(100 * run.seconds / 3600)


def test_slow_links_make_gpus_wait(cfg):
    fast, slow, network = (
        plan(
            cfg,
            find_card(f'100,1,16,{link}'),
            [16],
            64,
            network=network,
            recompute=['none'],
        ).runs
        for link, network in ((300, 300e9), (0.1, 300e9), (300, 0.1e9 / 8))
    )
    (limited, _) = plan(cfg, find_card('100,1,16,0.1'), [16], 64).runs
    assert limited.recompute == 'none'
    for quick, late, later in zip(fast, slow, network, strict=True):
        assert quick.hidden == 1 and late.hidden == later.hidden < 0.5
        waiting = (1 - late.hidden) * late.traffic / 0.1e9
        assert late.seconds - quick.seconds == pytest.approx(waiting)


def test_loaders_feed_machines_of_eight(cfg):
    (one, *_), (two, *_) = (
        plan(
            cfg,
            find_card('100,1,16'),
            [n],
            64,
            images_per_core=1000,
            recompute=['none'],
        ).runs
        for n in (8, 16)
    )
    assert one.cores == math.ceil(one.images_per_second / 1000)
    assert two.cores == math.ceil(two.images_per_second / 2000)


def test_precisions_are_compared(cfg):
    found = plan(cfg, CARDS['a10'], [2], precision=['bf16', 'fp32'], recompute=['none'])
    bf16, _, fp32, _ = found.memory
    assert (bf16.precision, fp32.precision) == ('bf16', 'fp32')
    assert bf16.peak < fp32.peak
    assert found.precision == 'bf16'
    one = plan(cfg, CARDS['a10'], [1], precision='fp32', recompute=['none'])
    assert [(each.strategy, each.precision) for each in one.memory] == [('DDP', 'fp32')]
    assert found.runs[0].peak < fp32.peak


def test_a_batch_that_does_not_fit_is_accumulated(cfg):
    cost = step_cost(cfg, 8, precision='bf16', recompute='none')
    small = dataclasses.replace(CARDS['a10'], memory=cost.peak / 0.9 * 1.2)
    (run,) = plan(cfg, small, [1], total_batch=64, recompute=['none']).runs
    assert run.accumulate == 8
    assert run.peak <= 0.9 * small.memory


def test_what_fits_with_fsdp_alone_is_said(cfg):
    cfg.model.backbone.arch = dict(embed_dims=64, depths=[2, 8, 2], num_heads=[2, 4, 8])
    cost = step_cost(cfg, 1, precision='bf16', recompute='blocks')
    states = cost.memory['weights'] + cost.memory['optimizer']
    small = dataclasses.replace(CARDS['a10'], memory=states / 0.9)
    found = plan(cfg, small, [4], total_batch=8, recompute=['blocks'])
    assert [run.strategy for run in found.runs] == ['FSDP']
    assert 'DDP does not fit on 4 GPUs.' in plan_report(found, small, 'tiny')
    both = plan(cfg, small, [1, 4], total_batch=8, recompute=['blocks'])
    assert [(run.gpus, run.strategy) for run in both.runs] == [(4, 'FSDP')]
    assert 'DDP does not fit on one GPU.' in plan_report(both, small, 'tiny')


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(gpus=[64]), '64 GPUs are more than the 32 images'),
        (dict(gpus=[5]), '5 GPUs do not divide the 32 images'),
        (dict(gpus=[0]), 'gpus must be a positive int'),
        (dict(images_per_core=0), 'images_per_core must be a positive number'),
        (dict(card=find_card('100,1,0.000001')), 'Not even a batch of 2 fits'),
        (dict(gpus=[32]), 'With 32 GPUs each gets 1 of the images of a step, which'),
        (dict(card=CARDS['v100']), 'v100 does not compute in bf16: use --precision'),
    ],
)
def test_what_cannot_be_planned_is_refused(cfg, options, message):
    options = dict(card=CARDS['h100'], total_batch=32, recompute=['none']) | options
    with pytest.raises(UserError, match=message):
        plan(cfg, **options)


def test_the_batch_of_all_gpus_stands_in_the_name():
    path = ROOT / 'configs/mixmim/mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py'
    assert batch_in_name(path) == 2048 and path.exists()
    assert batch_in_name('mine.py') is None


@pytest.mark.parametrize(
    'path, packages',
    [
        ('digits/mixmim_swin-tiny_1xb64-coslr-40e_digits.py', ()),
        ('digits/mixmim_convnext-v2-tiny_1xb64-coslr-40e_digits.py', ()),
        ('digits/mixmim_hivit-tiny_1xb64-coslr-40e_digits.py', ()),
        ('digits/mixmim_pvt-tiny_1xb64-coslr-40e_digits.py', ('mmdet',)),
        ('shapes/mixmim-tiny_upernet_1xb8-24e_shapes.py', ('mmseg', 'mmcv.ops')),
    ],
)
def test_other_models_are_counted(path, packages):
    for name in packages:
        pytest.importorskip(name)
    cfg = Config.fromfile(ROOT / 'configs' / path)
    cost = step_cost(cfg, 2, (64, 64) if 'shapes' in path else None, 'bf16', 'none')
    assert cost.kernels['backward'].total().flops > 0 < cost.memory['activations']
    assert cost.memory['weights'] == pytest.approx(4 * cost.parameters, rel=0.02)
    assert 0 < cost.outside < cost.parameters
    assert 0 < cost.largest_block < cost.parameters


def test_a_detector_runs_on_real_tensors():
    pytest.importorskip('mmdet')
    pytest.importorskip('mmcv.ops')
    name = 'configs/shapes/mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes.py'
    cfg = Config.fromfile(ROOT / name)
    one, two = (step_cost(cfg, n, (64, 64), 'fp16', 'none') for n in (1, 2))
    assert one.memory['weights'] == pytest.approx(4 * one.parameters, rel=1e-2)
    assert two.memory['activations'] > 1.2 * one.memory['activations']
    one, two = (each.kernels['forward'].total().flops for each in (one, two))
    assert two > one > 0


def test_fsdp_divides_the_weights_as_pytorch_does(cfg):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group(
        'fake', store=FakeStore(), rank=0, world_size=4
    )
    try:
        model = MODELS.build(cfg.model)
        fully_shard(model, mesh=init_device_mesh('cpu', (4,)))
        # It cuts the first dimension.
        cut = [each for each in model.parameters() if each.shape[0] % 4 == 0]
        local = sum(each.to_local().nbytes for each in cut)
        whole = sum(4 * each.numel() for each in cut)
    finally:
        torch.distributed.destroy_process_group()
    two, four = (
        plan(cfg, CARDS['a10'], [n], total_batch=32, recompute=['none']) for n in (2, 4)
    )
    assert local == whole / 4 and whole > 0.5 * two.cost.memory['weights']
    saved = two.memory[1].peak - four.memory[1].peak
    fixed = two.cost.memory['weights'] + two.cost.memory['optimizer']
    assert saved == pytest.approx(fixed / 4, rel=0.05)


@pytest.mark.parametrize(
    'path, images',
    [
        ('mixmim/mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py', 1_281_167),
        ('mixmim/benchmarks/mixmim-base_8xb128-amp-coslr-100e_inat2018.py', 437_513),
        ('mixmim/benchmarks/mixmim-base_8xb128-amp-coslr-100e_inat2019.py', 265_213),
        ('coco/mask-rcnn_mixmim-base_fpn_32xb2-amp-lsj-100e_coco.py', 4 * 117_266),
        ('digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py', None),
        ('shapes/mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes.py', None),
    ],
)
def test_images_of_known_datasets(path, images):
    assert training_images(Config.fromfile(ROOT / 'configs' / path)) == images


@pytest.mark.parametrize(
    'dataset, part',
    [
        (dict(type='ImageNet'), dict(ann_file='meta/few.txt')),
        (dict(type='ImageNet'), dict(split='val')),
        (
            dict(type='CocoDataset', ann_file='annotations/instances_train2017.json'),
            dict(ann_file='annotations/instances_minitrain2017.json'),
        ),
        (
            dict(type='CustomDataset', data_root='data/places365_standard/train'),
            dict(data_root='data/places365_challenge/train'),
        ),
    ],
)
def test_images_of_a_part_or_another_dataset_are_not_known(dataset, part):
    def images(**options):
        loader = dict(dataset=dict(dataset, **options))
        return training_images(Config(dict(train_dataloader=loader)))

    assert images() and images(**part) is None


def test_passes_of_a_step_mix_whole_groups():
    sizes = [
        step_cost(Config(TINY | dict(model=TINY['model'] | options)), 6).mixture_size
        for options in ({}, dict(num_images=3), dict(filling='mask_token'))
    ]
    assert sizes == [2, 3, 1]
    # 40 images fit. 32 cannot be mixed 3 by 3.
    assert [_part(96, 40, each) for each in sizes] == [32, 24, 32]
    assert [_part(96, 1, each) for each in sizes] == [None, None, 1]
    assert _part(33, 11, 2) == 11


def test_deepspeed_accumulates_by_itself():
    strategy = dict(type='DeepSpeedStrategy', gradient_accumulation_steps=4)
    wrapper = dict(accumulative_counts=2)
    assert passes_of_step(Config(dict(strategy=strategy))) == 4
    assert passes_of_step(Config(dict(optim_wrapper=wrapper, strategy=None))) == 2


def test_the_largest_batch_follows_from_few_images_too(cfg):
    """With two images the peak comes when all gradients are there."""
    cfg.model.backbone.arch = dict(embed_dims=256, depths=[1, 1], num_heads=[8, 8])
    largest = []
    for batch in (2, 64):
        cfg.train_dataloader.batch_size = batch
        found = plan(cfg, find_card('a10'), [1])
        largest.append(
            {(each.strategy, each.recompute): each.largest for each in found.memory}
        )
    few, many = largest
    assert few.keys() == many.keys()
    for key in few:  # copies of weights count for each of the few
        assert many[key] / 5 < few[key] < 1.1 * many[key], key
