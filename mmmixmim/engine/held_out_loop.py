"""Validation of pretraining on held-out images."""

from __future__ import annotations

import inspect

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, ValLoop, autocast
from mmpretrain.engine.hooks import VisualizationHook
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.datasets import MixtureGroups
from mmmixmim.log import warn
from mmmixmim.registry import DATASETS, LOOPS, MODELS
from mmmixmim.runtime import kept_random_state
from mmmixmim.runtime.entries import is_amp
from mmmixmim.validation import UserError

from .wrappers import unwrapped


@LOOPS.register_module()
class HeldOutLoop(ValLoop):
    """Measure a pretraining model on images that it does not train on.

    It is MMEngine's ``ValLoop``, and

    - groups the images as the model mixes them, see :class:`MixtureGroups`, so that
      figures don't depend on the batch size or the number of processes;
    - leaves the random state as it was, so that a run with validation trains as one
      without, bit by bit;
    - says so once if there are no held-out images, and the training goes on.

    An ``ImageFolder`` or ``WrappedDataset`` with ``part='held_out'`` takes what its
    config leaves out, as ``data_root``, from the dataset of ``train_dataloader``.

    Args:
        runner: The runner.
        dataloader: Config of a dataloader of an ordinary dataset, or a dataloader.
        evaluator: Configs of metrics, or an evaluator.
        fp16: Whether to use autocast, with the type that the training uses, if it
            does. Defaults to None: as the training does.
        max_images: Take at most so many images, evenly spaced. Defaults to None: all.

    Raises:
        UserError: If a ``VisualizationHook`` is to draw the images: it needs labels.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        fp16: bool | None = None,
        max_images: int | None = None,
    ) -> None:
        for hook in runner.hooks:
            if isinstance(hook, VisualizationHook) and hook.enable:
                raise UserError(
                    'VisualizationHook draws predicted classes, which pretraining has '
                    'not: set default_hooks.visualization.enable=False, and add '
                    "dict(type='ReconstructionHook') to custom_hooks instead."
                )
        if isinstance(dataloader, dict):
            dataset = complete_held_out(dataloader['dataset'], runner.cfg)
            dataset = [] if dataset is None else DATASETS.build(dataset)
            dataset = MixtureGroups(dataset, _num_images(runner.model), max_images)
            dataloader = dict(dataloader, dataset=dataset)
        wrapper = runner.cfg.get('optim_wrapper') or {}
        if fp16 is None:
            fp16 = is_amp(wrapper)
        dtype = wrapper.get('dtype')
        self._dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        with kept_random_state():  # samplers draw a seed
            super().__init__(runner, dataloader, evaluator, fp16)
        if not len(self.dataloader.dataset):
            some = getattr(self.dataloader.dataset, 'used', 0)
            few = 'too few held-out images to mix' if some else 'no held-out images'
            warn(
                f'There are {few}, so nothing is measured during the training. '
                'Hold out more (train_dataloader.dataset.held_out), or name '
                'a folder of their own (val_dataloader.dataset.data_root=FOLDER '
                'val_dataloader.dataset.part=train).'
            )

    def run(self) -> dict:
        """Measure, if there are images."""
        if not len(self.dataloader.dataset):
            return {}
        # MMEngine logs the mean of the last ten values of whatever is called loss.
        scalars = self.runner.message_hub.log_scalars
        for name in [each for each in scalars if each.startswith('val/')]:
            del scalars[name]
        dtype = self._dtype if self.fp16 else None
        with kept_random_state(), autocast(dtype=dtype, enabled=self.fp16):
            return super().run()  # MMEngine's inner autocast inherits this dtype


def _num_images(model: nn.Module | dict) -> int:
    """How many images a model mixes with one another, 1 if it mixes none."""
    if isinstance(model, dict):  # FlexibleRunner builds the model later
        kind = model['type']
        kind = MODELS.get(kind) if isinstance(kind, str) else kind
        for each in getattr(kind, '__mro__', ()):
            arguments = inspect.signature(each.__init__).parameters
            if 'num_images' in arguments:
                return model.get('num_images', arguments['num_images'].default)
        return 1
    return getattr(unwrapped(model), 'num_images', 1)


def complete_held_out(dataset: dict, cfg: dict) -> dict | None:
    """Take what the config of held-out images leaves out from the training's.

    Args:
        dataset: Config of a dataset. One without ``part='held_out'`` is returned as it
            is.
        cfg: Config of the run.

    Returns:
        The config; or None if the training's images come from neither, so that none
        can be held out.
    """
    if dataset.get('part') != 'held_out':
        return dataset
    training = dict(cfg['train_dataloader']['dataset'])
    training.pop('indices', None)  # a part of the images that are trained on
    known = {'data_root', 'held_out'} & training.keys()
    return {**training, **dataset} if known else None
