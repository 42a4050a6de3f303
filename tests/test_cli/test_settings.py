"""The rules by which settings are chosen."""

from dataclasses import replace

import pytest
import torch

from mmmixmim.cli import models, rules, settings
from mmmixmim.cli.machine import Machine, training_cost
from mmmixmim.cli.models import Size, pretraining_model
from mmmixmim.cli.settings import choose_classification, choose_pretraining
from mmmixmim.datasets.scan import Scan
from mmmixmim.registry import MODELS
from mmmixmim.text import rough_duration

GIB = 1024**3
CPU = Machine('cpu', 'CPU', 16 * GIB, cores=4)
GPU = Machine('cuda', 'Card', 80 * GIB, cores=16, bf16=True)
SMALL_GPU = Machine('cuda', 'Card', 24 * GIB, cores=16, bf16=True)


def scan(images: int, side: int, bits: int = 8, channels: int = 3) -> Scan:
    return Scan(
        'data',
        images=images,
        formats=dict(PNG=images),
        channels={channels: images},
        bits={bits: images},
        short_sides=(side, side, side),
        sampled=1,
    )


@pytest.mark.parametrize(
    'images, side, machine, model, size',
    [
        (5000, 500, CPU, 'micro', 96),
        (5000, 28, CPU, 'micro', 32),
        (50_000, 64, GPU, 'micro', 64),
        (5000, 500, GPU, 'tiny', 224),
        (50_000, 500, GPU, 'base', 224),
        (50_000, 130, GPU, 'base', 128),
        (2_000_000, 500, GPU, 'large', 224),
        (2_000_000, 500, SMALL_GPU, 'base', 224),
    ],
)
def test_model_and_size_follow_data_and_machine(images, side, machine, model, size):
    chosen_size, why = rules.image_size(scan(images, side), machine)
    assert chosen_size == size and str(side) in why
    assert rules.model(images, machine, size)[0] == model


def test_batches_that_do_not_fit_are_accumulated():
    given = dict(model='micro', image_size=64)
    tight = Machine('cuda', 'Card', GIB, cores=16, bf16=True)
    chosen, cost = choose_pretraining(scan(200_000, 300), tight, **given)
    assert chosen.batch_size < 1024 == chosen.batch_size * chosen.accumulation
    assert cost.memory(chosen.batch_size) < 0.8 * tight.memory
    roomy, _ = choose_pretraining(scan(200_000, 300), GPU, **given)
    assert roomy.lr == chosen.lr and roomy.batch_size == 1024


@pytest.mark.parametrize(
    'images, epochs, interval',
    [
        (5000, 200, 10),  # 20 times
        (1248, 25, 3),  # 62 of 1,248 images: 2 % of the time
        (100, 40, 10),  # 16 of 100 images, 4 times at least
        (5000, 2, 1),
    ],
)
def test_measuring_takes_little_of_the_time(images, epochs, interval):
    chosen, _ = choose_pretraining(scan(images, 32), CPU, epochs=epochs)
    assert chosen.val_interval == interval


def test_what_is_given_is_taken():
    given = dict(model='micro', epochs=7, lr=0.1, batch_size=4, workers=3)
    chosen, _ = choose_pretraining(scan(1000, 300), CPU, image_size=128, **given)
    assert {name: chosen[name].value for name in given} == given
    assert all(chosen[name].reason == 'as given' for name in given)


def test_images_of_other_kinds_keep_their_channels():
    chosen, _ = choose_pretraining(scan(1000, 128, bits=16, channels=13), CPU)
    assert chosen.in_channels == 13


def test_the_time_is_guessed_on_a_cpu():
    chosen, cost = choose_pretraining(scan(1000, 128), CPU, epochs=100)
    flops = cost.flops * 1000 * 100
    text = settings.time_of_training(chosen, 1000, cost, CPU)
    assert f'about {flops / 20e9 / CPU.cores / 60:.0f} min at 20 GFLOP/s' in text
    assert settings.time_of_training(chosen, 1000, cost, GPU) == ''


