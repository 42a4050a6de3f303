"""Evaluate an encoder by linear probing: classify its frozen, pooled features."""

import argparse
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from mmmixmim.checkpoint import load_encoder, split_init_cfg
from mmmixmim.engine.hooks.class_check import check_class_names
from mmmixmim.evaluation import extract_features, linear_probe
from mmmixmim.evaluation.linear_probe import labelled_loaders
from mmmixmim.log import quieten
from mmmixmim.registry import MODELS
from mmmixmim.runtime import (
    add_cfg_options,
    load_config,
    one_line_errors,
    positive_int,
    random_seed,
    training_device,
)
from mmmixmim.runtime.entries import config_entry
from mmmixmim.runtime.files import check_out, write_json
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='classification config with labelled datasets')
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint of any format (default: untrained)'
    )
    parser.add_argument(
        '--samples-per-class',
        nargs='+',
        type=label_count,
        default=['all'],
        metavar='N',
        help='training labels per class: numbers or "all" (all)',
    )
    parser.add_argument(
        '--draws',
        type=positive_int,
        default=3,
        help='random draws of the labels to average over (3)',
    )
    parser.add_argument(
        '--seed',
        type=random_seed,
        default=0,
        help='seed for the weights without checkpoint (0)',
    )
    parser.add_argument('--out', type=Path, help='save accuracies to this JSON file')
    add_cfg_options(parser)
    return parser.parse_args()


def label_count(text: str) -> int | str:
    """Parse a number of labels per class, or 'all'."""
    return text if text == 'all' else positive_int(text)


@one_line_errors()
def main() -> None:
    """Extract the features, then train and score the classifiers."""
    args = parse_args()
    if args.out:
        check_out(args.out, 'a JSON file')
    cfg = load_config(args.config, args.cfg_options)
    data = config_entry(cfg, 'val_dataloader.dataset') or {}
    if not data or data.get('part') == 'held_out':
        raise UserError(
            f'{args.config} has no labelled val_dataloader. Linear probing needs a '
            'classification config, with labelled training and validation images.'
        )
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    quieten(MMLogger.get_current_instance())  # how each weight was initialised
    set_random_seed(args.seed)
    model = MODELS.build(cfg.model)
    pretrained, others = split_init_cfg(getattr(model.backbone, 'init_cfg', None))
    if args.checkpoint:
        start = pretrained[0] if pretrained else {}
        names = ('prefix', 'in_channels')
        options = {name: start[name] for name in names if name in start}
        load_encoder(model.backbone, args.checkpoint, **options)
    else:  # stock encoders draw their weights here, ours keep those that they have
        model.backbone.init_cfg = others or None
        model.backbone.init_weights()
    model.to(training_device())
    loaders = labelled_loaders(cfg)
    check_class_names(*(loader.dataset for loader in loaders))
    train, test = (extract_features(model, loader) for loader in loaders)
    for name, (_, labels) in (('training', train), ('validation', test)):
        if not len(labels):
            raise UserError(
                f'The {name} images of {args.config} have no labels. Linear probing '
                'needs a folder for each class, or an annotation file.'
            )

    figures = {}
    for name in args.samples_per_class:
        count = None if name == 'all' else name
        draws = range(args.draws if count else 1)
        accuracy = np.mean([linear_probe(train, test, count, draw) for draw in draws])
        figures[str(name)] = round(float(accuracy), 2)
        print(f'{name:>5} labels per class: {accuracy:.2f} %')
    if args.out:
        write_json(args.out, figures, given=True)


if __name__ == '__main__':
    main()
