"""The command line: ``python -m mmmixmim``."""

from __future__ import annotations

import importlib
import io
import shlex
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import click

from mmmixmim.runtime import one_line_errors
from mmmixmim.version import __version__

_PATH = click.Path(path_type=Path)


class _Group(click.Group):
    """Commands whose exit status says how they were interrupted."""

    def invoke(self, context: click.Context) -> None:
        """Run a command."""
        try:
            super().invoke(context)
        except KeyboardInterrupt as stop:
            raise SystemExit(getattr(stop, 'status', 130)) from None


@click.group(
    cls=_Group,
    context_settings=dict(
        help_option_names=['-h', '--help'], max_content_width=100, show_default=True
    ),
)
@click.version_option(__version__, prog_name='mmmixmim')
def cli() -> None:
    """Pretrain MixMIM on your own images, and use the encoder.

    \b
    mixmim pretrain /data/images --out runs/first
    mixmim finetune /data/labelled --from runs/first --out runs/first-classifier
    mixmim predict /data/new --from runs/first-classifier

    `pretrain` and `finetune` write an MMEngine config into their folder; `mim train
    mmmixmim FOLDER/config.py --work-dir again` repeats the run. Without the script
    `mixmim`, all commands work as `python -m mmmixmim`.
    """


def _load(name: str, package: str = 'mmmixmim.cli') -> ModuleType:
    """Import the module of a command, which takes seconds.

    mmpretrain prints on import that an optional package is missing, and mmcv warns that
    its ops are.
    """
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Fail to import')
        return importlib.import_module(f'{package}.{name}')


def _out(default: str) -> Callable:
    return click.option(
        '--out',
        type=_PATH,
        default=default,
        help='Folder of the run.',
    )


_SEED = click.option('--seed', type=int, default=0, help='Random seed.')
_FROM = click.option(
    '--from',
    'start',
    type=_PATH,
    help='Start from this run or checkpoint.',
)
_NO_DATA = click.option('--no-data', help="Value of pixels without data, or 'nan'.")
_SETTINGS = (
    click.option(
        '--model',
        help='micro, tiny, base, large or huge; or swin-tiny, swin-base, swin-v2-base, '
        'convnext-base, convnext-v2-base, hivit-base or pvt-small.',
    ),
    click.option(
        '--image-size',
        type=click.IntRange(8),
        help='Side in pixels; a multiple of 32 fits every model.',
    ),
    click.option('--batch-size', type=click.IntRange(1), help='Images per batch.'),
    click.option('--epochs', type=click.IntRange(1), help='Number of epochs.'),
    click.option('--lr', type=float, help='Learning rate after the warm-up.'),
    click.option('--precision', help='float32, fp16 or bf16.'),
    click.option('--workers', type=click.IntRange(0), help='Loader processes.'),
    _FROM,
    _NO_DATA,
    _SEED,
    click.option('--dry-run', is_flag=True, help='Print the settings and stop.'),
)


def _settings(function: Callable) -> Callable:
    """Add the settings of a training to a command."""
    for option in reversed(_SETTINGS):
        function = option(function)
    return function


_VAL_SHARE = click.option(
    '--val-share',
    type=float,
    default=0.2,
    help='Share of each class for validation if the data have no split.',
)


@cli.command()
@click.argument('data', required=False)  # an address is no path
@click.option(
    '--demo', is_flag=True, help='Use small digits that come with scikit-learn.'
)
@_out('runs/pretrain')
@_settings
@click.option(
    '--masks',
    type=_PATH,
    help='Folder with a mask for each image, named alike; 0 is no data.',
)
def pretrain(data: str | Path | None, demo: bool, out: Path, **settings) -> None:
    """Pretrain on a folder of images, without labels.

    DATA is a folder, nested or flat; or a list of paths: a .csv or .parquet with a
    column `path`, or a .txt; or WebDataset shards: a folder of .tar files, files or
    addresses with braces, or their index shards.json. Settings that you leave out are
    chosen, and each is printed with its reason. The same command again resumes an
    interrupted run.

    \b
    Example:
      mixmim pretrain /data/images --out runs/first --epochs 100
      mixmim pretrain '/data/shards/{000000..000099}.tar' --out runs/shards
      mixmim pretrain /data/scenes --masks /data/clouds --out runs/scenes
    """
    if demo == (data is not None):
        raise click.UsageError('Name a folder of images, or give --demo.')
    if demo:
        digits = _load('demo')
        data = digits.write_digits(out.parent / 'digits')
        settings['epochs'] = settings['epochs'] or digits.EPOCHS
    _load('pretrain').pretrain(data, out, **settings)


