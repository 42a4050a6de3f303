"""Masks of images, as files in a folder of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError

from .raster_folder import RASTERS, mask_name
from .readers import ImageReader


def find_mask_suffix(root: Path, files: Sequence[Path], masks: Path) -> str | None:
    """Find out how the masks of images are named.

    Args:
        root: Folder of the images.
        files: The images.
        masks: Folder of the masks, which has the structure of ``root``.

    Returns:
        The suffix for :func:`~mmmixmim.datasets.raster_folder.mask_name`.

    Raises:
        MissingFileError: If there is no such folder, or an image has no mask.
        UserError: If the masks lie among the images.
    """
    if not masks.is_dir():
        raise MissingFileError(f'There is no folder of masks {str(masks)!r}.')
    if masks.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f'The masks {str(masks)!r} lie in the folder of the images, and would be '
            'taken for images: move them out of it.'
        )
    names = [file.relative_to(root).as_posix() for file in files]
    first = masks / names[0]
    beside = sorted(each.name for each in first.parent.glob('*'))
    suffixes = [
        each.removeprefix(first.stem)
        for each in beside
        if each.startswith((f'{first.stem}.', f'{first.stem}_', f'{first.stem}-'))
        and each.lower().endswith(RASTERS)
    ]
    furthest = 0
    for suffix in (None, *suffixes):
        found = (masks.joinpath(mask_name(each, suffix)).is_file() for each in names)
        missing = next((i for i, there in enumerate(found) if not there), None)
        if missing is None:
            return suffix
        furthest = max(furthest, missing)
    raise MissingFileError(
        f'The image {str(files[furthest])!r} has no mask in {str(masks)!r}: expected '
        'the same name, or one other ending for all, as .png or _mask.tif.'
    )


def check_mask_image(image: ImageReader, mask: ImageReader) -> None:
    """Raise unless a mask has the size of its image and one channel."""
    if mask.size != image.size or mask.channels != 1:
        raise UnreadableFileError(
            f'its mask has {mask.size[0]}x{mask.size[1]} pixels and {mask.channels} '
            f'channels, expected {image.size[0]}x{image.size[1]} pixels and 1 channel'
        )
