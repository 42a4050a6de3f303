"""Fixed groups of images, to be mixed with one another in validation."""

from __future__ import annotations

from collections.abc import Sized

from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import UnreadableFileError, check_positive_int


@DATASETS.register_module()
class MixtureGroups(Dataset):
    """Groups of K images of a dataset, the same in every batch, process and run.

    Group j of M holds the images j, j + M, j + 2 * M and so on, which come from distant
    parts of the dataset: neighbours in a folder are often alike. If K does not divide
    the images, up to K - 1 at the end are left out.

    An image that the pipeline gives up, as with ``ignore_empty``, is replaced by the
    next one, not by a random one.

    Args:
        dataset: Config of a dataset, or the dataset. Its samples are packed by
            ``PackInputs``.
        images: Number K of images in a group. Defaults to 2.
        max_images: Take at most so many images, evenly spaced over the dataset.
            Defaults to None: all.
    """

    def __init__(
        self, dataset: dict | Sized, images: int = 2, max_images: int | None = None
    ) -> None:
        check_positive_int('images', images)
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self.images = images
        self.used = len(dataset)
        if max_images is not None:
            check_positive_int('max_images', max_images)
            self.used = min(self.used, max_images)
        self.metainfo = getattr(dataset, 'metainfo', {})

    def __len__(self) -> int:
        return self.used // self.images

    def __getitem__(self, position: int) -> dict:
        """Load a group.

        Returns:
            ``inputs``, K images (C, H, W), and ``data_samples``, a sample with the
            ``position`` and ``members``, the K samples of the dataset.
        """
        if not 0 <= position < len(self):
            raise IndexError(position)
        members = [self._load(position + k * len(self)) for k in range(self.images)]
        sample = DataSample(metainfo=dict(position=position))
        sample.members = [member['data_samples'] for member in members]
        inputs = [member['inputs'] for member in members]
        return dict(inputs=inputs, data_samples=sample)

    def _load(self, number: int) -> dict:
        total = len(self.dataset)
        # MMEngine's datasets return another image, at random, for one that is given up.
        prepare = getattr(self.dataset, 'prepare_data', None)
        prepare = prepare or self.dataset.__getitem__
        start = number * total // self.used
        for shift in range(total):
            member = prepare((start + shift) % total)
            if member is not None:
                return member
        raise UnreadableFileError('None of the held-out images can be read.')
