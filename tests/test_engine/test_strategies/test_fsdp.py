"""Sharded training; two processes train in ``test_tools/test_distributed.py``."""

import os

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import STRATEGIES, init_default_scope
from mmengine.utils import ManagerMixin
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mmmixmim.engine import CompileLossHook, FSDPStrategy
from mmmixmim.registry import MODELS
from mmmixmim.runtime import build_runner
from mmmixmim.validation import UserError

from ...conftest import ROOT
from ...scripts import free_port
from ..runs import tiny_pretraining

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without'),
    pytest.mark.filterwarnings('ignore:FSDP is switching to use `NO_SHARD`'),
]
OPTIMIZER = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)


@pytest.fixture
def process(monkeypatch):
    """A single process of a distributed run."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    address = f'tcp://127.0.0.1:{free_port()}'
    torch.distributed.init_process_group(
        'gloo', init_method=address, rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def make(tmp_path):
    """Builder of strategies, by the registry."""
    before = {each: dict(each._instance_dict) for each in ManagerMixin.__subclasses__()}

    def build(**options):
        return STRATEGIES.build(
            dict(
                type='mmmixmim.FSDPStrategy',
                work_dir=str(tmp_path),
                env_kwargs=dict(launcher='pytorch', randomness=dict(seed=0)),
                **options,
            )
        )

    yield build
    for each, instances in before.items():
        each._instance_dict.clear()
        each._instance_dict.update(instances)


def prepare(strategy, model):
    strategy.prepare(model, optim_wrapper=OPTIMIZER, dispatch_kwargs={})
    return strategy


def step(strategy):
    loss = strategy.model(torch.ones(2, 3, 64, 64), mode='loss')['loss']
    strategy.optim_wrapper.update_params(loss)


def test_the_scope_finds_it(process, make):
    assert type(make()) is FSDPStrategy


def test_weight_decay_is_that_of_the_whole_model(process, make, make_mixmim):
    """Shards are vectors, which the recipe would not decay."""
    model = make_mixmim()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = [0.05 * (p.ndim > 1) for p in trained]
    groups = prepare(make(), model).optim_wrapper.optimizer.param_groups
    found = [group['weight_decay'] for group in groups for p in group['params']]
    assert sorted(found) == sorted(expected)
    assert set(found) == {0, 0.05}


@pytest.mark.parametrize('kind', ['full', 'local'])
def test_checkpoints_continue(process, make, make_mixmim, kind, tmp_path):
    first = prepare(make(state_dict_cfg=kind), make_mixmim())
    step(first)
    meta = dict(meta=dict(iter=1))
    first.save_checkpoint(str(tmp_path / 'one.pth'), extra_ckpt=meta)

    second = prepare(make(state_dict_cfg=kind), make_mixmim())
    second.resume(str(tmp_path / 'one.pth'))
    torch.manual_seed(1)
    step(first)
    torch.manual_seed(1)
    step(second)
    found, expected = second.model_state_dict(), first.model_state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_gathered_checkpoints_fit_the_plain_model(process, make, make_mixmim, tmp_path):
    """Also where the window of a bias table is not square."""
    options = dict(img_size=(64, 128), window_size=[(8, 4), (8, 4), (4, 2), (2, 1)])
    strategy = prepare(make(), make_mixmim(backbone=options))
    strategy.save_checkpoint(str(tmp_path / 'one.pth'))
    state_dict = torch.load(tmp_path / 'one.pth', weights_only=True)['state_dict']
    plain = make_mixmim(backbone=options | dict(window_size=[(8, 8), 4, 4, 2]))
    plain.load_state_dict(state_dict)
    name = 'backbone.layers.0.blocks.0.attn'
    assert state_dict._metadata[name]['window'] == (8, 4)


def test_shards_of_another_model_are_refused(process, make, make_mixmim):
    strategy = prepare(make(state_dict_cfg='local'), make_mixmim())
    shards = strategy.model_state_dict()
    shards['neck.mask_token'] = shards['neck.mask_token'].flatten()[:5]
    with pytest.raises(UserError, match="as many processes.*'full'"):
        strategy.load_model_state_dict(shards)


def test_gathered_checkpoints_of_another_model_are_refused(process, tmp_path):
    def sharded(**model):
        cfg = tiny_pretraining(tmp_path)
        cfg.merge_from_dict(dict(model=model, runner_type='FlexibleRunner'))
        cfg.strategy = dict(type='mmmixmim.FSDPStrategy')
        cfg.experiment_name = f'{tmp_path} {list(model)}'
        cfg.train_cfg.max_iters = 1
        return cfg

    build_runner(sharded()).train()
    for part, option, message in (
        ('neck', dict(decoder_embed_dims=32), 'is of another model .*neck'),
        ('backbone', dict(frozen_stages=0), 'with the same frozen_stages'),
    ):
        cfg = sharded(**{part: option})
        cfg.update(resume=True, load_from=str(tmp_path / 'iter_1.pth'))
        with pytest.raises(UserError, match=message):
            build_runner(cfg).train()


def test_activations_of_blocks_are_recomputed(process, make, make_mixmim):
    for recomputed, count in ((('TransformerBlock',), 7), ((), 0)):
        model = prepare(make(recomputed=recomputed), make_mixmim()).model
        names = [type(module).__name__ for module in model.modules()]
        assert names.count('CheckpointWrapper') == count


@pytest.mark.slow
@torch._dynamo.config.patch(cache_size_limit=1)  # which the hook raises
def test_blocks_compile_one_by_one(process, make, make_mixmim):
    """For new masks and a smaller batch, under activation checkpointing."""
    arch = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])
    options = dict(arch=arch, window_size=[16, 8], drop_path_rate=0.1)
    losses = []
    for compiled in (False, True):
        strategy = prepare(make(), make_mixmim(backbone=options))
        hook = CompileLossHook(backend='eager')
        if compiled:
            counters.clear()
            hook.before_train(strategy)
        found, graphs = [], []
        for seed, number in enumerate((4, 4, 4, 2)):
            torch.manual_seed(seed)
            loss = strategy.model(torch.randn(number, 3, 64, 64), mode='loss')['loss']
            strategy.optim_wrapper.update_params(loss)
            found.append(loss.item())
            graphs.append(counters['stats']['unique_graphs'])
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(set(losses[0])) == 4
    # Two stages and the decoder; once more for the size of the smaller batch.
    number = 3 if torch.__version__ >= (2, 7) else 5  # 2.6 compiles some twice
    assert graphs[:3] == [number] * 3 and number < graphs[3] <= 2 * number
    assert not counters['graph_break']

    hook.after_train(strategy)
    assert torch._dynamo.config.cache_size_limit == 1
    strategy.model(torch.randn(3, 3, 64, 64), mode='loss')
    assert counters['stats']['unique_graphs'] == graphs[3]


def test_a_model_without_units_is_refused(process, make):
    with pytest.raises(UserError, match='none of TransformerBlock.*strategy.units'):
        prepare(make(), torch.nn.Linear(1, 1))


def test_a_launcher_is_needed(make, make_mixmim, monkeypatch):
    monkeypatch.setattr(FSDPStrategy, '_setup_distributed', lambda *args, **kwargs: 0)
    with pytest.raises(UserError, match='tools/dist_train.sh'):
        prepare(make(), make_mixmim())


def test_the_recipe_computes_in_bfloat16_on_exact_pixels(process, make, make_mixmim):
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'strategies' / 'fsdp.py')
    options = {key: value for key, value in cfg.strategy.items() if key != 'type'}
    strategy = prepare(make(**options), make_mixmim())
    seen = {}
    head = strategy.model.module.head
    compare = head.loss

    def loss(pred, target, mask):
        seen.update(pred=pred.dtype, target=target.dtype)
        return compare(pred, target, mask)

    head.loss = loss
    before = [parameter.clone() for parameter in strategy.model.parameters()]
    step(strategy)
    assert seen == dict(pred=torch.bfloat16, target=torch.float32)
    after = list(strategy.model.parameters())
    assert {parameter.dtype for parameter in after} == {torch.float32}
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


SMALL = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 4])
SWIN = dict(arch=SMALL, img_size=64, window_size=4, pad_small_map=True)
ENCODERS = dict(
    swin=dict(
        type='MixMIMSwinTransformer',
        **SWIN | dict(arch=SMALL | dict(depths=[2, 1, 1, 1])),  # with a shifted window
    ),
    swin_v2=dict(
        type='MixMIMSwinTransformerV2',
        **SWIN | dict(arch=SMALL | dict(extra_norm_every_n_blocks=0)),
    ),
    convnext=dict(
        type='MixMIMConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 16, 32]),
        img_size=64,
    ),
    hivit=dict(
        type='MixMIMHiViT',
        arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=4),
        img_size=64,
    ),
    pvt=dict(
        type='MixMIMPyramidVisionTransformer',
        pretrain_img_size=64,
        embed_dims=8,
        num_layers=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
    ),
)
DECODER = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)


@pytest.mark.parametrize('name', ENCODERS)
def test_blocks_of_stock_encoders_compile(name, process, make):
    """For new masks, which reach them as an ownership or as a mask."""
    if name.startswith('swin') and torch.__version__ < (2, 7):
        pytest.skip("PyTorch 2.6 does not compile mmcv's FFN")
    init_default_scope('mmmixmim')
    neck = dict(type='MixMIMPretrainDecoder', **DECODER)
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = dict(type='mmmixmim.MixMIM', backbone=dict(ENCODERS[name]), neck=neck)
        strategy = prepare(make(experiment_name=f'{name} {compiled}'), model)
        hook = CompileLossHook(backend='eager')
        if compiled:
            counters.clear()
            hook.before_train(strategy)
        found, graphs = [], []
        for seed in range(4):
            torch.manual_seed(seed)
            loss = strategy.model(torch.randn(4, 3, 64, 64), mode='loss')['loss']
            strategy.optim_wrapper.update_params(loss)
            found.append(loss.item())
            graphs.append(counters['stats']['unique_graphs'])
        losses.append(found)
    hook.after_train(strategy)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert graphs[0] == graphs[-1] >= 3 and not counters['graph_break']


@pytest.mark.slow
def test_two_processes_shard_every_encoder_by_its_blocks(tmp_path):
    """Weights are gathered when a block is called, also with mixed images."""
    port = free_port()
    torch.multiprocessing.spawn(_shard, (port, tmp_path), nprocs=2)
    for name in ENCODERS:
        found = torch.load(tmp_path / f'{name}.pt', weights_only=True)
        assert found['float32'] == pytest.approx(found['plain'], rel=1e-5), name
        assert found['units'] >= 6, name
        if name == 'swin_v2':
            assert 'Swin V2 cannot compute' in found['refused']
        else:
            assert found['bfloat16'] == pytest.approx(found['plain'], rel=0.02), name
            assert found['target'] == torch.float32, name


def _shard(rank, port, folder):
    torch.set_num_threads(1)
    init_default_scope('mmmixmim')
    os.environ['LOCAL_RANK'] = str(rank)
    address = f'tcp://127.0.0.1:{port}'
    torch.distributed.init_process_group(
        'gloo', init_method=address, rank=rank, world_size=2
    )
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, encoder in ENCODERS.items():
        found = {}
        for kind in ('plain', 'float32', 'bfloat16'):
            torch.manual_seed(0)
            model = MODELS.build(
                dict(
                    type='mmmixmim.MixMIM',
                    backbone=dict(encoder, drop_path_rate=0.0),
                    neck=dict(type='MixMIMPretrainDecoder', **DECODER),
                )
            )
            model.init_weights()
            seen = _watch_targets(model.head)
            if kind != 'plain':
                config = Config.fromfile(ROOT / 'configs/_base_/strategies/fsdp.py')
                strategy = config.strategy.to_dict() | dict(
                    work_dir=str(folder),
                    experiment_name=f'{name}-{kind}',
                    env_kwargs=dict(launcher='pytorch', randomness=dict(seed=0)),
                )
                if kind == 'float32':
                    strategy.pop('model_wrapper')
                strategy = STRATEGIES.build(strategy)
                try:
                    model = prepare(strategy, model).model
                except UserError as error:
                    found['refused'] = str(error)
                    continue
                found['units'] = len(FSDP.fsdp_modules(model))
            torch.manual_seed(1)
            loss = model(images, mode='loss')['loss']
            loss.backward()
            found[kind], found['target'] = loss.item(), seen[-1]
        if rank == 0:
            torch.save(found, folder / f'{name}.pt')
    torch.distributed.destroy_process_group()


def _watch_targets(head):
    """List the types of the images that targets are made of."""
    seen, construct = [], head.construct_target

    def watched(images, *args):
        seen.append(images.dtype)
        return construct(images, *args)

    head.construct_target = watched
    return seen
