import json
import re
import time

import pytest
from mmengine.runner import Runner

from mmmixmim.engine import ReportHook
from mmmixmim.validation import UserError

from ...scripts import PRETRAIN
from ..conftest import read_config


def make_runner(work_dir, **hook):
    """A runner of two epochs of one iteration, each with a validation."""
    cfg = read_config(PRETRAIN)
    cfg.work_dir = str(work_dir)
    cfg.model.backbone.arch = dict(embed_dims=16, depths=[1, 1, 1], num_heads=[1, 2, 4])
    cfg.train_dataloader.update(
        num_workers=0, persistent_workers=False, num_batch_per_epoch=1, batch_size=8
    )
    cfg.train_cfg.update(max_epochs=2, val_interval=1)
    cfg.val_cfg.max_images = 16
    cfg.custom_hooks = [dict(type='ReportHook', **hook)]
    cfg.experiment_name = work_dir.name  # loggers of the same second are shared
    return Runner.from_cfg(cfg)


def test_the_report_is_written_at_validation_and_at_the_end(tmp_path, monkeypatch):
    before = int(time.time())
    seen = []

    def write(self, runner):
        path = write_before(self, runner)
        text = (tmp_path / 'report.html').read_text()
        seen.append([f'{n} of 2 epochs' in text for n in (1, 2)])
        return path

    write_before = ReportHook._write
    monkeypatch.setattr(ReportHook, '_write', write)
    # The second validation is skipped unless a report may take any share of the time.
    make_runner(tmp_path, max_share=1e9).train()
    assert seen == [[True, False], [False, True], [False, True]]
    assert 'Report of this run' in next(tmp_path.glob('*/*.log')).read_text()
    (path,) = tmp_path.glob('*/vis_data/counts.json')
    counts = json.loads(path.read_text())
    assert counts['held_out'] == 16 and counts['processes'] == 1
    assert counts['iters_per_epoch'] == 1
    assert before <= counts['started'] <= time.time()
    text = re.sub('<[^>]*>|\\n', '', (tmp_path / 'report.html').read_text())
    assert f'Training images{counts["images"]:,}' in text


def test_validations_are_skipped_if_the_report_takes_too_long(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        'mmmixmim.engine.hooks.report.write_report', lambda run: written.append(run)
    )
    make_runner(tmp_path, max_share=1e-12).train()
    assert len(written) == 2  # at the first validation and at the end


def test_a_report_that_cannot_be_written_ends_no_training(tmp_path):
    (tmp_path / 'report.html' / 'x').mkdir(parents=True)
    runner = make_runner(tmp_path)
    runner.train()
    assert runner.iter == 2
    assert 'The report was not written' in next(tmp_path.glob('*/*.log')).read_text()


def test_a_share_that_is_not_positive_is_refused():
    with pytest.raises(UserError, match='max_share must be positive, got 0'):
        ReportHook(max_share=0)
