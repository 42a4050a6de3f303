"""Convert a MixMIM checkpoint, or export a Swin or ConvNeXt encoder to timm.

Whole pretraining and classification models, bit by bit the same weights. The format of
the source is detected. No code in the file is run. The names of the dataset's classes
are kept; the optimizer's state and the like are not.
"""

import argparse
from pathlib import Path

from torch import Tensor

from mmmixmim.checkpoint import (
    FORMATS,
    detect_format,
    read_checkpoint,
    to_timm,
    write_weights,
)
from mmmixmim.conversion import convert_state_dict
from mmmixmim.runtime import one_line_errors
from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint file or address')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument(
        '--to',
        choices=[*FORMATS, 'timm'],
        default='mmmixmim',
        help='format to write (mmmixmim)',
    )
    return parser.parse_args()


def plain(value: object) -> bool:
    """Whether a value consists of strings and numbers only."""
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or isinstance(value, (str, int, float))


def export(weights: dict[str, Tensor], args: argparse.Namespace) -> None:
    """Write the encoder for timm."""
    converted, left_out = to_timm(weights)
    write_weights(converted, args.target, format=None)
    count = sum(value.numel() for value in converted.values())
    print(
        f'{args.target}: encoder of {count:,} parameters, for '
        'timm.create_model(NAME, num_classes=0, checkpoint_path=FILE). With '
        'pad_small_map=True (Swin) add always_partition=True; docs/checkpoints.md says '
        'when, and what to do with gap_before_final_norm=False (ConvNeXt).'
    )
    if left_out:
        print(f'  left out {len(left_out)} entries: {summarise_keys(left_out)}')


def main() -> None:
    """Convert."""
    args = parse_args()
    with one_line_errors():
        source = Path(args.source).expanduser()
        if source.exists() and args.target.exists() and source.samefile(args.target):
            raise UserError(f'{args.target} is the source: name another file.')
        weights, extras = read_checkpoint(args.source)
        if args.to == 'timm':
            return export(weights, args)
        converted = convert_state_dict(weights, args.to)
        meta = extras.get('meta')
        dataset = meta.get('dataset_meta') if isinstance(meta, dict) else None
        kept = {}
        if dataset and plain(dataset):  # the names of the classes
            kept['meta'] = dict(dataset_meta=dataset)
        write_weights(converted, args.target, args.to, kept)

    source = detect_format(weights)
    count = sum(v.numel() for v in weights.values() if v.is_floating_point())
    kind = 'pretraining' if any('mask_token' in name for name in weights) else 'encoder'
    kind = 'classification' if any('head' in name for name in weights) else kind
    print(
        f'{args.source}: {kind} model, {count:,} parameters, format {source}\n'
        f'{args.target}: written in format {args.to}'
    )
    changes = []
    if (source == 'mmpretrain') != (args.to == 'mmpretrain'):
        changes.append('reordered the channels of patch merging')
    indices = [
        sum(n.endswith('_index') for n in state) for state in (weights, converted)
    ]
    if indices[0] != indices[1]:
        verb = 'added' if indices[1] else 'left out'
        changes.append(f'{verb} {max(indices)} index buffers, which hold no weights')
    lost = [f'meta.{n}' for n in meta or () if n != 'dataset_meta' or not kept]
    lost = [name for name in extras if name != 'meta'] + lost
    if lost:
        changes.append(f'left out everything but the weights: {", ".join(lost)}')
    for change in changes:
        print(f'  {change}')


if __name__ == '__main__':
    main()
