"""What to do next: commands that follow the verdicts."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from mmmixmim.datasets.labelled import labelled_folder_of
from mmmixmim.runtime.entries import config_entry, is_amp

from .facts import dataset_of, is_complete, is_pretraining
from .run import RecordedRun

# The learning rate is the likely reason, and nothing but training again helps.
_RATE = {'not-finite', 'diverged', 'high-rate'}
# The images that the model gets may be the reason.
_IMAGES = {'near-zero', 'collapsed', 'nothing-learned'}
_PLACEHOLDERS = re.compile(r'/data/labelled|\b(?:FOLDER|MEAN|STD|RATE|RANK|ADDRESS)\b')


@dataclass(frozen=True)
class Advice:
    """A step to take next.

    Args:
        purpose: What it is for.
        command: The command; empty if there is none for it.
    """

    purpose: str
    command: str = ''


def placeholders(steps: list[Advice]) -> list[str]:
    """Words in commands that readers replace, in order of appearance."""
    found = _PLACEHOLDERS.findall(' '.join(step.command for step in steps))
    return list(dict.fromkeys(found))


def next_steps(run: RecordedRun) -> list[Advice]:
    """List what to do next, the most urgent first."""
    kinds = {finding.kind for finding in run.findings}
    failed = run.findings[0].severity == 'error'
    steps = _mend(run, kinds)
    if not failed and not is_complete(run) and run.checkpoints:
        steps.append(_resume(run))
    if failed or not run.checkpoints:
        return steps
    if not is_pretraining(run):
        checkpoint = shlex.quote(str(run.checkpoints[-1]))
        config = shlex.quote(str(run.folder / 'config.py'))
        option = '--checkpoint ' if _by_command(run) else ''
        test = f'{_tool(run, "test")} {config} {option}{checkpoint}'
        steps.append(Advice('Evaluate the last checkpoint', test))
        return [*steps, with_images(run.folder)] if _by_command(run) else steps
    dataset = dataset_of(run, 'train')
    root, no_data = dataset.get('data_root'), _no_data(dataset)
    return [
        *steps,
        _draw(run, 'Draw reconstructions of other images of these data'),
        *with_labels(run.folder, root, run.checkpoints[-1], no_data),
    ]


def with_labels(
    folder: Path, data: str | None, start: Path, no_data: str | float | None
) -> list[Advice]:
    """List how to use a pretrained encoder on labelled images.

    Args:
        folder: Folder of the run.
        data: Folder that it was trained on. If it is ``train`` of labelled images, they
            are used; else readers put their own.
        start: Run or checkpoint of the encoder.
        no_data: Value of pixels without data that it was trained with; None for none.
    """
    labelled = labelled_folder_of(Path(data)) if data else None
    steps = []
    for command, name, purpose in (
        (
            'probe',
            'probe',
            'Score the frozen encoder on labelled images (a folder per class)',
        ),
        ('finetune', 'classifier', 'Fine-tune the encoder on them'),
    ):
        words = [command, str(labelled or '/data/labelled'), '--from', str(start)]
        words += ['--out', str(beside(folder, name))]
        words += [] if no_data is None else [f'--no-data={no_data}']
        steps.append(Advice(purpose, f'python -m mmmixmim {shlex.join(words)}'))
    return steps


def with_images(folder: Path) -> Advice:
    """How to use a classifier, the run in this folder, on new images."""
    command = shlex.join(['predict', 'FOLDER', '--from', str(folder)])
    return Advice('Classify new images', f'python -m mmmixmim {command}')


def beside(folder: Path, name: str) -> Path:
    """Folder of another run, beside that of a run."""
    folder = folder if folder.name.strip('.') else folder.resolve()
    return folder.with_name(f'{folder.name}-{name}')


def _mend(run: RecordedRun, kinds: set[str]) -> list[Advice]:
    """Steps against what is wrong."""
    steps = []
    if kinds & _IMAGES and not kinds & _RATE and run.checkpoints:
        steps.append(
            _draw(run, 'Check whether the images that the model gets are blank')
        )
    if 'near-zero' in kinds:
        steps += _mend_target(run)
    elif kinds & (_RATE | {'collapsed', 'shrinks'}):
        steps.append(_lower_rate(run, 'not-finite' in kinds))
    elif 'nothing-learned' in kinds:
        steps += [_lower_rate(run), _other_rate(run, 10, 'ten times', 'higher-lr')]
    if 'held-out-rises' in kinds:
        folder = dataset_of(run, 'train').get('data_root')
        where = f' to {folder}' if folder else ''
        if 'images' in run.counts:
            where += f' (now {run.counts["images"]:,})'
        steps.append(Advice(f'Add images{where}: more images usually help most'))
        best = [path for path in run.checkpoints if path.name.startswith('best_')]
        if not best:
            steps.append(
                _again(
                    run,
                    'Train again and keep the checkpoint of the lowest held-out loss',
                    'best',
                    'default_hooks.checkpoint.save_best=reconstruction/loss',
                    'default_hooks.checkpoint.rule=less',
                )
            )
    if 'mask-ratio' in kinds:
        purpose = 'Start again and hide half of each image'
        steps.append(_again(run, purpose, 'mask-0.5', 'model.mask_ratio=0.5'))
    return steps


def _mend_target(run: RecordedRun) -> list[Advice]:
    preprocessor = config_entry(run.config, 'model.data_preprocessor')
    preprocessor = preprocessor if isinstance(preprocessor, dict) else {}
    if 'mean' not in preprocessor:
        return [
            Advice('Check the target of the head and how the images are normalised')
        ]
    used = ', '.join(f'{name} {preprocessor.get(name)}' for name in ('mean', 'std'))
    return [
        Advice(
            'Compare mean and standard deviation of your images with those that '
            f'normalise them ({used}). Pictures of 8 bits have values from 0 to 255'
        ),
        _again(
            run,
            'Start again with the right ones, a value per channel',
            'normalised',
            'model.data_preprocessor.mean=[MEAN]',
            'model.data_preprocessor.std=[STD]',
        ),
        Advice('If they are right: check the target of the head'),
    ]


def _lower_rate(run: RecordedRun, overflow: bool = False) -> Advice:
    """Train again with a tenth of the learning rate, more stably."""
    options, extra = [], ''
    if config_entry(run.config, 'optim_wrapper.clip_grad') is None:
        options.append('optim_wrapper.clip_grad.max_norm=1.0')
        extra = ' and clipped gradients'
    wrapper = run.config.get('optim_wrapper') or {}
    dtype = config_entry(run.config, 'optim_wrapper.dtype')
    if overflow and is_amp(wrapper) and dtype != 'bfloat16':
        options.append('optim_wrapper.dtype=bfloat16')
        extra += ', in bfloat16'
    return _other_rate(run, 0.1, 'a tenth', 'lower-lr', *options, extra=extra)


def _other_rate(
    run: RecordedRun,
    factor: float,
    words: str,
    name: str,
    *options: str,
    extra: str = '',
) -> Advice:
    rate = config_entry(run.config, 'optim_wrapper.optimizer.lr')
    rate = f'{rate * factor:.3g}' if isinstance(rate, (int, float)) else 'RATE'
    purpose = f'Start again with {words} of the learning rate{extra}'
    return _again(run, purpose, name, f'optim_wrapper.optimizer.lr={rate}', *options)


def _again(run: RecordedRun, purpose: str, name: str, *options: str) -> Advice:
    """Train again into another folder, with other entries of the config."""
    if _from_python(run):
        how = []
        for entry, _, value in (option.partition('=') for option in options):
            if entry == 'optim_wrapper.optimizer.lr':
                how.append(f'call mmmixmim.pretrain with another out and lr={value}')
            else:
                what = f'set {entry}={value} in a config'
                how.append(f'{what} (mmmixmim.pretrain has no argument for it)')
        return Advice(f'{purpose}: {", and ".join(how)}')
    folder = beside(run.folder, name)
    if config_entry(run.config, 'resume'):  # else the new run continues the old one
        options = ('resume=False', f'load_from={run.load_from}', *options)
    command = _train(run, '--work-dir', str(folder), '--cfg-options', *options)
    return Advice(purpose, command)


def _resume(run: RecordedRun) -> Advice:
    purpose = 'Continue the training, if it was interrupted'
    command = config_entry(run.config, 'default_hooks.preemption.resume_by')
    if isinstance(command, str):
        return Advice(f'{purpose}, by the same command again', command)
    return Advice(purpose, _train(run, '--work-dir', str(run.folder), '--resume'))


def _train(run: RecordedRun, *options: str) -> str:
    """Train by the config of the run, in as many processes."""
    config = str(run.folder / 'config.py')
    processes = run.counts.get('processes', 1)
    here = run.counts.get('processes_here', processes) or 1
    if processes == 1:
        return f'{_tool(run, "train")} {shlex.join([config, *options])}'
    several, prefix = here < processes, ''
    words = ['bash', 'tools/dist_train.sh', config, str(here)]
    if _by_command(run):
        words = ['mim', 'train', 'mmmixmim', config, '--gpus', str(here)]
        words += ['--launcher', 'pytorch']
        if several:
            # mim has no options for this. Its launcher, that of PyTorch, reads them
            # from variables with a prefix, and needs the same port on all machines.
            words += ['--port', '29500']
            prefix = 'PET_'
    machines = dict(NNODES=processes // here, NODE_RANK='RANK', MASTER_ADDR='ADDRESS')
    variables = ''.join(f'{prefix}{name}={each} ' for name, each in machines.items())
    return (variables if several else '') + shlex.join([*words, *options])


def _draw(run: RecordedRun, purpose: str) -> Advice:
    out = shlex.quote(str(run.folder / 'reconstruction-1.png'))
    folder, config, checkpoint = (
        shlex.quote(str(path))
        for path in (run.folder, run.folder / 'config.py', run.checkpoints[-1])
    )
    what = f'python tools/visualize_reconstruction.py {config} {checkpoint}'
    if _by_command(run):
        what = f'python -m mmmixmim reconstruct {folder}'
    if _from_python(run):  # its images are not in files
        what += ' --images FOLDER'
    return Advice(purpose, f'{what} --seed 1 --out {out}')


def _tool(run: RecordedRun, name: str) -> str:
    """How to call a tool: users of the command need not have the repository."""
    if _by_command(run):
        return f'mim {name} mmmixmim'
    return f'python tools/{name}.py'


def _no_data(dataset: dict) -> str | float | None:
    """Value of pixels without data that the pipeline of a dataset names."""
    transforms = dataset.get('pipeline') or ()
    values = (each.get('no_data') for each in transforms if isinstance(each, dict))
    return next((value for value in values if value is not None), None)


def _from_python(run: RecordedRun) -> bool:
    return dataset_of(run, 'train').get('type') == 'WrappedDataset'


def _by_command(run: RecordedRun) -> bool:
    return (run.folder / 'run.json').is_file()
