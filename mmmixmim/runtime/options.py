"""Command-line options shared by several tools."""

from __future__ import annotations

import argparse

from mmengine.config import DictAction


class _Options(DictAction):
    """MMEngine's action, with an error for options without a value."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for option in values:
            if '=' not in option:
                parser.error(
                    f'argument {option_string}: expected KEY=VALUE, got {option!r}'
                )
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, which overrides config entries."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        default={},
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=32',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by training and testing."""
    add_cfg_options(parser)
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (work_dirs/<config name>)'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run are started',
    )
    # Passed by torch.distributed.launch; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        '--local-rank', '--local_rank', default='0', help=argparse.SUPPRESS
    )


def positive_int(text: str) -> int:
    """Parse a positive int; use as the ``type`` of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive int')
    return int(text)


def random_seed(text: str) -> int:
    """Parse a seed that NumPy takes; use as the ``type`` of an option."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not an int between 0 and {2**32 - 1}'
        )
    return int(text)