@cli.command()
@click.argument('data', type=_PATH)
@_out('runs/finetune')
@_settings
@_VAL_SHARE
def finetune(data: Path, out: Path, **settings) -> None:
    """Train a classifier on labelled images.

    DATA is a folder with a folder for each class, or with such folders below train and
    val; or a .csv or .parquet with the columns `path` and `label`, and optionally
    `part` (train or val). Without a split, one is drawn and written down.

    \b
    Example:
      mixmim finetune /data/labelled --from runs/first --out runs/first-classifier
      mixmim finetune /data/labels.parquet --from runs/first
    """
    _load('finetune').finetune(data, out, **settings)


@cli.command()
@click.argument('images', type=_PATH, nargs=-1, required=True)
@click.option(
    '--from',
    'start',
    type=_PATH,
    required=True,
    help='Run of finetune, or a checkpoint in its folder.',
)
@click.option('--out', type=_PATH, help='CSV file [RUN/predictions.csv].')
@click.option(
    '--batch-size', type=click.IntRange(1), help='Images per batch [that of the run].'
)
def predict(images: tuple[Path, ...], **options) -> None:
    """Classify images with a fine-tuned classifier.

    IMAGES are a folder, nested or flat; a list of paths: a .csv or .parquet with a
    column `path`, or a .txt; or images.

    \b
    Example:
      mixmim predict /data/new --from runs/first-classifier --out new.csv
    """
    _load('predict').predict(images, **options)


@cli.command()
@click.argument('data', type=_PATH)
@_out('runs/probe')
@_FROM
@click.option('--model', help='Model of an untrained encoder, without --from.')
@click.option('--image-size', type=click.IntRange(8), help='Side in pixels.')
@_NO_DATA
@_SEED
@_VAL_SHARE
def probe(data: Path, out: Path, start: Path | None, **settings) -> None:
    """Measure how good the frozen features of an encoder are.

    A linear classifier is fitted to them. DATA is as for finetune. Without --from, the
    encoder is untrained, to compare with.

    \b
    Example:
      mixmim probe /data/labelled --from runs/first
    """
    _load('probe').probe(data, start, out, **settings)


@cli.command()
@click.argument('run', type=_PATH)
@click.option(
    '--images',
    type=_PATH,
    help='Folder of images to draw [the training images].',
)
@click.option('--out', type=_PATH, help='File [RUN/reconstruction.png].')
@click.option('--num', type=click.IntRange(2), default=8, help='Images, in pairs.')
@_SEED
def reconstruct(run: Path, **options) -> None:
    """Draw images, their mixtures and their reconstructions.

    RUN is the folder of a pretraining.

    \b
    Example:
      mixmim reconstruct runs/first --images /data/others --out others.png
    """
    click.echo(_load('reconstruct').reconstruct(run, **options))


@cli.command()
@click.argument('runs', type=_PATH, nargs=-1, required=True)
@click.option('--out', type=_PATH, help='File [first RUN/report.html].')
def report(runs: tuple[Path, ...], out: Path | None) -> None:
    """Write one page about a run, or about several side by side.

    \b
    Example:
      mixmim report runs/first runs/second --out compared.html
    """
    click.echo(_load('report', 'mmmixmim.visualization').write_report(runs, out))


class _List(click.ParamType):
    """Values with commas between them."""

    def __init__(self, kind: click.ParamType) -> None:
        self.kind = kind
        self.name = f'{kind.name} list'

    def convert(self, value: str | list, parameter, context) -> list:
        """Convert each value."""
        if not isinstance(value, str):
            return value
        words = value.split(',')
        return [self.kind.convert(each, parameter, context) for each in words]


