"""Check the labels of detection and segmentation data against the config's classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import load
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError


@HOOKS.register_module()
class AnnotationCheckHook(Hook):
    """Refuse labels that the config does not know, before they do harm.

    mmdet leaves out annotations of unknown categories without a word, and the
    loss of mmsegmentation ends in an error that names neither value nor image.

    - Detection: before training, validation and testing, the categories of COCO's
      annotation file are compared with the dataset's classes, and these with the
      heads' numbers of classes. The file is read once more for that. Files without
      annotations, as of COCO's test images, are fine.
    - Segmentation: each batch's largest label is compared with the head's number
      of classes.

    Raises:
        ValueError: If they differ, with the category or value and the file.
    """

    def __init__(self) -> None:
        self._checked: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Check the categories of annotation files, those of validation too."""
        self._check_files(runner, runner.train_dataloader)
        if runner.val_loop is not None:
            self._check_files(runner, runner.val_dataloader)

    def before_val(self, runner: Runner) -> None:
        """Check the categories of annotation files."""
        self._check_files(runner, runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Check the categories of annotation files."""
        self._check_files(runner, runner.test_dataloader)

    def _before_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        mode: str = 'train',
    ) -> None:
        """Check the labels of a batch of segmentation."""
        head = getattr(_model(runner), 'decode_head', None)
        if head is None:
            return
        if isinstance(head, nn.ModuleList):  # a cascade
            head = head[-1]
        for sample in data_batch['data_samples']:
            if 'gt_sem_seg' not in sample:
                continue
            labels = sample.gt_sem_seg.data
            labels = labels[labels != head.ignore_index]
            if labels.numel() and labels.max() >= head.num_classes:
                raise UserError(
                    f'{sample.seg_map_path} has the label {int(labels.max())} (after '
                    f'reduce_zero_label, if that is set), and the model knows 0 to '
                    f'{head.num_classes - 1}: set num_classes of its heads to the '
                    'number of classes, or correct the file.'
                )

    def _check_files(self, runner: Runner, loader: DataLoader) -> None:
        message = None
        for part in _parts(loader.dataset):
            file = str(getattr(part, 'ann_file', ''))
            if not hasattr(part, 'cat_ids') or not file.endswith('.json'):
                continue
            classes = part.metainfo['classes']
            _check_heads(_model(runner), classes)
            if file not in self._checked and is_main_process() and not message:
                content = load(file, backend_args=part.backend_args)
                message = _wrong_categories(file, content, classes)
                self._checked.add(file)
        # Raised by all processes, lest the others wait for the first one.
        messages = [message]
        broadcast_object_list(messages)
        if messages[0]:
            raise UserError(messages[0])


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _parts(dataset) -> Iterator:
    """The datasets inside wrappers that repeat or join them."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _parts(part)
    elif hasattr(dataset, 'dataset'):
        yield from _parts(dataset.dataset)
    else:
        yield dataset


def _check_heads(model: nn.Module, classes: tuple[str, ...]) -> None:
    """Refuse heads of a detector for another number of classes than the data's."""
    for name, head in getattr(model, 'roi_head', nn.Module()).named_modules():
        known = getattr(head, 'num_classes', None)
        if isinstance(known, int) and known != len(classes):
            raise UserError(
                f'roi_head.{name} knows {known} classes and the dataset has '
                f'{len(classes)} ({", ".join(classes[:3])}, ...): set num_classes of '
                f'the heads to {len(classes)}.'
            )


def _wrong_categories(file: str, content: dict, classes: tuple[str, ...]) -> str | None:
    """What is wrong with the categories of COCO's JSON, if anything is."""
    if not content.get('categories'):
        return (
            f"{file} lists no categories: a file in the format of COCO's instances is "
            'expected.'
        )
    names = {entry['id']: entry['name'] for entry in content['categories']}
    lacking = [name for name in classes if name not in names.values()]
    if lacking:
        return (
            f'{file} has no category {lacking[0]!r}, which is among the classes of the '
            f'config. It has {", ".join(names.values())}: set metainfo.classes of the '
            'datasets to these names.'
        )
    categories = [each.get('category_id') for each in content.get('annotations') or ()]
    used = Counter(names.get(each, each) for each in categories if each is not None)
    unknown = [name for name in used if name not in classes]
    if unknown:
        return (
            f'{file} has {used[unknown[0]]} annotations of the category '
            f'{unknown[0]!r}, which the config does not know: add it to '
            'metainfo.classes of the datasets and raise num_classes of the heads, or, '
            'to train without it, take the annotations out of the file or '
            'AnnotationCheckHook out of custom_hooks.'
        )
    return None
