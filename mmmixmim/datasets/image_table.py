"""Images that a list or a table names."""

from __future__ import annotations

import os
from os.path import expanduser

from mmengine.fileio import join_path
from mmpretrain.datasets import BaseDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError

from .tables import LISTS, read_columns, read_lines


@DATASETS.register_module()
class ImageTable(BaseDataset):
    """The images of a text file, a CSV file or a Parquet file.

    A text file has a path a line. A CSV file has a header. Empty lines are skipped.

    Args:
        ann_file: The file, by its ending ``.txt``, ``.csv`` or ``.parquet``; the latter
            takes pyarrow.
        data_root: What paths that are not absolute are relative to. Defaults to '': the
            folder of ``ann_file``.
        column: Column of the paths. Defaults to 'path'.
        mask_column: Column of the paths of masks, see :class:`LoadRasterCrop`. Defaults
            to None: no masks.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``.

    Raises:
        MissingFileError: If there is no such file.
        MissingDependencyError: If it is a Parquet file and pyarrow is not installed.
        UserError: If it lacks a column or a mask, or names no image.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        column: str = 'path',
        mask_column: str | None = None,
        **kwargs,
    ) -> None:
        self.file = expanduser(ann_file)
        self.root = expanduser(data_root) or os.path.dirname(self.file)
        self.columns = dict(img_path=column)
        if mask_column is not None:
            self.columns['mask_path'] = mask_column
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the paths."""
        if not os.path.isfile(self.file):
            raise MissingFileError(
                f'There is no list of images {self.file!r}: set ann_file of the '
                'dataset to a .txt, .csv or .parquet file.'
            )
        columns = self._read()
        rows = [row for row in zip(*columns.values(), strict=True) if row[0]]
        for image, *masks in rows:
            if not all(masks):
                raise UserError(
                    f'{self.file} names no mask of {image} in the column '
                    f'{self.columns["mask_path"]}: name one for each image, or leave '
                    'out mask_column.'
                )
        samples = [
            {key: self._join(path) for key, path in zip(columns, row, strict=True)}
            for row in rows
        ]
        if not samples:
            raise UserError(f'{self.file} names no image.')
        return samples

    def _join(self, path: str) -> str:
        if '://' in path or os.path.isabs(path):
            return path
        return join_path(self.root, path)

    def _read(self) -> dict[str, list[str]]:
        """Read the columns by their keys in a sample."""
        ending = os.path.splitext(self.file)[1].lower()
        if ending not in LISTS:
            raise UserError(
                f'{self.file} is no list of images: expected a .txt, .csv or .parquet '
                'file.'
            )
        if ending == '.txt':
            if len(self.columns) > 1:
                raise UserError(
                    f'{self.file} is a plain list: mask_column needs a .csv or '
                    '.parquet file.'
                )
            return dict(img_path=read_lines(self.file))
        found = read_columns(
            self.file, [*self.columns.values()], hint=': set column of the dataset'
        )
        return {key: found[name] for key, name in self.columns.items()}
