"""Unlabelled images from a folder."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from os.path import expanduser

from mmengine.fileio import isdir, list_dir_or_file
from mmpretrain.datasets import CustomDataset

from mmmixmim.log import warn
from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError

from .file_list import list_files


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """All images in a folder and its subfolders, without labels, for pretraining.

    Files and folders whose names start with a dot are left out.

    Some images can be held out from training. Those are the ones whose path below
    ``data_root`` has the smallest SHA-256 hash, so that the choice is the same on every
    machine, looks random, and changes little when images are added. Images that
    resemble each other, as frames of a video, may be on both sides: then name a folder
    of their own for validation.

    Args:
        data_root: Path of the folder, local or on any MMEngine file backend.
        part: 'train', all images but those held out, or 'held_out'. Defaults to
            'train'.
        held_out: How many images are held out: a share below 1, of which at most
            :attr:`MOST` and none if they are fewer than :attr:`LEAST`; or a number.
            Defaults to 0: none.
        extensions: File extensions of images, case-insensitive. Defaults to
            :attr:`EXTENSIONS`.
        list_cache: File that keeps the list of images of a local folder for the next
            start. It is written again if a file has come or gone. Defaults to None: the
            folder is read at each start.
        **kwargs: Arguments of mmpretrain's ``CustomDataset``, such as ``pipeline``.

    Raises:
        MissingFileError: If the folder does not exist or holds no images.
        UserError: If ``part`` is unknown, ``held_out`` is negative or leaves no image
            to train on, or a link leads to a folder above it.
    """

    MOST = 1000
    LEAST = 16

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
        part: str = 'train',
        held_out: int | float = 0,
        list_cache: str | None = None,
        **kwargs,
    ) -> None:
        if part not in ('train', 'held_out'):
            raise UserError(f"part must be 'train' or 'held_out', got {part!r}.")
        whole = isinstance(held_out, int) and not isinstance(held_out, bool)
        if not whole and not (isinstance(held_out, float) and held_out < 1):
            raise UserError(
                'held_out must be a number of images or a share below 1, got '
                f'{held_out!r}.'
            )
        if held_out < 0:
            raise UserError(f'held_out must not be negative, got {held_out}.')
        self.part = part
        self.held_out = held_out
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
        if '://' in self.img_prefix:
            found = list_dir_or_file(self.img_prefix, list_dir=False, recursive=True)
        else:
            found = list_files(self.img_prefix, self.list_cache)
        names = [x for x in found if self.is_valid_file(x) and not _is_hidden(x)]
        if not names:
            raise MissingFileError(
                f'The folder {self.img_prefix!r} holds no images: no file at any depth '
                f'ends in {", ".join(sorted(self.extensions))}. {hint}'
            )
        return sorted(names)

    def load_data_list(self) -> list[dict]:
        """Return the path of each image of the part, sorted."""
        samples = super().load_data_list()
        count = self._count_held_out(len(samples))
        held_out = set(
            heapq.nsmallest(
                count, range(len(samples)), lambda i: self._hash(samples[i])
            )
        )
        chosen = [
            sample
            for i, sample in enumerate(samples)
            if (i in held_out) == (self.part == 'held_out')
        ]
        # MMEngine cannot serialize an empty list.
        self.serialize_data = self.serialize_data and bool(chosen)
        return chosen

    def _count_held_out(self, images: int) -> int:
        if isinstance(self.held_out, int):
            if self.held_out >= images:
                raise UserError(
                    f'held_out={self.held_out} leaves none of the {images} images in '
                    f'{self.img_prefix!r} to train on: choose a smaller number.'
                )
            return self.held_out
        count = min(self.MOST, round(self.held_out * images))
        if count >= self.LEAST or not self.held_out:
            return count
        if self.part == 'train':
            warn(
                f'{self.img_prefix!r} has {images} images, of which the share '
                f'held_out={self.held_out:g} is {count}, fewer than {self.LEAST}: none '
                'are held out. Set held_out to a number to hold out some anyway.'
            )
        return 0

    def _hash(self, sample: dict) -> bytes:
        path = sample['img_path'].removeprefix(self.img_prefix).lstrip('/\\')
        return hashlib.sha256(
            path.replace('\\', '/').encode(errors='surrogateescape')
        ).digest()


def _is_hidden(name: str) -> bool:
    return any(part.startswith('.') for part in name.replace('\\', '/').split('/'))
