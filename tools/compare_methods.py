"""Compare MixMIM, its ablations and SimMIM on a CPU.

Pretrains small encoders on digits scattered over larger images (no download), then
scores them by linear probing and fine-tuning, at equal steps and at equal compute. With
`--steps dense`: by detection and segmentation of drawn shapes. Each finished run leaves
a JSON file; given again, the command continues where it stopped.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from ablation_report import report  # beside this script
from ablation_runs import (  # beside this script
    ARMS,
    BATCH_SIZE,
    BUDGETS,
    ENCODERS,
    TASKS,
    Run,
    digits_config,
    execute,
    read_config,
    shapes_config,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from steps import Step, run_steps  # beside this script

from mmmixmim.benchmarking import interleave, machine, pairwise_ratio
from mmmixmim.registry import MODELS
from mmmixmim.runtime import (
    one_line_errors,
    positive_int,
    random_seed,
    require,
    write_json,
)
from mmmixmim.synthetic import write_dataset
from mmmixmim.text import duration
from mmmixmim.validation import UserError

EPOCHS = 16
ROUNDS = 20  # of timing

# ---- plan ----------------------------------------------------------------------------


def plan_runs(
    task: str,
    encoders: Iterable[str],
    arms: Iterable[str],
    seeds: Iterable[int],
    costs: dict[str, dict[str, float]],
    epochs: int = EPOCHS,
) -> list[Run]:
    """List the runs of a task.

    One run serves both budgets if it has the same number of epochs in both.

    Args:
        task: A key of ``TASKS``, which tells the arms that it has.
        encoders: Keys of ``ENCODERS``.
        arms: Keys of ``ARMS``.
        seeds: Random seeds.
        costs: Cost of a step relative to MixMIM's, by encoder and arm.
        epochs: Epochs of MixMIM.
    """
    runs = []
    for encoder in encoders:
        for arm in filter(TASKS[task].__contains__, arms):
            for budget in BUDGETS:
                length = epochs if ARMS[arm][1] is not None else 0
                if budget == 'compute' and length:
                    length = max(1, round(epochs / costs[encoder][arm]))
                if budget == 'compute' and length in (0, epochs):
                    continue  # the same as at equal steps
                runs += [
                    Run(task, encoder, arm, budget, seed, length) for seed in seeds
                ]
    return runs


# ---- costs ---------------------------------------------------------------------------


def measure_costs(task: str, encoders: Iterable[str], rounds: int) -> dict:
    """Time training steps of all methods in turns, in this process.

    Returns:
        ``costs``, the median cost of a step relative to MixMIM's by encoder and arm;
        ``seconds``, the median time of a step; and ``machine``.
    """
    torch.set_num_threads(1)
    record = dict(costs={}, seconds={}, machine=machine())
    for encoder in encoders:
        steps = {}
        for arm in TASKS[task]:
            if ARMS[arm][1] is not None:
                run = Run(task, encoder, arm, 'steps', 0, 1)
                cfg = (
                    digits_config(run, pretrain=True)
                    if task == 'digits'
                    else shapes_config(run, 'pretrain', Path())
                )
                steps[arm] = training_step(cfg)
        seconds = interleave(steps, rounds)
        record['seconds'][encoder] = {
            arm: statistics.median(each) for arm, each in seconds.items()
        }
        record['costs'][encoder] = {
            arm: pairwise_ratio(each, seconds['mixmim'])['median']
            for arm, each in seconds.items()
        }
    return record


def training_step(cfg: Config) -> Callable[[], None]:
    """A function that trains the model of a config for one step."""
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).train()
    images = torch.randn(BATCH_SIZE, 3, *model.backbone.img_size)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model.loss(images)['loss'].backward()
        optimizer.step()

    return step


# ---- command line --------------------------------------------------------------------


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--steps',
        nargs='+',
        choices=['costs', 'digits', 'dense'],
        default=['digits'],
        help='what to do: measure the costs again, which discards the runs at equal '
        'compute; compare on the digits; compare on the drawn shapes (digits). costs '
        'alone measures and stops',
    )
    parser.add_argument(
        '--arms', nargs='+', choices=ARMS, default=list(ARMS), help='methods (all)'
    )
    parser.add_argument(
        '--encoders',
        nargs='+',
        choices=ENCODERS,
        default=list(ENCODERS),
        help='encoders (all)',
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=random_seed,
        default=[0, 1, 2],
        help='random seeds (0 1 2)',
    )
    parser.add_argument(
        '--jobs', type=positive_int, default=2, help='runs at a time (2)'
    )
    parser.add_argument(
        '--work-dir', type=Path, help='output folder (work_dirs/compare[-quick])'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='train for one epoch on a few images, to check that everything runs',
    )
    parser.add_argument('--run', help=argparse.SUPPRESS)  # one run, in this process
    args = parser.parse_args()
    name = 'compare-quick' if args.quick else 'compare'
    args.work_dir = args.work_dir or Path('work_dirs') / name
    return args


def read_costs(task: str, args: argparse.Namespace) -> dict:
    """Read the costs of a task; measure those that nobody has measured."""
    path = args.work_dir / f'costs-{task}.json'
    if not path.exists():
        print(f'Measuring the cost of a step: {task}.', flush=True)
        write_json(path, measure_costs(task, ENCODERS, 1 if args.quick else ROUNDS))
    return json.loads(path.read_text())['costs']


def discard_costs(task: str, args: argparse.Namespace) -> None:
    """Forget the costs of a task, and the runs whose length follows from them."""
    (args.work_dir / f'costs-{task}.json').unlink(missing_ok=True)
    for old in (args.work_dir / 'runs').glob(f'{task}-*-compute-*.json'):
        old.unlink()


def chosen_tasks(args: argparse.Namespace) -> list[str]:
    """The tasks that the options name; with ``costs`` alone, all."""
    tasks = dict(digits='digits', dense='shapes')
    return [tasks[each] for each in args.steps if each in tasks] or list(TASKS)


def check_quick(args: argparse.Namespace) -> None:
    """Raise if the folder has quick runs and full ones are asked for, or vice versa."""
    path = args.work_dir / 'quick.json'
    if path.exists() and json.loads(path.read_text()) != args.quick:
        there, here = ('full', 'quick') if args.quick else ('quick', 'full')
        raise UserError(
            f'{args.work_dir} has {there} runs, which {here} ones must not mix with: '
            'choose another --work-dir.'
        )
    write_json(path, args.quick)


def make_plan(args: argparse.Namespace) -> list[Run]:
    """List all runs that the options ask for, each once."""
    runs = []
    lengths = dict(
        digits=EPOCHS,
        shapes=read_config('shapes', 'mixmim_mixmim-*.py').train_cfg.max_epochs,
    )
    for task in chosen_tasks(args):
        runs += plan_runs(
            *(task, args.encoders, args.arms, args.seeds, read_costs(task, args)),
            1 if args.quick else lengths[task],
        )
    return list(dict.fromkeys(runs))


def is_done(run: Run, work_dir: Path) -> bool:
    """Whether a run has finished, and with the length that is asked for."""
    path = work_dir / 'runs' / f'{run.name}.json'
    return path.exists() and json.loads(path.read_text())['epochs'] == run.epochs


def draw_shapes(root: Path, quick: bool) -> None:
    """Draw the shapes, unless that is done. The file looked for is written last."""
    if not (root / 'annotations' / 'instances_val.json').exists():
        counts = (96, 16, 8) if quick else (3500, 500, 200)
        names = ('unlabelled', 'train', 'val')
        write_dataset(root, dict(zip(names, counts, strict=True)))


def as_steps(runs: list[Run], args: argparse.Namespace) -> list[tuple[Step, ...]]:
    """Group runs that go at the same time."""
    common = ['--work-dir', args.work_dir, '--steps', *args.steps]
    common += ['--quick'] if args.quick else []
    steps = []
    for run in runs:
        command = [Path(__file__).resolve(), *common, '--arms', run.arm]
        command += ['--encoders', run.encoder, '--seeds', run.seed, '--run', run.name]
        cost = run.epochs + (14 if run.task == 'digits' else 6)
        cost *= 1 if run.task == 'digits' else 10
        steps.append(Step(run.name, command, cost, run.epochs))
    groups = range(math.ceil(len(steps) / args.jobs))
    return [tuple(steps[i * args.jobs : (i + 1) * args.jobs]) for i in groups]


def run_one(args: argparse.Namespace) -> None:
    """Do one run of the plan and save its result."""
    args.steps = [each for each in args.steps if each != 'costs']
    found = [run for run in make_plan(args) if run.name == args.run]
    if not found:
        raise UserError(f'The options given lead to no run {args.run}.')
    (run,) = found
    scores = execute(run, args.work_dir, args.quick)
    write_json(
        args.work_dir / 'runs' / f'{run.name}.json', asdict(run) | dict(scores=scores)
    )


@one_line_errors()
def main() -> None:
    """Do all runs that are left and report."""
    args = parse_args()
    if args.run:
        return run_one(args)
    if 'dense' in args.steps:
        for scope in ('mmdet', 'mmseg'):
            require(scope)
    check_quick(args)
    if 'dense' in args.steps:
        draw_shapes(args.work_dir / 'shapes', args.quick)
    if 'costs' in args.steps:
        for task in chosen_tasks(args):
            discard_costs(task, args)
            read_costs(task, args)
    runs = [] if args.steps == ['costs'] else make_plan(args)
    left = [run for run in runs if not is_done(run, args.work_dir)]
    print(f'{len(runs) - len(left)} of {len(runs)} runs are done.', flush=True)
    if left:
        _, seconds = run_steps(as_steps(left, args), args.work_dir / 'logs')
        print(f'\nTook {duration(seconds)}.')
    print(report(args.work_dir) + f'\nFigures and logs: {args.work_dir}')


if __name__ == '__main__':
    main()
