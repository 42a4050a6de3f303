"""Say in the log what the curves of a pretraining run mean."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.models.selfsup.base import BaseSelfSupervisor

from mmmixmim.evaluation import diagnose, read_history
from mmmixmim.evaluation.history import CURVES
from mmmixmim.registry import HOOKS
from mmmixmim.runtime import replace_file
from mmmixmim.validation import check_positive_int

from ..wrappers import unwrapped

# Of a curve: enough for a verdict, and cheap.
MAX_POINTS = 2000
_LEVELS = dict(info=logging.INFO, warning=logging.WARNING, error=logging.ERROR)


@HOOKS.register_module()
class DiagnosisHook(Hook):
    """Write findings of :func:`~mmmixmim.evaluation.diagnose` to the log.

    It looks at the training loss, the learning rate and what validation measures, after
    each validation and every ``interval`` iterations. A warning or error is written
    when it appears, and again if it has gone and comes back. The end of the training
    repeats what still holds, or that nothing is wrong. Validations and the end save the
    curves for the report, which has the same verdicts.

    Args:
        interval: Iterations between two looks. Defaults to 500.
        points: Iterations that one value of the training loss is averaged over.
            Verdicts take values ten iterations apart. Defaults to 10.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 500, points: int = 10) -> None:
        check_positive_int('interval', interval)
        check_positive_int('points', points)
        self.interval = interval
        self.points = points
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.gaps: dict[str, float] = {}  # between points of long curves
        self.said: set[str] = set()
        self.mean_loss = self.mask_ratio = None
        self.pretraining = True

    def before_train(self, runner: Runner) -> None:
        """Read the curves of a run that is resumed."""
        model = unwrapped(runner.model)
        self.mean_loss = getattr(getattr(model, 'head', None), 'mean_loss', None)
        self.mask_ratio = getattr(model, 'mask_ratio', None)
        self.pretraining = isinstance(model, BaseSelfSupervisor)
        if runner.iter:
            loop = runner.train_loop
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            history = read_history(
                runner.work_dir, len(loop.dataloader) if by_epoch else None
            )
            self.history = {
                name: [point for point in points if point[0] <= runner.iter]
                for name, points in history.items()
            }

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Note loss, learning rate and epoch, and look at times."""
        last = runner.iter + 1 == runner.max_iters and 'loss' not in self.history
        if last or self.every_n_train_iters(runner, self.points):
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                self._note('epoch', runner.iter + 1, runner.epoch + 1)
            scalars = runner.message_hub.log_scalars
            for name in ('loss', 'lr'):
                if f'train/{name}' in scalars:  # not without RuntimeInfoHook
                    value = scalars[f'train/{name}'].mean(self.points)
                    self._note(name, runner.iter + 1, value)
        if self.every_n_train_iters(runner, self.interval):
            self._look()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Note what was measured, and look."""
        for name, value in (metrics or {}).items():
            if isinstance(value, (int, float)):
                self._note(name, runner.iter, value)
        self._look()
        self._save(runner)

    def after_train(self, runner: Runner) -> None:
        """Sum up."""
        self.said.clear()
        self._look(least=logging.INFO)
        self._save(runner)

    @master_only
    def _save(self, runner: Runner) -> None:
        saved = dict(iteration=runner.iter, curves=self.history)
        try:
            replace_file(Path(runner.log_dir, CURVES), json.dumps(saved))
        except OSError as error:  # the report takes what was logged
            runner.logger.warning(f'{CURVES} was not written: {error}')

    def _note(self, name: str, step: int, value: float) -> None:
        curve = self.history.setdefault(name, [])
        gap = self.gaps.get(name, 0)
        again = curve and curve[-1][0] == step  # a validation repeated on resuming
        # The newest point gives way to the next one if it is closer than the gap.
        if again or (len(curve) > 1 and curve[-1][0] - curve[-2][0] < gap):
            curve.pop()
        curve.append((step, float(value)))
        if len(curve) > MAX_POINTS:
            del curve[1:-1:2]
            self.gaps[name] = (step - curve[0][0]) / (len(curve) - 1)

    def _look(self, least: int = logging.WARNING) -> None:
        if not is_main_process():
            return
        findings = diagnose(
            self.history, self.mean_loss, self.mask_ratio, self.pretraining
        )
        for finding in findings:
            level = _LEVELS[finding.severity]
            if finding.title not in self.said and level >= least:
                print_log(f'{finding.title}. {finding.message}', 'current', level)
        self.said = {finding.title for finding in findings}
