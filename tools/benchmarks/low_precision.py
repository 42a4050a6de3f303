"""Compare losses of pretraining in float32, bfloat16, and with norms in bfloat16.

Trains a config under autocast, from the same weights and on the same
batches, and prints the mean training loss of the last epoch and the held-out loss.
"""

import argparse
import tempfile

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmmixmim.benchmarking import markdown_table
from mmmixmim.runtime import (
    add_cfg_options,
    build_runner,
    load_config,
    one_line_errors,
    positive_int,
)

# Whether to autocast, and low_precision_norms.
VARIANTS = {
    'bfloat16': (True, False),
    'bfloat16, low_precision_norms': (True, True),
    'float32': (False, False),
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--config',
        default='configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py',
        help='config of pretraining (the tiny model on the digits)',
    )
    parser.add_argument('--epochs', type=positive_int, default=3, help='epochs (3)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1], help='(0 1)')
    add_cfg_options(parser)
    return parser.parse_args()


def train(cfg: Config, low: bool, low_norms: bool) -> tuple[float, float]:
    """Train, and return the mean loss of the last epoch and the held-out loss."""
    for part in (cfg.model.backbone, cfg.model.neck):
        part.low_precision_norms = low_norms
    with tempfile.TemporaryDirectory() as cfg.work_dir:
        runner = build_runner(cfg)
        if low:  # as MMEngine's AmpOptimWrapper, which needs a GPU
            autocast = torch.autocast(get_device(), torch.bfloat16)
            runner.model.forward = autocast(runner.model.forward)
        runner.train()
        losses = runner.message_hub.get_scalar('train/loss').data[0]
        held_out = runner.message_hub.get_scalar('val/reconstruction/loss').current()
    return losses[-len(runner.train_dataloader) :].mean(), held_out


@one_line_errors()
def main() -> None:
    """Train all variants and print."""
    args = parse_args()
    rows = []
    for seed in args.seeds:
        for name, options in VARIANTS.items():
            cfg = load_config(args.config, args.cfg_options)
            cfg.train_cfg.update(max_epochs=args.epochs, val_interval=args.epochs)
            cfg.param_scheduler = None
            cfg.default_hooks.checkpoint = None
            cfg.default_hooks.pop('preemption', None)
            cfg.custom_hooks, cfg.launcher, cfg.log_level = [], 'none', 'ERROR'
            cfg.randomness = dict(seed=seed)
            cfg.experiment_name = f'{name} {seed}'
            trained, held_out = train(cfg, *options)
            rows.append([str(seed), name, f'{trained:.4f}', f'{held_out:.4f}'])
            print(*rows[-1], flush=True)
    head = ['seed', 'precision', 'training loss', 'held-out loss']
    print(f'{args.epochs} epochs\n\n{markdown_table(head, rows)}')


if __name__ == '__main__':
    main()
