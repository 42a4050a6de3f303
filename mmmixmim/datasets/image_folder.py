"""Any folder of images, without labels or annotation file."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser

from mmengine.fileio import isdir
from mmpretrain.datasets import CustomDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images below a folder, nested or flat, for pretraining.

    Args:
        data_root: The folder, local or on a backend that mmengine knows.
        extensions: File name endings, in any case, that count as images.
        **kwargs: Arguments of mmpretrain's ``CustomDataset``, as ``pipeline``.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
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
        hint = 'Set it by --cfg-options train_dataloader.dataset.data_root=FOLDER.'
        if not self.img_prefix or not isdir(self.img_prefix):
            raise MissingFileError(
                f'There is no image folder {self.img_prefix!r}. {hint}'
            )
        try:
            return super()._find_samples()
        except RuntimeError as error:
            raise MissingFileError(
                f'The folder {self.img_prefix!r} holds no image: no file in it or '
                f'below ends in {", ".join(sorted(self.extensions))}. {hint}'
            ) from error
