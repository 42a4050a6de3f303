"""Evaluate a checkpoint on the test data of a config."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.structures import DataSample

from mmmixmim.runtime import (
    add_run_arguments,
    build_runner,
    check_data_roots,
    load_config,
    one_line_errors,
    prepare_run,
)
from mmmixmim.runtime.entries import config_entry, type_name
from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='save the predictions to this file'
    )
    parser.add_argument('--show-dir', help='draw the predictions into this folder')
    add_run_arguments(parser)
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the test options to the config."""
    if not cfg.get('test_dataloader'):
        raise UserError(
            f'{args.config} has no test_dataloader. Pretraining configs cannot be '
            'tested, only those of downstream tasks.'
        )
    # The config that a resumed run saved says that it resumes.
    cfg.resume, cfg.load_from = False, args.checkpoint
    if args.show_dir:
        draw_into(cfg, args.show_dir)


def draw_into(cfg: Config, folder: str) -> None:
    """Make the visualization hook of the config draw every prediction."""
    hook = config_entry(cfg, 'default_hooks.visualization') or {}
    name = type_name(hook)
    folder = str(Path(folder).absolute())
    if name == 'VisualizationHook':
        hook.update(enable=True, interval=1, out_dir=folder)
    elif name == 'DetVisualizationHook':
        hook.update(draw=True, interval=1, test_out_dir=folder)
    elif name == 'SegVisualizationHook':
        hook.update(draw=True, interval=1)
        cfg.visualizer.save_dir = folder
    else:
        raise UserError(
            '--show-dir needs the visualization hook of mmpretrain, mmdet or mmseg in '
            'the config, as default_hooks.visualization.'
        )


def draw_each(
    hook: VisualizationHook,
    runner: Runner,
    batch_idx: int,
    data_batch: dict,
    outputs: Sequence[DataSample],
) -> None:
    """Draw a batch with mmpretrain's hook, with a number in each file name.

    The hook names pictures after the images, which may have the same name in other
    folders, or by numbers that are wrong if the last batch is smaller.
    """
    world = get_world_size()
    size = runner.test_dataloader.batch_size
    pairs = zip(data_batch['inputs'], outputs, strict=True)
    for i, (image, sample) in enumerate(pairs):
        number = (batch_idx * size + i) * world + get_rank()
        hook._draw_samples(number, dict(inputs=[image]), [sample], step=number)


def shorten(line: str) -> str:
    """Shorten a list of keys, "what is wrong: key, key, key"."""
    what, colon, keys = line.partition(': ')
    return what + colon + summarise_keys(keys.split(', '))


@one_line_errors()
def main() -> None:
    """Test the checkpoint."""
    args = parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must be a .pkl file, got {args.out}')
    # The folder may be that of the training, whose config.py stays.
    cfg = load_config(args.config, args.cfg_options, save_as='test_config.py')
    prepare_run(cfg, args.config, args.launcher, args.work_dir, args.local_rank)
    apply_options(cfg, args)
    check_data_roots(cfg, ('test',))
    runner = build_runner(cfg)
    # A key that is not loaded would leave a part of the model random.
    runner.load_checkpoint = partial(runner.load_checkpoint, strict=True)
    if args.show_dir:
        for hook in runner.hooks:
            if isinstance(hook, VisualizationHook):
                hook.after_test_iter = partial(draw_each, hook)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    try:
        runner.test()
    except RuntimeError as error:
        if 'state dict do not match' not in str(error):
            raise
        lines = filter(None, str(error).splitlines())
        problems = '; '.join(map(shorten, lines))
        raise UserError(
            f'{args.checkpoint} is not a checkpoint of this whole model. {problems}'
        ) from error


if __name__ == '__main__':
    main()
