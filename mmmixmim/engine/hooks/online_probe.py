"""Linear probe and nearest neighbours during pretraining."""

from __future__ import annotations

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset, Subset

from mmmixmim.datasets.subsets import evenly_spaced
from mmmixmim.evaluation import extract_features, knn, linear_probe
from mmmixmim.log import warn
from mmmixmim.registry import DATASETS, HOOKS
from mmmixmim.runtime import kept_random_state
from mmmixmim.runtime.entries import type_name
from mmmixmim.validation import UserError, check_positive_int

from ..held_out_loop import complete_held_out
from ..wrappers import is_sharded, unwrapped
from .class_check import check_class_names

_SHARDED = 'OnlineProbeHook needs the whole model in one process, and it is sharded.'


@HOOKS.register_module()
class OnlineProbeHook(Hook):
    """Add ``probe/top1`` and ``knn/top1`` in percent to what validation measures.

    The encoder's pooled features of plain images are classified by logistic regression
    and by their nearest neighbours. One process does it, and leaves the random state as
    it was. Without labels, with one class, with classes that differ between the
    datasets, or where the model is sharded (FSDP, DeepSpeed), a line says so and
    nothing is measured; images without a label are left out.

    Args:
        train: Config of the labelled dataset that classifiers are fitted to. Defaults
            to None: the training images, with the pipeline of the validation.
        test: Config of the labelled dataset that is scored. Defaults to None: the
            validation images.
        max_images: Take at most so many images of each, evenly spaced. Defaults to
            2,000.
        batch_size: Images that are encoded at a time. Defaults to 64.
        neighbours: Number of neighbours. Defaults to 20.
    """

    priority = 'HIGHEST'  # MMEngine's own hooks then log the figures

    def __init__(
        self,
        train: dict | None = None,
        test: dict | None = None,
        max_images: int = 2000,
        batch_size: int = 64,
        neighbours: int = 20,
    ) -> None:
        check_positive_int('max_images', max_images)
        check_positive_int('batch_size', batch_size)
        check_positive_int('neighbours', neighbours)
        self.train, self.test = train, test
        self.max_images = max_images
        self.batch_size = batch_size
        self.neighbours = neighbours
        self.loaders: list[DataLoader] = []
        self.off = False

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Classify, and add the figures."""
        figures = [{}]
        if is_main_process() and not self.off:
            with kept_random_state():
                figures = [self._measure(runner)]
        broadcast_object_list(figures)
        metrics.update(figures[0])

    def _measure(self, runner: Runner) -> dict[str, float]:
        if is_sharded(runner):
            return self._turn_off(_SHARDED)
        first = not self.loaders
        if first:
            self.loaders = self._build_loaders(runner.cfg)
        if not self.loaders:
            return self._turn_off(
                'OnlineProbeHook needs labelled datasets with a length and a pipeline: '
                'set its arguments train and test.'
            )
        model = unwrapped(runner.model)
        train, test = (extract_features(model, loader) for loader in self.loaders)
        problem = self._problem(train[1], test[1]) if first else None
        if problem:
            return self._turn_off(problem)
        if not np.isfinite(train[0]).all() or not np.isfinite(test[0]).all():
            return {}  # the loss is not finite either, which is said
        figures = {'knn/top1': knn(train, test, self.neighbours)}
        try:
            figures['probe/top1'] = linear_probe(train, test)
        except UserError as error:
            warn(str(error))
        return figures

    def _turn_off(self, problem: str) -> dict[str, float]:
        self.off = True
        warn(f'{problem} Probe and k-NN are off.')
        return {}

    def _build_loaders(self, cfg: dict) -> list[DataLoader]:
        """Loaders of both datasets; none if one is missing, a stream or a wrapper."""
        test = self.test or complete_held_out(cfg.val_dataloader.dataset, cfg)
        train = self.train or cfg.train_dataloader.dataset
        while type_name(train) == 'RepeatDataset':
            train = train['dataset']
        if test is None or (not self.train and 'pipeline' not in train):
            return []
        if not self.train:
            train = {**train, 'pipeline': test['pipeline']}
        collate = FUNCTIONS.get('default_collate')
        loaders = []
        for config in (train, test):
            dataset = DATASETS.build(config)
            if isinstance(dataset, IterableDataset):
                return []
            chosen = evenly_spaced(len(dataset), self.max_images)
            loaders.append(
                DataLoader(Subset(dataset, chosen), self.batch_size, collate_fn=collate)
            )
        return loaders

    def _problem(self, train: np.ndarray, test: np.ndarray) -> str | None:
        """Why the labels don't do, or None. Says if some are missing."""
        for name, labels, loader in zip(
            ('training', 'validation'), (train, test), self.loaders, strict=True
        ):
            images = len(loader.dataset)
            if not len(labels):
                return (
                    f'The {name} images have no labels: OnlineProbeHook needs labelled '
                    'datasets (its arguments train and test).'
                )
            if len(labels) < images:
                warn(
                    f'{len(labels)} of {images} {name} images have a label; the others '
                    'are left out of probe and k-NN.'
                )
        if len(np.unique(train)) < 2:
            return f'All training images are of class {train[0]}.'
        try:
            check_class_names(*(loader.dataset.dataset for loader in self.loaders))
        except UserError as error:
            return str(error)
        return None
