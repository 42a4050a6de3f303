"""Training by the Runner in float16, with scaled and clipped gradients."""

import pytest

from mmmixmim.runtime import build_runner
from tests.devices import needs_gpu

from .runs import tiny_pretraining

AMP = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')


def train(folder, **changes):
    """The runner and its last loss."""
    cfg = tiny_pretraining(folder)
    optimizer = dict(type='AdamW', lr=1e-3, fused=True)
    cfg.optim_wrapper = AMP | dict(optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    cfg.update(changes)
    runner = build_runner(cfg)
    runner.train()
    return runner, runner.message_hub.get_scalar('train/loss').current()


@needs_gpu
def test_a_run_in_float16_resumes_where_it_stopped(tmp_path):
    whole, loss = train(tmp_path / 'whole')
    saved = str(tmp_path / 'whole' / 'iter_8.pth')
    resumed, continued = train(tmp_path / 'resumed', load_from=saved, resume=True)
    assert resumed.iter == whole.iter == 9
    assert continued == pytest.approx(loss, rel=2e-2)
    scalers = [each.optim_wrapper.loss_scaler.state_dict() for each in (whole, resumed)]
    assert scalers[0] == scalers[1]
    states = [each.optim_wrapper.optimizer.state.values() for each in (whole, resumed)]
    for ours, theirs in zip(*states, strict=True):
        # Steps whose scaled gradients overflow are skipped.
        assert 3 < ours['step'] == theirs['step']
        assert ours['exp_avg'].isfinite().all()
