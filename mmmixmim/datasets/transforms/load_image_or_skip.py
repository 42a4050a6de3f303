"""Load an image whole, or leave it out and record why."""

from __future__ import annotations

from mmcv.transforms import LoadImageFromFile

from mmmixmim.registry import TRANSFORMS

from ..unreadable import unreadable_images


@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` for training images, of which some may be damaged.

    An unreadable image is recorded and replaced by another one of the dataset, see
    :class:`~mmmixmim.engine.UnreadableImagesHook`. For training only: evaluation must
    see every image.

    Args:
        *args: See mmcv's transform.
        **kwargs: As ``args``, without ``ignore_empty``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._record = unreadable_images()

    def transform(self, results: dict) -> dict | None:
        """Load the image at ``results['img_path']``."""
        path = results['img_path']
        try:
            with self._record.reading(path):
                return super().transform(results)
        except Exception as error:
            # mmcv's own message for what OpenCV cannot decode names the path again.
            undecoded = isinstance(error, AssertionError)
            reason = 'it is no image, or is damaged' if undecoded else error
            self._record.add(path, reason)
            return None
