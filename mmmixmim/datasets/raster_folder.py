"""Unlabelled images of any kind from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import PurePosixPath

from mmengine.fileio import isdir, join_path

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError

from .image_folder import ImageFolder
from .readers import EXTENSIONS

RASTERS = (*ImageFolder.EXTENSIONS, *EXTENSIONS)


@DATASETS.register_module()
class RasterFolder(ImageFolder):
    """As :class:`ImageFolder`, also for NumPy, DICOM and raster files, with masks.

    Args:
        data_root: Path of the folder.
        extensions: File extensions of images, case-insensitive. Defaults to all that
            :func:`~mmmixmim.datasets.readers.open_image` knows.
        mask_root: Folder of masks, which has the structure of ``data_root``: the
            weights of the pixels, see :class:`LoadRasterCrop`. It must not lie inside
            ``data_root``. Defaults to None: no masks.
        mask_suffix: Ending of the masks, as '.png' or '_mask.tif', in place of the
            images' extension. Defaults to None: their own extension.
        **kwargs: See :class:`ImageFolder`.

    Raises:
        MissingFileError: If a folder does not exist, or there are no images.
    """

    EXTENSIONS = RASTERS

    def __init__(
        self,
        data_root: str,
        extensions: Sequence[str] = RASTERS,
        mask_root: str | None = None,
        mask_suffix: str | None = None,
        **kwargs,
    ) -> None:
        self.mask_root = mask_root and expanduser(mask_root)
        self.mask_suffix = mask_suffix
        if self.mask_root and not isdir(self.mask_root):
            raise MissingFileError(
                f'There is no folder of masks {mask_root!r}: set mask_root of the '
                'dataset, or leave it out.'
            )
        super().__init__(data_root, extensions, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images, with their masks if there are any."""
        samples = super().load_data_list()
        if self.mask_root:
            root = join_path(self.img_prefix, '')
            for sample in samples:
                name = sample['img_path'].removeprefix(root)
                mask = mask_name(name, self.mask_suffix)
                sample['mask_path'] = join_path(self.mask_root, mask)
        return samples


def mask_name(image: str, suffix: str | None) -> str:
    """Name of the mask of an image.

    Args:
        image: Path of the image below the folder of images.
        suffix: Ending of masks in place of the image's extension; None: the extension.

    Returns:
        Path of the mask below the folder of masks.
    """
    if suffix is None:
        return image
    return f'{PurePosixPath(image).with_suffix("")}{suffix}'