def test_loaders_share_the_shards():
    shards = dict(shards=20, first_shard=40)
    few, many = (replace(scan(1000, 32), **shards | x) for x in (dict(shards=3), {}))
    chosen, _ = choose_pretraining(few, GPU)
    assert (chosen.held_out, chosen.workers) == (0, 3)
    chosen, _ = choose_pretraining(many, GPU)
    assert (chosen.held_out, chosen.workers) == (40, 15)
    chosen, _ = choose_pretraining(replace(many, first_shard=15), GPU)
    assert chosen.held_out == 0


def test_batches_of_all_loaders_fit_into_the_shared_memory():
    """Docker gives 64 MiB by default."""
    given = dict(model='micro', image_size=64, batch_size=256)
    for bits, channels, size in ((8, 3, 3), (16, 5, 5 * 4)):
        data, batch = scan(1000, 64, bits, channels), 256 * 64**2 * size
        machine = replace(GPU, shared_memory=11 * batch)
        for chosen, _ in (
            choose_pretraining(data, machine, **given),
            choose_classification(1000, data, machine, None, **given),
        ):
            assert chosen.workers == 2
            told = f'{11 * batch / 2**20:,.0f} MiB of shared memory'
            assert told in chosen['workers'].reason
    for free, shards, expected in (
        (60, None, 15),
        (3, None, 0),
        (11, 3, 2),
        (11, 2, 2),
    ):
        machine = replace(GPU, shared_memory=free)
        assert rules.workers(machine, 1, shards)[0] == expected
    mac = replace(CPU, forks=False)
    assert rules.workers(mac, 1)[0] == 0 < rules.workers(CPU, 1)[0]


def test_layers_decay_only_from_weights():
    known = dict(model='micro', image_size=96, patch_size=4)
    chosen, _ = choose_classification(100, scan(120, 200), CPU, known)
    assert chosen.layer_decay == 0.75 and 'weights' in chosen['model'].reason
    chosen, _ = choose_classification(100, scan(120, 200), CPU, None)
    assert chosen.layer_decay == 1


SMALL = {
    'swin': Size(16, (1, 1, 2), (1, 2, 4), (32, 1, 2), 'swin'),
    'swin-v2': Size(16, (1, 1, 2), (1, 2, 4), (32, 1, 2), 'swin-v2'),
    'convnext': Size(8, (1, 1, 2), (), (32, 1, 2), 'convnext'),
    'convnext-v2': Size(8, (1, 1, 2), (), (32, 1, 2), 'convnext-v2'),
    'hivit': Size(16, (1, 1, 2), (2,), (32, 1, 2), 'hivit'),
    'pvt': Size(8, (1, 1, 1, 1), (1, 2, 5, 8), (32, 1, 2), 'pvt'),
}


@pytest.mark.parametrize('family', SMALL)
def test_every_family_can_be_pretrained(family, monkeypatch):
    if family == 'pvt':
        pytest.importorskip('mmdet.models')
    monkeypatch.setitem(models.SIZES, family, SMALL[family])
    side = 2 * models.stride(family, 4)
    model = pretraining_model(family, side, 4, 5)
    cost = training_cost(model, 5, side)
    assert cost.activations > 0 and cost.flops > 0
    built = MODELS.build(model)
    assert built.backbone.out_channels[-1] == SMALL[family].channels
    # Pretraining has no stochastic depth.
    assert not any(getattr(module, 'drop_prob', 0) for module in built.modules())
    built(torch.rand(2, 5, side, side), mode='loss')['loss'].backward()


def test_the_named_families_are_all_there():
    assert {size.family for size in models.SIZES.values()} == {'mixmim', *SMALL}


def test_costs_grow_as_they_must():
    """Twice the side is four times the pixels and about as much work and memory."""
    small, large = (
        training_cost(pretraining_model('micro', side, 4, 3), 3, side)
        for side in (64, 128)
    )
    assert 3 < large.flops / small.flops < 6
    assert 3 < large.activations / small.activations < 6
    assert large.largest_batch(large.memory(10)) == 10


@pytest.mark.parametrize(
    'minutes, said',
    [
        (0.5, 'less than a minute'),
        (89, 'about 89 min'),
        (150, 'about 2.5 h'),
        (9000 / 4, 'about 38 h'),
        (9000, 'about 6 days'),
    ],
)
def test_times_are_in_units_that_people_use(minutes, said):
    assert rough_duration(minutes) == said
