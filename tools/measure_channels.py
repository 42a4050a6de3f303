"""Measure mean and standard deviation of the channels of a folder, in one pass.

Pretraining reads the file as `statistics` of RasterDataPreprocessor.
"""

import argparse
from pathlib import Path

from mmengine.utils import track_iter_progress

from mmmixmim.datasets import RasterFolder, measure_channels
from mmmixmim.datasets.no_data import check_no_data
from mmmixmim.datasets.subsets import evenly_spaced
from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.runtime.files import check_out
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='folder of images, at any depth')
    parser.add_argument('--out', required=True, help='JSON file to write')
    parser.add_argument('--no-data', help="value of pixels without data, or 'nan'")
    parser.add_argument('--mask-root', help='folder of masks')
    parser.add_argument('--mask-suffix', help='ending of the masks, such as .png')
    parser.add_argument(
        '--channels', nargs='+', type=int, help='channels to take, from 0 (all)'
    )
    parser.add_argument(
        '--max-images', type=positive_int, help='measure this many, evenly spread (all)'
    )
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Measure, print and write."""
    args = parse_args()
    no_data = check_no_data(args.no_data)
    if args.mask_suffix and not args.mask_root:
        raise UserError(
            f'--mask-suffix {args.mask_suffix!r} needs the folder of the masks: add '
            '--mask-root.'
        )
    check_out(Path(args.out), 'a JSON file')
    dataset = RasterFolder(
        args.folder, mask_root=args.mask_root, mask_suffix=args.mask_suffix
    )
    chosen = evenly_spaced(len(dataset), args.max_images or len(dataset))
    samples = [dataset.get_data_info(i) for i in chosen]
    masks = [s['mask_path'] for s in samples] if args.mask_root else None
    paths = [sample['img_path'] for sample in samples]
    found = measure_channels(track_iter_progress(paths), no_data, args.channels, masks)
    found.save(args.out)
    print(f'\n{found.images} images, {found.pixels} valid pixels')
    columns = (found.mean, found.std, found.minimum, found.maximum)
    print('channel       mean    std dev    minimum    maximum')
    for i, row in enumerate(zip(*columns, strict=True)):
        channel = i if args.channels is None else args.channels[i]
        print(f'{channel:7}', *(f'{value:10.5g}' for value in row))
    print(f'Written to {args.out}.')


if __name__ == '__main__':
    main()
