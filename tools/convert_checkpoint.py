"""Convert a MixMIM checkpoint between the authors', mmpretrain's and our layout.

Whole pretraining and classification models, bit by bit the same weights. The
layout of the source is found out. No code in the file is run.
"""

import argparse
from pathlib import Path

from mmmixmim.checkpoint import (
    LAYOUTS,
    convert_state_dict,
    detect_layout,
    read_weights,
    write_weights,
)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint file or address')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument(
        '--to', choices=LAYOUTS, default='mmmixmim', help='layout to write (mmmixmim)'
    )
    return parser.parse_args()


def main() -> None:
    """Convert."""
    args = parse_args()
    try:
        weights = read_weights(args.source)
        converted = convert_state_dict(weights, args.to)
        write_weights(converted, args.target, args.to)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    count = sum(v.numel() for v in weights.values() if v.is_floating_point())
    kind = 'pretraining' if any('mask_token' in name for name in weights) else 'encoder'
    kind = 'classification' if any('head' in name for name in weights) else kind
    print(
        f'{args.source}: {kind} model, {count:,} parameters, layout '
        f'{detect_layout(weights)}\n{args.target}: written in layout {args.to}'
    )


if __name__ == '__main__':
    main()
