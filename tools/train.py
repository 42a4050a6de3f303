"""Train the model of a config: pretraining, fine-tuning or a downstream task."""

import argparse
import os

from mmengine.config import Config

from mmmixmim.checkpoint.resumable import find_resumable
from mmmixmim.datasets import naming_lost_files
from mmmixmim.engine.loops import check_same_start
from mmmixmim.runtime import (
    add_run_arguments,
    build_runner,
    check_data_roots,
    load_config,
    locked_run,
    one_line_errors,
    prepare_run,
    training_device,
)
from mmmixmim.runtime.entries import config_entry, is_amp
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, by default the latest one in work_dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='use automatic mixed precision (needs a GPU)'
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='train without evaluation'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / auto_scale_lr.base_batch_size',
    )
    add_run_arguments(parser)
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the training options to the config."""
    if not cfg.get('optim_wrapper'):
        raise UserError(f'{args.config} has no optim_wrapper, so it cannot train.')
    _choose_start(cfg, args.resume)
    backbone = cfg.model.get('backbone') or {}
    init_cfg = backbone.get('init_cfg') or {}
    if 'checkpoint' in init_cfg and not init_cfg.checkpoint and cfg.get('load_from'):
        backbone.init_cfg = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if is_amp(cfg.optim_wrapper) and training_device() == 'cpu':
        raise UserError(
            'mixed precision (AmpOptimWrapper) needs a GPU, and there is none. Leave '
            'out --amp, or pass --cfg-options optim_wrapper.type=OptimWrapper if the '
            'config sets it.'
        )
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        if not config_entry(cfg, 'auto_scale_lr.base_batch_size'):
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config.'
            )
        cfg.auto_scale_lr.enable = True


def _choose_start(cfg: Config, resume: str | None) -> None:
    """Go on with the run in the work folder if there is one; else start as configured.

    With ``resume`` and ``load_from`` both in the config, MMEngine resumes that file.
    """
    if resume not in (None, 'auto'):
        cfg.resume, cfg.load_from = True, resume
    elif resume or (cfg.get('resume') and not cfg.get('load_from')):
        found = find_resumable(cfg.work_dir)
        if found:
            cfg.resume, cfg.load_from = True, found
        elif not cfg.get('load_from'):
            cfg.resume = False


@one_line_errors()
def main() -> None:
    """Train the model."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    prepare_run(cfg, args.config, args.launcher, args.work_dir, args.local_rank)
    apply_options(cfg, args)
    check_data_roots(cfg, ('train', 'val'))
    with locked_run(cfg), naming_lost_files():
        runner = build_runner(cfg)  # which connects the processes
        file = cfg.get('resume') and cfg.get('load_from')
        check_same_start(
            f'resumes {os.path.basename(file)}' if file else 'starts afresh'
        )
        runner.train()


if __name__ == '__main__':
    main()
