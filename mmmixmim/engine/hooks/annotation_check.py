"""Check the labels of detection and segmentation data against the config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError

from ..wrappers import unwrapped


@HOOKS.register_module()
class AnnotationCheckHook(Hook):
    """Stop the runner at labels that the config does not define.

    mmdet silently drops annotations of unknown categories. In mmsegmentation the
    loss fails with an error that names neither the value nor the image.

    - Detection: before training, validation and testing, the hook compares the
      categories of the COCO annotation file with the dataset's classes, and the
      number of classes with ``num_classes`` of the RoI heads. It reads each file
      once. Files without annotations, such as COCO's test sets, pass.
    - Segmentation: the hook compares the largest label of each image with
      ``num_classes`` of the decode head.

    Raises:
        UserError: At a mismatch. The message names the file and the category or
            value.
    """

    def __init__(self) -> None:
        self._checked: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Check the annotation files of training and validation."""
        self._check_files(runner, runner.train_dataloader)
        if runner.val_loop is not None:
            self._check_files(runner, runner.val_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Check the annotation files of validation."""
        self._check_files(runner, runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Check the annotation files of testing."""
        self._check_files(runner, runner.test_dataloader)

    def _before_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        mode: str = 'train',
    ) -> None:
        """Check the label maps of a segmentation batch."""
        head = getattr(unwrapped(runner.model), 'decode_head', None)
        if head is None:
            return
        if isinstance(head, nn.ModuleList):  # cascades
            head = head[-1]
        for sample in data_batch['data_samples']:
            if 'gt_sem_seg' not in sample:
                continue
            labels = sample.gt_sem_seg.data
            labels = labels[labels != head.ignore_index]
            if labels.numel() and labels.max() >= head.num_classes:
                raise UserError(
                    f'{sample.seg_map_path} has the label {int(labels.max())} (after '
                    'reduce_zero_label, if set), but the decode head expects 0 to '
                    f'{head.num_classes - 1}: set num_classes of the heads to the '
                    'number of classes, or correct the file.'
                )

    def _check_files(self, runner: Runner, loader: DataLoader) -> None:
        message = None
        for part in _parts(loader.dataset):
            file = str(getattr(part, 'ann_file', ''))
            if not hasattr(part, 'cat_ids') or not file.endswith('.json'):
                continue
            classes = part.metainfo['classes']
            _check_heads(unwrapped(runner.model), classes)
            if file not in self._checked and is_main_process() and not message:
                content = load(file, backend_args=part.backend_args)
                message = _wrong_categories(file, content, classes)
                self._checked.add(file)
        # All processes raise together. Otherwise the others would hang.
        messages = [message]
        broadcast_object_list(messages)
        if messages[0]:
            raise UserError(messages[0])


def _parts(dataset) -> Iterator:
    """Yield the datasets inside wrappers such as Repeat- and ConcatDataset."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _parts(part)
    elif hasattr(dataset, 'dataset'):
        yield from _parts(dataset.dataset)
    else:
        yield dataset


def _check_heads(model: nn.Module, classes: tuple[str, ...]) -> None:
    """Raise unless every RoI head has as many classes as the dataset."""
    for name, head in getattr(model, 'roi_head', nn.Module()).named_modules():
        known = getattr(head, 'num_classes', None)
        if isinstance(known, int) and known != len(classes):
            raise UserError(
                f'roi_head.{name} has {known} classes, but the dataset has '
                f'{len(classes)} ({", ".join(classes[:3])}, ...): set num_classes of '
                f'the heads to {len(classes)}.'
            )


def _wrong_categories(file: str, content: dict, classes: tuple[str, ...]) -> str | None:
    """Describe the first mismatch between COCO's categories and the classes."""
    if not content.get('categories'):
        return (
            f'{file} lists no categories: set ann_file to a COCO instances file, such '
            'as instances_train2017.json.'
        )
    names = {entry['id']: entry['name'] for entry in content['categories']}
    missing = [name for name in classes if name not in names.values()]
    if missing:
        return (
            f'{file} has no category {missing[0]!r}, which is one of the classes in '
            f'the config. It has {", ".join(names.values())}: set metainfo.classes of '
            'the datasets to these names.'
        )
    ids = [each.get('category_id') for each in content.get('annotations') or ()]
    used = Counter(names.get(each, each) for each in ids)
    unknown = [name for name in used if name not in classes]
    if unknown:
        return (
            f'{file} has {used[unknown[0]]} annotations of the category '
            f'{unknown[0]!r}, which is not one of the classes in the config: add it to '
            'metainfo.classes of the datasets and raise num_classes of the heads. To '
            'train without it, remove its annotations from the file or '
            'AnnotationCheckHook from custom_hooks.'
        )
    return None
