"""Datasets of the iNaturalist competitions."""

from __future__ import annotations

from os.path import expanduser

from mmengine.fileio import exists, join_path, load
from mmpretrain.datasets import BaseDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError


@DATASETS.register_module()
class INaturalist(BaseDataset):
    """iNaturalist 2017 to 2021, read from the competitions' annotation files.

    Args:
        data_root: Folder of the annotation file and of the images. For 2018 it
            contains ``train2018.json`` and ``train_val2018/``.
        ann_file: JSON file with ``images``, ``annotations`` and ``categories``,
            relative to ``data_root``.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, such as ``pipeline`` or
            ``data_prefix``. ``classes`` is not accepted: the file defines them.

    Raises:
        MissingFileError: If the annotation file does not exist.
        UserError: If ``classes`` is given, or the file is incomplete or refers to
            a category or image that it does not list.
    """

    def __init__(self, data_root: str, ann_file: str, **kwargs) -> None:
        if kwargs.get('classes') or (kwargs.get('metainfo') or {}).get('classes'):
            raise UserError(
                'INaturalist takes its classes from ann_file: remove `classes` from '
                'the dataset.'
            )
        super().__init__(data_root=expanduser(data_root), ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the annotation file.

        Returns:
            ``img_path`` and ``gt_label`` of each annotation. Labels number the
            categories in ascending order of their ids.
        """
        if not exists(self.ann_file):
            raise MissingFileError(
                f'There is no annotation file {self.ann_file!r}. Set data_root and '
                'ann_file of the dataset to the unpacked download.'
            )
        try:
            # By its name alone, MMEngine would run code in a pickle.
            content = load(self.ann_file, file_format='json')
        except ValueError as error:
            raise UserError(f'{self.ann_file} is not a JSON file: {error}') from error
        for part in ('images', 'annotations', 'categories'):
            if part not in content:
                raise UserError(
                    f'{self.ann_file} has no {part!r}: set ann_file to a labelled '
                    'annotation file of an iNaturalist competition.'
                )
        categories = sorted(content['categories'], key=lambda entry: entry['id'])
        labels = {entry['id']: label for label, entry in enumerate(categories)}
        self._metainfo['classes'] = tuple(str(entry['name']) for entry in categories)
        files = {entry['id']: entry['file_name'] for entry in content['images']}
        samples = []
        for entry in content['annotations']:
            if entry['category_id'] not in labels:
                raise UserError(
                    f'{self.ann_file}: image {entry["image_id"]} has category '
                    f'{entry["category_id"]}, which the file does not list. Download '
                    'the file again.'
                )
            if entry['image_id'] not in files:
                raise UserError(
                    f'{self.ann_file}: an annotation refers to image '
                    f'{entry["image_id"]}, which the file does not list. Download the '
                    'file again.'
                )
            path = join_path(self.img_prefix, files[entry['image_id']])
            label = labels[entry['category_id']]
            samples.append(dict(img_path=path, gt_label=label))
        return samples
