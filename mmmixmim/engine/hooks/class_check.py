"""Check the classes of a classifier and its datasets."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmmixmim.log import warn
from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError

from ..wrappers import unwrapped


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Raise before training or testing if model and datasets differ in classes.

    - The head, the data preprocessor and the datasets need the same number of
      classes.
    - The training and validation data need the same class names in the same order.
      Without annotation files, a missing class folder would shift the labels of
      all classes after it.
    - The test data need the labels of the checkpoint's training data for all class
      names that both have. Those that only one has are a warning: they may be
      different names for the same classes.

    mmpretrain's ``ClassNumCheckHook`` does not work with label smoothing: it takes
    the loss for another classifier.

    Raises:
        UserError: At a mismatch. The message gives both sides.
    """

    trained: Sequence[str] = ()  # names of the classes that the model has learnt

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the class names of the training data."""
        meta = checkpoint.get('meta') or {}
        self.trained = _classes(meta.get('dataset_meta'))

    def before_train(self, runner: Runner) -> None:
        """Check the training and validation data."""
        train = runner.train_dataloader.dataset
        self.trained = _classes(train.metainfo)
        self._check_count(runner, self.trained)
        if runner.val_loop is not None:
            check_class_names(train, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        classes = _classes(runner.test_dataloader.dataset.metainfo)
        self._check_count(runner, classes)
        if classes and self.trained:
            self._check_labels(classes)

    def _check_labels(self, classes: Sequence[str]) -> None:
        """Check the classes of the test data against those of the training data."""
        trained, tested = _labels(self.trained), _labels(classes)
        for name in trained.keys() & tested.keys():
            if trained[name].isdisjoint(tested[name]):
                raise UserError(
                    f'Class {name!r} has label {min(tested[name])} in the test data '
                    f'and {min(trained[name])} in the training data of the '
                    'checkpoint: set test_dataloader.dataset.classes to the classes '
                    'of the training data in their order.'
                )
        odd = trained.keys() ^ tested.keys()
        if odd:
            name = min(odd, key=str)
            warn(
                f'Class {name!r} is in only one of the test data and the training data '
                'of the checkpoint. The accuracy is right if they name the same '
                'classes differently.'
            )

    def _check_count(self, runner: Runner, classes: tuple) -> None:
        model = unwrapped(runner.model)
        wanted = model.head.num_classes
        if classes and len(classes) != wanted:
            raise UserError(
                f'The data have {len(classes)} classes ({", ".join(classes[:3])}, ...) '
                f'and the model has {wanted}: set model.head.num_classes='
                f'{len(classes)} model.data_preprocessor.num_classes={len(classes)} '
                'with --cfg-options.'
            )
        # Mixup encodes labels as one-hot vectors of this length.
        labels = getattr(model.data_preprocessor, 'num_classes', None)
        if labels is not None and labels != wanted:
            raise UserError(
                f'The head has {wanted} classes, but the data preprocessor has '
                f'{labels}: set model.data_preprocessor.num_classes={wanted} with '
                '--cfg-options.'
            )


def _classes(metainfo: object) -> tuple:
    classes = metainfo.get('classes') if isinstance(metainfo, dict) else None
    return () if classes is None else tuple(classes)


def _labels(classes: Sequence[str]) -> dict[str, set[int]]:
    """Labels of each class name. ImageNet has two classes of cranes."""
    labels = {}
    for label, name in enumerate(classes):
        labels.setdefault(name, set()).add(label)
    return labels


def check_class_names(train_data: Dataset, val_data: Dataset) -> None:
    """Raise if both datasets name their classes, and number them differently.

    Raises:
        UserError: The message names a class that differs.
    """
    train, val = (
        _classes(getattr(data, 'metainfo', None)) for data in (train_data, val_data)
    )
    if not train or not val:
        return
    if set(train) != set(val):
        odd = min(set(train) ^ set(val))
        raise UserError(
            f'The training data have {len(train)} classes and the validation data '
            f'{len(val)}, but {odd!r} is only in one of them: both need a folder for '
            'every class.'
        )
    if train != val:
        label = next(i for i, name in enumerate(train) if name != val[i])
        raise UserError(
            'The training and validation data have the same classes in another order: '
            f'label {label} is {train[label]!r} in training and {val[label]!r} in '
            'validation. Give `classes` of both datasets in the same order.'
        )
