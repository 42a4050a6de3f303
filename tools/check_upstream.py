"""Train, get killed, resume, load and build with the packages of this environment.

``tools/check_upstream.sh`` runs it with upstream's packages.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ROOT / 'tools' / 'train.py'
TEST = ROOT / 'tools' / 'test.py'
PRETRAIN = ROOT / 'configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'
CLASSIFY = ROOT / 'configs/digits/mixmim-tiny_1xb64-coslr-20e_digits.py'
SHORT = ['train_dataloader.num_workers=0', 'train_cfg.max_epochs=3']
SHORT += ['default_hooks.checkpoint.interval=1', 'train_dataloader.dataset.indices=256']
RESUMABLE = [
    'default_hooks.checkpoint.save_optimizer=True',
    'default_hooks.checkpoint.save_param_scheduler=True',
]


def run(folder: Path, *arguments: object) -> None:
    """Run a script; raise with the end of its output if it fails."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(' | '.join(result.stdout.strip().splitlines()[-3:]))


def train(folder: Path) -> None:
    """Pretrain for three epochs."""
    options = ['--cfg-options', *SHORT, *RESUMABLE]
    run(folder, TRAIN, PRETRAIN, '--work-dir', 'whole', *options)


def kill(folder: Path) -> None:
    """Kill a run after its first checkpoint."""
    command = [sys.executable, str(TRAIN), str(PRETRAIN), '--work-dir', 'killed']
    process = subprocess.Popen(
        [*command, '--cfg-options', *SHORT, *RESUMABLE],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (folder / 'killed' / 'last_checkpoint').exists():
        if process.poll() is not None:
            raise RuntimeError('the run ended before its first checkpoint')
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def resume(folder: Path) -> None:
    """Resume the killed run, which must then reach its last epoch."""
    options = ['--cfg-options', *SHORT, *RESUMABLE]
    run(folder, TRAIN, PRETRAIN, '--work-dir', 'killed', '--resume', *options)
    lines = (folder / 'killed').glob('*/vis_data/scalars.json')
    epochs = [json.loads(x)['epoch'] for f in lines for x in f.open() if 'epoch' in x]
    if max(epochs) != 3 or not (folder / 'killed' / 'epoch_3.pth').exists():
        raise RuntimeError(f'the resumed run ended after epoch {max(epochs)}')


def finetune(folder: Path) -> None:
    """Fine-tune from the pretrained weights, then test the result."""
    start = dict(type='Pretrained', checkpoint=folder / 'whole' / 'epoch_3.pth')
    start = [f'model.backbone.init_cfg.{key}={value}' for key, value in start.items()]
    options = ['--cfg-options', *SHORT, *start]
    run(folder, TRAIN, CLASSIFY, '--work-dir', 'tuned', *options)
    run(folder, TEST, CLASSIFY, folder / 'tuned' / 'epoch_3.pth')


def load(folder: Path) -> None:
    """Load a checkpoint into the model by the library."""
    from mmengine.config import Config
    from mmengine.runner import load_checkpoint

    from mmmixmim.registry import MODELS

    model = MODELS.build(Config.fromfile(PRETRAIN).model)
    load_checkpoint(model, str(folder / 'whole' / 'epoch_3.pth'), strict=True)


def types(folder: Path) -> None:
    """Find every type of ours by its name, and build each encoder's small model."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmmixmim import registry
    from mmmixmim.validation import MissingDependencyError

    init_default_scope('mmmixmim')
    for name in registry.__all__:
        for kind in getattr(registry, name).module_dict:
            if getattr(registry, name).get(f'mmmixmim.{kind}') is None:
                raise RuntimeError(f'{kind} is not found')
    failed = []
    for path in sorted((ROOT / 'configs' / 'digits').glob('mixmim_*.py')):
        try:
            registry.MODELS.build(Config.fromfile(path).model)
        except MissingDependencyError as error:
            print(f'left out: {error}')
        except Exception as error:
            failed.append(f'{path.stem}: {error}'.splitlines()[0])
    if failed:
        raise RuntimeError('; '.join(failed))


def check(step: Callable[[Path], None], folder: Path) -> bool:
    """Run one step and print its result."""
    start = time.monotonic()
    try:
        step(folder)
        problem = ''
    except Exception as error:
        problem = f' {type(error).__name__}: {error}'
    seconds = time.monotonic() - start
    verdict = 'fails:' if problem else 'works'
    print(f'{step.__name__:9} {seconds:4.0f} s  {verdict}{problem}', flush=True)
    return not problem


def main() -> None:
    """Run all steps."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    import mmcv
    import mmengine
    import mmpretrain
    import torch

    for package in (mmengine, mmcv, mmpretrain, torch):
        print(package.__name__, package.__version__)
    with tempfile.TemporaryDirectory() as folder:
        steps = (types, train, kill, resume, load, finetune)
        results = [check(step, Path(folder)) for step in steps]
    raise SystemExit(not all(results))


if __name__ == '__main__':
    main()
