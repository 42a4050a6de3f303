"""Write the images of a folder to WebDataset's tar files, in random order.

Pretraining reads them as `shards` of the dataset ShardStream.
"""

import argparse

from mmmixmim.datasets import write_shards
from mmmixmim.runtime import one_line_errors, positive_int


@one_line_errors()
def main() -> None:
    """Write and say how many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='folder of images, at any depth')
    parser.add_argument('out', help='folder of the shards')
    parser.add_argument(
        '--images-per-shard', type=positive_int, default=1000, help='(1000)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the order (0)')
    args = parser.parse_args()
    files = write_shards(args.folder, args.out, args.images_per_shard, args.seed)
    print(f'Wrote {len(files)} shards and their index to {args.out}.')


if __name__ == '__main__':
    main()
