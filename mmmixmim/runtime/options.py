"""Command-line options that several tools share."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, which overrides entries of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=32',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    add_cfg_options(parser)
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (work_dirs/<config name>)'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        '--local-rank', '--local_rank', default='0', help=argparse.SUPPRESS
    )


def positive_int(text: str) -> int:
    """Parse a positive int, for the ``type`` of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive int')
    return int(text)
