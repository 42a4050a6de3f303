"""The compiled loss in real runs: one graph, the same losses, also with DDP."""

import json

import pytest
import torch
from mmengine._strategy.deepspeed import MMDeepSpeedEngineWrapper
from mmengine.hooks import Hook
from torch._dynamo.utils import counters

from mmmixmim.engine import CompileLossHook
from mmmixmim.engine.hooks.compile_loss import _with_clear_errors
from mmmixmim.validation import UserError

from ..runs import tiny_pretraining, train


class Recorder(Hook):
    """Save losses and the counters of the compiler."""

    priority = 'VERY_LOW'

    def __init__(self, path):
        self.path = path

    def before_train(self, runner):
        torch._dynamo.reset()
        counters.clear()

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        record = dict(
            losses=runner.message_hub.get_scalar('train/loss').data[0].tolist(),
            graphs=counters['stats'].get('unique_graphs', 0),
            breaks=dict(counters['graph_break']),
            restored='loss' not in vars(model),
        )
        self.path.write_text(json.dumps(record))


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_runs_agree(tmp_path, processes):
    """Two epochs, whose last batch is smaller."""
    records = []
    for compiled in (False, True):
        cfg = tiny_pretraining(tmp_path / f'{compiled}')
        cfg.model.backbone.arch = dict(embed_dims=8, depths=[1], num_heads=[1])
        cfg.model.backbone.drop_path_rate = 0.0
        cfg.model.range_mask_ratio = 0.0
        cfg.train_dataloader.dataset.indices = 20 * processes
        cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=2)
        cfg.param_scheduler = None
        cfg.default_hooks.checkpoint = None
        cfg.custom_hooks = []
        if compiled:
            hook = dict(type='CompileLossHook', backend='aot_eager')
            cfg.custom_hooks.append(hook)
        path = tmp_path / f'{compiled}.json'
        assert train(cfg, (Recorder, path), processes=processes) == 0
        records.append(json.loads(path.read_text()))
    plain, compiled = records
    assert plain['graphs'] == 0 and compiled['graphs'] == 2
    assert not compiled['breaks'] and compiled['restored']
    assert len(plain['losses']) == 6
    assert compiled['losses'] == pytest.approx(plain['losses'], rel=1e-4)


def test_a_break_of_the_graph_is_an_error():
    class Broken(torch.nn.Module):
        def loss(self, x):
            torch._dynamo.graph_break()
            return x * x.sum()

    class Run:
        model = Broken()

    hook = CompileLossHook(backend='eager')
    hook.before_train(Run)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        Run.model.loss(torch.ones(2))
    hook.after_train(Run)
    assert Run.model.loss(torch.ones(2)).sum() == 4


def test_wrappers_that_gather_weights_are_refused():
    class Run:
        model = MMDeepSpeedEngineWrapper(model=torch.nn.Linear(1, 1))

    with pytest.raises(UserError, match='not with MMDeepSpeedEngineWrapper'):
        CompileLossHook().before_train(Run)


def test_a_number_of_hidden_cells_that_varies_is_refused(make_mixmim):
    class Run:
        model = make_mixmim(range_mask_ratio=0.25)

    with pytest.raises(UserError, match='set model.range_mask_ratio=0, got 0.25'):
        CompileLossHook().before_train(Run)


def test_a_batch_that_does_not_fit_gets_the_same_error(make_mixmim):
    model = make_mixmim()
    compiled = _with_clear_errors(
        torch.compile(model.loss, fullgraph=True, backend='eager'), model.loss
    )
    with pytest.raises(UserError, match='72x72 is not divisible by the stride'):
        compiled(torch.ones(2, 3, 72, 72))
    with pytest.raises(UserError, match=r'Expected images of shape \(B, 3, H, W\)'):
        compiled(torch.ones(2, 1, 64, 64))
    torch.compiler.reset()
    assert compiled(torch.ones(1, 3, 64, 64))['loss'].isfinite()
