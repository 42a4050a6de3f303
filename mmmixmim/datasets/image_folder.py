"""Unlabelled images from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser

from mmengine.fileio import isdir
from mmpretrain.datasets import CustomDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images in a folder and its subfolders, without labels, for pretraining.

    Args:
        data_root: Path of the folder, local or on any MMEngine file backend.
        extensions: File extensions of images, case-insensitive. Defaults to
            :attr:`EXTENSIONS`.
        **kwargs: Arguments of mmpretrain's ``CustomDataset``, such as ``pipeline``.

    Raises:
        MissingFileError: If the folder does not exist or holds no images.
    """

    EXTENSIONS = (
        '.jpg',
        '.jpeg',
        '.png',
        '.webp',
        '.bmp',
        '.tif',
        '.tiff',
        '.ppm',
        '.pgm',
    )

    def __init__(
        self, data_root: str, extensions: Sequence[str] = EXTENSIONS, **kwargs
    ) -> None:
        super().__init__(
            data_root=expanduser(data_root),
            with_label=False,
            extensions=extensions,
            **kwargs,
        )

    def _find_samples(self) -> list[str]:
        hint = 'Set it with --cfg-options train_dataloader.dataset.data_root=FOLDER.'
        if not isdir(self.img_prefix):
            raise MissingFileError(
                f'There is no image folder {self.img_prefix!r}. {hint}'
            )
        try:
            return super()._find_samples()
        except RuntimeError as error:
            raise MissingFileError(
                f'The folder {self.img_prefix!r} holds no images: no file at any depth '
                f'ends in {", ".join(sorted(self.extensions))}. {hint}'
            ) from error
