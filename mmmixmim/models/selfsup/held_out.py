"""Measure held-out images, the same in every run.

Training mixes whatever images a batch brings, with one mask for all. Here the K images
of a group are mixed with one another, and the mask of a group follows from its position
in the dataset. So neither the rest of the batch nor the random state matters.

A batch of M groups is K tensors (M, C, H, W): tensor k holds image k of each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from mmmixmim.runtime.random_state import kept_random_state

from ..mixing import TokenOwnership, stage_features
from .pixel_weight import blank_unweighted, collect_pixel_weight

if TYPE_CHECKING:
    from .mixmim import MixMIM


def fixed_mixtures(
    model: MixMIM, groups: Sequence[Tensor], positions: Sequence[int]
) -> tuple[Tensor, TokenOwnership]:
    """Put groups into a batch, with a mask for each that its position alone decides.

    Args:
        model: The algorithm.
        groups: K tensors (M, C, H, W).
        positions: Seeds of the M masks.

    Returns:
        The images (K * M, C, H, W) and the ownership of their tokens. With
        ``range_mask_ratio`` the mask ratio is the middle of the range.
    """
    stride = model.backbone.stride
    grid = tuple(side // stride for side in groups[0].shape[2:])
    hidden = model.count_hidden(grid, model.range_mask_ratio / 2)
    masks = [
        TokenOwnership.random(
            grid,
            hidden,
            images=model.num_images,
            generator=torch.Generator().manual_seed(position),
        ).mask
        for position in positions
    ]
    images = _in_one_batch(groups)
    mask = _in_one_batch([torch.cat(masks)] * model.num_images)
    return images, model.ownership(images, mask)


def measure(
    model: MixMIM,
    inputs: Tensor | Sequence[Tensor],
    data_samples: list[DataSample] | None,
) -> list[DataSample]:
    """See :meth:`MixMIM.predict`."""
    grouped = not isinstance(inputs, Tensor)
    if not len(inputs[0] if grouped else inputs):
        return []
    groups = list(inputs) if grouped else _divide(inputs, model.num_images)
    samples = data_samples if grouped else None
    count = len(groups[0])
    positions = range(count) if samples is None else [each.position for each in samples]

    images, ownership = fixed_mixtures(model, groups, positions)
    if grouped:
        weight = _group_weight(groups, samples or ())
    else:
        weight = collect_pixel_weight(data_samples, inputs)
        if weight is not None:
            weight = _in_one_batch(_divide(weight, model.num_images))
    images = blank_unweighted(images, weight)
    with kept_random_state(seed=positions[0]):
        pred = model.encode_decode(images, ownership)
    pred = pred.unflatten(0, (-1, len(images)))  # (passes, K * M, ...)
    features = stage_features(model.backbone, images)

    numbers = torch.arange(len(images), device=images.device)
    partners = [ownership.partner(numbers, k) for k in range(model.num_images)]
    members = torch.stack(partners, dim=1)[:count]  # (M, K)

    def losses(pred: Tensor) -> list[Tensor]:
        return [
            model.compare(
                pred[:, group].flatten(0, 1),
                images[group],
                model.ownership(images[group], ownership.mask[j : j + 1]),
                None if weight is None else weight[group],
            )
            for j, group in enumerate(members)
        ]

    measures = dict(reconstruction_loss=losses(pred))
    if getattr(model.head, 'mean_loss', None) is not None:  # normalised cells: it is 0
        measures['mean_loss'] = losses(torch.zeros_like(pred))
    if not grouped:  # a sample for each image
        for name, each in measures.items():
            measures[name] = [each[i % count] for i in range(len(inputs))]
        members = members.T.flatten()[: len(inputs), None]
    return [
        DataSample(
            **{name: each[i].float() for name, each in measures.items()},
            features=[stage[group] for stage in features],
        )
        for i, group in enumerate(members)
    ]


def _divide(inputs: Tensor, images: int) -> list[Tensor]:
    """Divide a batch into groups; its first images fill the last group."""
    count = -(-len(inputs) // images)
    order = torch.arange(count * images) % len(inputs)
    return list(inputs[order].chunk(images))


def _in_one_batch(groups: Sequence[Tensor]) -> Tensor:
    """Order a batch such that partner k of image i of the first group is in group k."""
    if len(groups) == 2:
        groups = [groups[0], groups[1].flip(0)]
    return torch.cat(list(groups))


def _group_weight(
    groups: Sequence[Tensor], samples: Sequence[DataSample]
) -> Tensor | None:
    """Weights of the pixels, in the order of :func:`_in_one_batch`."""
    members = zip(*(getattr(each, 'members', ()) for each in samples), strict=True)
    weights = [
        collect_pixel_weight(list(each), images)
        for each, images in zip(members, groups, strict=False)
    ]
    if all(weight is None for weight in weights):
        return None
    return _in_one_batch(
        [
            torch.ones_like(images[:, 0]) if weight is None else weight
            for weight, images in zip(weights, groups, strict=True)
        ]
    )
