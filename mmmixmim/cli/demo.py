"""Write the digits that come with scikit-learn as image files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mmmixmim.datasets import Digits

EPOCHS = 25  # a few minutes on two cores
_SIDE = 32  # pixels


def write_digits(folder: Path) -> Path:
    """Write 1,248 training and 549 test digits, in a folder for each class.

    Args:
        folder: Gets ``train/0`` to ``train/9`` and ``val/0`` to ``val/9``. Files that
            are there stay.

    Returns:
        The folder of the training images.
    """
    for split, name in (('train', 'train'), ('test', 'val')):
        for number, sample in enumerate(Digits(split).load_data_list()):
            file = folder / name / str(sample['gt_label']) / f'{number:04}.png'
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                size = (_SIDE, _SIDE)
                image = Image.fromarray(sample['img'])
                image.resize(size, Image.Resampling.BICUBIC).save(file)
    return folder / 'train'
