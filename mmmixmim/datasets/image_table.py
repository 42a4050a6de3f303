"""Images that a list or a table names."""

from __future__ import annotations

import csv
import os
from os.path import expanduser

from mmengine.fileio import join_path
from mmpretrain.datasets import BaseDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingDependencyError, MissingFileError, UserError


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
        UserError: If it lacks a column, or names no image.
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
        samples = [
            {key: self._join(path) for key, path in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
            if row[0]
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
        if ending == '.txt':
            if len(self.columns) > 1:
                raise UserError(
                    f'{self.file} is a plain list: mask_column needs a .csv or '
                    '.parquet file.'
                )
            with open(self.file, encoding='utf-8') as file:
                return dict(img_path=[line.strip() for line in file])
        if ending == '.csv':
            with open(self.file, encoding='utf-8-sig', newline='') as file:
                reader = csv.DictReader(file)
                self._check_columns(reader.fieldnames or [])
                rows = list(reader)
            return {
                key: [(row[name] or '').strip() for row in rows]
                for key, name in self.columns.items()
            }
        if ending == '.parquet':
            return self._read_parquet()
        raise UserError(
            f'{self.file} is no list of images: expected a .txt, .csv or .parquet file.'
        )

    def _read_parquet(self) -> dict[str, list[str]]:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise MissingDependencyError(
                f'{self.file} needs pyarrow, which is not installed: run `pip install '
                'pyarrow`, or write a .csv file.'
            ) from error
        try:
            self._check_columns(parquet.read_schema(self.file).names)
            table = parquet.read_table(self.file, columns=[*self.columns.values()])
        except ArrowException as error:
            raise UserError(f'{self.file} cannot be read: {error}.') from error
        return {
            key: [str(path or '') for path in table[name].to_pylist()]
            for key, name in self.columns.items()
        }

    def _check_columns(self, names: list[str]) -> None:
        for name in self.columns.values():
            if name not in names:
                raise UserError(
                    f'{self.file} has no column {name!r}, its columns are '
                    f'{", ".join(names) or "none"}: set column of the dataset.'
                )
