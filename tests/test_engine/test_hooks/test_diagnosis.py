"""What the log says of real runs."""

import numpy as np
import pytest
from mmengine.runner import Runner

from mmmixmim.engine import DiagnosisHook
from mmmixmim.evaluation import diagnose, read_history
from mmmixmim.evaluation.history import judged_history
from mmmixmim.visualization.report.run import read_run

from ...scripts import CLASSIFY
from ...watched_run import config, log, train
from ..conftest import read_config

HOOK = [dict(type='DiagnosisHook', interval=2, points=1)]


def diagnosed(work_dir, **options):
    cfg = config(work_dir, custom_hooks=HOOK)
    cfg.train_cfg.max_epochs = 4
    cfg.train_dataloader.num_batch_per_epoch = 6
    cfg.param_scheduler = []
    del cfg.default_hooks['non_finite']  # it would stop the run first
    cfg.merge_from_dict(options)
    train(cfg)
    return [
        line
        for line in log(work_dir).splitlines()
        if 'ERROR' in line or 'WARNING' in line
    ]


def test_a_healthy_run_has_no_warning(tmp_path):
    lines = diagnosed(tmp_path)
    assert not [line for line in lines if 'eatures' in line or 'oss' in line]


def test_collapse_is_said_before_the_end(tmp_path):
    """All images look the same to the encoder."""
    lines = diagnosed(tmp_path, **{'model.data_preprocessor.std': [1e9]})
    said = [line for line in lines if 'Features collapsed' in line]
    assert 'ERROR' in said[0]
    text = log(tmp_path)
    assert text.index('Features collapsed') < text.index('Epoch(train) [2]')
    # Once when it appears, and once at the end.
    assert len(said) == 2


def test_a_loss_that_is_not_finite_is_said_between_validations(tmp_path):
    lines = diagnosed(
        tmp_path,
        **{'optim_wrapper.optimizer.lr': 1e30, 'train_cfg.val_interval': 4},
    )
    assert any('not finite' in line and 'ERROR' in line for line in lines)
    text = log(tmp_path)
    assert text.index('not finite') < text.index('Epoch(val)')


def test_a_validation_alone_works(tmp_path):
    cfg = config(tmp_path, custom_hooks=HOOK)
    assert 'reconstruction/loss' in Runner.from_cfg(cfg).val()


def test_a_resumed_run_goes_on_with_its_curves(tmp_path):
    cfg = config(tmp_path, custom_hooks=HOOK)
    runner = train(cfg)
    cfg = config(tmp_path, custom_hooks=HOOK)
    cfg.train_cfg.max_epochs = 3
    cfg.resume = True
    runner = train(cfg)
    (hook,) = [h for h in runner.hooks if type(h).__name__ == 'DiagnosisHook']
    assert [step for step, _ in hook.history['reconstruction/loss']] == [2, 4, 6]
    assert [step for step, _ in hook.history['loss']] == pytest.approx(range(1, 7))
    assert [epoch for _, epoch in hook.history['epoch']] == [1, 1, 2, 2, 3, 3]


def test_a_run_resumed_with_other_batches_keeps_its_epochs(tmp_path):
    hooks = [*HOOK, dict(type='ReportHook')]
    train(config(tmp_path, custom_hooks=hooks))
    cfg = config(tmp_path, custom_hooks=hooks)
    cfg.train_cfg.max_epochs = 3
    cfg.train_dataloader.num_batch_per_epoch = 4
    cfg.resume = True
    runner = train(cfg)
    (hook,) = [h for h in runner.hooks if type(h).__name__ == 'DiagnosisHook']
    assert [step for step, _ in hook.history['reconstruction/loss']] == [4, 8, 12]
    found = read_history(tmp_path)
    # The checkpoint was written before the validation of its epoch, which runs again.
    assert [step for step, _ in found['reconstruction/loss']] == [4, 8, 8, 12]
    assert [step for step, _ in found['loss']] == [2, 4, 6, 8, 9, 10, 11, 12]


def test_log_and_report_have_the_same_verdicts(tmp_path):
    """Although the log has a single value of the loss for each epoch."""
    cfg = config(tmp_path, custom_hooks=[dict(type='DiagnosisHook')])
    cfg.train_cfg.max_epochs = 3
    cfg.train_dataloader.num_batch_per_epoch = 5
    cfg.default_hooks.logger.interval = 100
    runner = train(cfg)
    (hook,) = [h for h in runner.hooks if isinstance(h, DiagnosisHook)]
    said = diagnose(hook.history, hook.mean_loss, hook.mask_ratio)
    assert said[0].message in log(tmp_path)
    assert read_run(tmp_path).findings == said
    (curves,) = tmp_path.glob('*/vis_data/curves.json')
    judged = judged_history(curves.parents[1], read_history(tmp_path))
    assert {name: judged[name] for name in hook.history} == hook.history
    # It goes on where the curves of the last validation end.
    with curves.with_name('scalars.json').open('a') as file:
        for step in (20, 30):
            file.write(f'{{"loss": NaN, "iter": {step}, "step": {step}}}\n')
    assert [each.kind for each in read_run(tmp_path).findings] == ['not-finite']
    curves.unlink()  # as of an older version
    history = read_history(tmp_path)
    assert judged_history(curves.parents[1], history) == history


def test_a_run_of_few_iterations_has_begun(tmp_path):
    cfg = config(tmp_path, custom_hooks=[dict(type='DiagnosisHook', points=100)])
    cfg.train_cfg.max_epochs = 1
    train(cfg)
    assert 'No training yet' not in log(tmp_path)


def test_a_classifier_is_no_pretraining(tmp_path):
    hook = DiagnosisHook()
    hook.before_train(Runner.from_cfg(config(tmp_path)))
    assert hook.pretraining
    cfg = read_config(CLASSIFY)
    cfg.work_dir = str(tmp_path)
    hook.before_train(Runner.from_cfg(cfg))
    assert not hook.pretraining


def test_a_long_curve_keeps_its_start_and_its_newest_point_and_stays_even():
    hook, steps = DiagnosisHook(), range(10, 375_010, 10)
    loss = [(step, 0.5 + np.exp(-step / 1e4)) for step in steps]
    for point in loss:
        hook._note('loss', *point)
        assert hook.history['loss'][-1] == point
    kept = [step for step, _ in hook.history['loss']]
    assert kept[0] == 10 and 1000 <= len(kept) <= 2000
    gaps = np.diff(kept)
    assert gaps[:-1].min() == gaps[:-1].max() >= gaps[-1]
    # The log agrees with the report, which has all points.
    assert [each.kind for each in diagnose(hook.history)] == ['healthy']
    assert [each.kind for each in diagnose(dict(loss=loss))] == ['healthy']
