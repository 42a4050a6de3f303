"""Check that a classifier and its datasets have the same classes."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse a number of classes that is not the dataset's, before any training.

    It also refuses validation data whose classes differ from the training
    data's: in folders without annotation files a missing class would shift the
    labels of those after it. mmpretrain's ``ClassNumCheckHook`` cannot be used
    with label smoothing, whose loss it takes for another classifier.

    Raises:
        ValueError: If the numbers or the names differ, with both.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the training and the validation data."""
        train = runner.train_dataloader.dataset.metainfo.get('classes')
        self._check_count(runner, train)
        if runner.val_loop is None:
            return
        val = runner.val_dataloader.dataset.metainfo.get('classes')
        if train and val and tuple(train) != tuple(val):
            (odd, *_) = sorted(set(train) ^ set(val)) or ['their order']
            raise UserError(
                f'The training data have {len(train)} classes and the validation data '
                f'{len(val)}, not the same ones: {odd!r} differs. Both need a folder '
                'for every class.'
            )

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        classes = runner.test_dataloader.dataset.metainfo.get('classes')
        self._check_count(runner, classes)

    def _check_count(self, runner: Runner, classes: tuple | None) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wanted = model.head.num_classes
        if classes and len(classes) != wanted:
            raise UserError(
                f'The data have {len(classes)} classes ({", ".join(classes[:3])}, ...) '
                f'and the model {wanted}: set model.head.num_classes='
                f'{len(classes)} model.data_preprocessor.num_classes={len(classes)} '
                'by --cfg-options.'
            )
        # mixup makes labels of as many entries as this says
        labels = getattr(model.data_preprocessor, 'num_classes', None)
        if labels is not None and labels != wanted:
            raise UserError(
                f'The head knows {wanted} classes and the data preprocessor {labels}: '
                f'set model.data_preprocessor.num_classes={wanted} by --cfg-options.'
            )