class _Entry(click.ParamType):
    """An entry of a config with its value."""

    name = 'entry'

    def convert(self, value: str | tuple, parameter, context) -> tuple[str, object]:
        """Split at the first equals sign, and parse the value as MMEngine does."""
        from mmengine.config import DictAction

        key, equals, text = value.partition('=')
        if not equals:
            self.fail(f'expected KEY=VALUE, got {value!r}', parameter, context)
        return key, DictAction._parse_iterable(text)


@cli.command()
@click.argument('config', type=_PATH)
@click.option(
    '--gpu',
    default='h100',
    help='v100, a100-40, a100, h100, h100-pcie, h200, b200, l40s, a10, rtx-3090 or '
    'rtx-4090; or of any other card its peak in TFLOP/s (bfloat16, dense), '
    'bandwidth in TB/s, memory in GiB and, optionally, GB/s between GPUs [32]: '
    '312,2.0,80,300.',
)
@click.option(
    '--gpus',
    type=_List(click.IntRange(1)),
    default='8',
    metavar='N,N,...',
    help='Numbers of GPUs to compare.',
)
@click.option(
    '--total-batch',
    type=click.IntRange(1),
    help="Images per step of all GPUs [those in the config's name, as 16xb128, or GPUs "
    "times the config's batch size; both times accumulative_counts].",
)
@click.option(
    '--shape',
    nargs=2,
    type=click.IntRange(1),
    metavar='HEIGHT WIDTH',
    help='Pixels [those of the backbone].',
)
@click.option(
    '--precision',
    type=_List(click.Choice(('float32', 'fp32', 'fp16', 'bf16'))),
    metavar='PRECISION,...',
    callback=lambda context, parameter, value: [
        'fp32' if each == 'float32' else each for each in value or ()
    ],
    help='Precisions to compare; the run is planned in the first [as configured].',
)
@click.option(
    '--recompute',
    type=_List(click.Choice(('none', 'norms', 'blocks'))),
    default='none,norms,blocks',
    metavar='MODE,...',
    help='What the backward pass may recompute.',
)
@click.option(
    '--images',
    type=click.IntRange(1),
    help='Training images [known for public datasets].',
)
@click.option(
    '--images-per-core',
    type=float,
    default=700.0,
    help='Images per second that a core loads.',
)
@click.option(
    '--network',
    type=float,
    default=50.0,
    help='GB/s per GPU between machines of 8.',
)
@click.option(
    '--check',
    type=click.IntRange(1),
    metavar='IMAGES',
    help='Also run real steps of so many images on this CPU, and compare their memory '
    'and time with predictions.',
)
@click.option(
    '--cfg-options',
    multiple=True,
    type=_Entry(),
    metavar='KEY=VALUE',
    help='Replace an entry of the config; may be repeated.',
)
def plan(config: Path, cfg_options: tuple, **options) -> None:
    """Predict memory, time and cost of a config's training on GPUs.

    CONFIG is any config of the project. Neither a GPU nor the dataset is needed.

    \b
    Example:
      mixmim plan runs/first/config.py --gpu h100 --gpus 1,8 --images 20000
    """
    click.echo(_load('plan').plan_run(config, cfg_options=dict(cfg_options), **options))


@cli.command()
@click.argument('folder', type=_PATH)
@click.argument('out', type=_PATH)
@click.option(
    '--images-per-shard',
    type=click.IntRange(1),
    default=1000,
    help='Images in a file.',
)
@_SEED
def shard(folder: Path, out: Path, **options) -> None:
    """Write a folder of images to WebDataset shards.

    They suit file systems that are slow with many small files, and web servers.

    \b
    Example:
      mixmim shard /data/images /data/shards
    """
    files = _load('shards', 'mmmixmim.datasets').write_shards(folder, out, **options)
    command = shlex.join(['python', '-m', 'mmmixmim', 'pretrain', str(out)])
    click.echo(f'Wrote {len(files)} shards and their index to {out}.')
    click.echo(f'Next:\n  {command}')


@cli.command()
def doctor() -> None:
    """Check the installation and the machine, and suggest fixes.

    \b
    Example:
      mixmim doctor
    """
    if not _load('doctor').doctor():
        raise SystemExit(1)


@one_line_errors()
def main() -> None:
    """Run the command line; a user's mistake is one line ``error: ...``."""
    cli(prog_name='mixmim')
