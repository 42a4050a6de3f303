"""Convert a MixMIM checkpoint between the authors', mmpretrain's and our layout.

Whole pretraining and classification models, bit by bit the same weights. The
layout of the source is found out. No code in the file is run. Names of the dataset's
classes are kept, the state of the optimizer and the like are not.
"""

import argparse
from pathlib import Path

from mmmixmim.checkpoint import (
    INDEX,
    LAYOUTS,
    convert_state_dict,
    detect_layout,
    read_checkpoint,
    write_weights,
)
from mmmixmim.runtime import one_line_errors
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint file or address')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument(
        '--to', choices=LAYOUTS, default='mmmixmim', help='layout to write (mmmixmim)'
    )
    return parser.parse_args()


def plain(value: object) -> bool:
    """Whether a value consists of texts and numbers alone."""
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or isinstance(value, (str, int, float))


def main() -> None:
    """Convert."""
    args = parse_args()
    with one_line_errors():
        source = Path(args.source).expanduser()
        if source.exists() and args.target.exists() and source.samefile(args.target):
            raise UserError(f'{args.target} is the source: name another file.')
        weights, beside = read_checkpoint(args.source)
        converted = convert_state_dict(weights, args.to)
        meta = beside.get('meta')
        dataset = meta.get('dataset_meta') if isinstance(meta, dict) else None
        kept = {}
        if dataset and plain(dataset):  # the names of the classes
            kept['meta'] = dict(dataset_meta=dataset)
        write_weights(converted, args.target, args.to, kept)

    layout = detect_layout(weights)
    count = sum(v.numel() for v in weights.values() if v.is_floating_point())
    kind = 'pretraining' if any('mask_token' in name for name in weights) else 'encoder'
    kind = 'classification' if any('head' in name for name in weights) else kind
    print(
        f'{args.source}: {kind} model, {count:,} parameters, layout {layout}\n'
        f'{args.target}: written in layout {args.to}'
    )
    changes = []
    if (layout == 'mmpretrain') != (args.to == 'mmpretrain'):
        changes.append('put the channels of patch merging in its order')
    indices = [sum(n.endswith(INDEX) for n in state) for state in (weights, converted)]
    if indices[0] != indices[1]:
        verb = 'added' if indices[1] else 'left out'
        changes.append(f'{verb} {max(indices)} index buffers, which hold no weights')
    lost = [f'meta.{n}' for n in meta or () if n != 'dataset_meta' or not kept]
    lost = [name for name in beside if name != 'meta'] + lost
    if lost:
        changes.append(f'left out what is beside the weights: {", ".join(lost)}')
    for change in changes:
        print(f'  {change}')


if __name__ == '__main__':
    main()
