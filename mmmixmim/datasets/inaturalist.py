"""The iNaturalist competitions' datasets."""

from __future__ import annotations

from os.path import expanduser

from mmengine.fileio import exists, join_path, load
from mmpretrain.datasets import BaseDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError


@DATASETS.register_module()
class INaturalist(BaseDataset):
    """iNaturalist 2017 to 2021, from the annotation files of the competitions.

    Args:
        data_root: Folder of the annotation file, to which the file names in it
            are relative (``train_val2018`` lies there for 2018), unless
            ``data_prefix`` is given.
        ann_file: JSON with ``images``, ``annotations`` and ``categories``, as
            ``'train2018.json'``.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, as ``pipeline``.
            Not ``classes``, which the file has.

    Raises:
        FileNotFoundError: If there is no annotation file.
        ValueError: If it lacks a part, or names a category or an image that it
            does not list.
    """

    def __init__(self, data_root: str, ann_file: str, **kwargs) -> None:
        if kwargs.get('classes') or (kwargs.get('metainfo') or {}).get('classes'):
            raise UserError('INaturalist takes its classes from ann_file alone.')
        super().__init__(data_root=expanduser(data_root), ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file.

        Returns:
            ``img_path`` and ``gt_label`` of every image. Labels count the
            categories by ascending id.
        """
        if not exists(self.ann_file):
            raise MissingFileError(
                f'There is no annotation file {self.ann_file!r}. Set data_root and '
                'ann_file of the dataset to where the download was unpacked.'
            )
        content = load(self.ann_file)
        for part in ('images', 'annotations', 'categories'):
            if part not in content:
                raise UserError(
                    f'{self.ann_file} has no {part!r}: expected the annotations of '
                    'an iNaturalist competition with labels.'
                )
        categories = sorted(content['categories'], key=lambda entry: entry['id'])
        labels = {entry['id']: label for label, entry in enumerate(categories)}
        self._metainfo['classes'] = tuple(str(entry['name']) for entry in categories)
        files = {entry['id']: entry['file_name'] for entry in content['images']}
        samples = []
        for entry in content['annotations']:
            if entry['category_id'] not in labels:
                raise UserError(
                    f'{self.ann_file}: image {entry["image_id"]} is of category '
                    f'{entry["category_id"]}, which the file does not list.'
                )
            if entry['image_id'] not in files:
                raise UserError(
                    f'{self.ann_file}: an annotation is of image {entry["image_id"]}, '
                    'which the file does not list.'
                )
            path = join_path(self.img_prefix, files[entry['image_id']])
            label = labels[entry['category_id']]
            samples.append(dict(img_path=path, gt_label=label))
        return samples
