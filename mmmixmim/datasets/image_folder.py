"""Unlabelled images from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser

from mmengine.fileio import isdir
from mmpretrain.datasets import CustomDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError

from .file_list import list_files


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images in a folder and its subfolders, without labels, for pretraining.

    Args:
        data_root: Path of the folder, local or on any MMEngine file backend.
        extensions: File extensions of images, case-insensitive. Defaults to
            :attr:`EXTENSIONS`.
        list_cache: File that keeps the list of images of a local folder for the next
            start. It is written anew if a file has come or gone. Defaults to None: the
            folder is read at each start.
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
        self,
        data_root: str,
        extensions: Sequence[str] = EXTENSIONS,
        list_cache: str | None = None,
        **kwargs,
    ) -> None:
        self.list_cache = list_cache
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
            if self.list_cache:
                found = list_files(self.img_prefix, self.list_cache)
                names = [name for name in found if self.is_valid_file(name)]
                if not names:
                    raise RuntimeError('no images')
                return names
            return super()._find_samples()
        except RuntimeError as error:
            raise MissingFileError(
                f'The folder {self.img_prefix!r} holds no images: no file at any depth '
                f'ends in {", ".join(sorted(self.extensions))}. {hint}'
            ) from error
