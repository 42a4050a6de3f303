"""Compare MixMIM with its ablations and with SimMIM's way, on a CPU.

Pretrains small encoders on digits scattered over larger images (no download), then
scores them by linear probing and fine-tuning, at equal steps and at equal compute. With
`--steps dense`: by detection and segmentation of drawn shapes. Each finished run leaves
a JSON file; given again, the command goes on where it stopped.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmmixmim.benchmarking import (
    interleave,
    machine,
    markdown_table,
    pairwise_ratio,
)
from mmmixmim.evaluation import extract_features, linear_probe
from mmmixmim.registry import MODELS
from mmmixmim.runtime import (
    Step,
    build_runner,
    duration,
    load_config,
    one_line_errors,
    positive_int,
    prepare_run,
    replace_file,
    require,
    run_steps,
)
from mmmixmim.synthetic import write_dataset
from mmmixmim.validation import UserError

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
# Batches hold 2, 3 and 4 times as many images as there are mixtures.
BATCH_SIZE = 48
EPOCHS = 16
FINETUNE_EPOCHS = 40
FINETUNE_LABELS = 50
LABELS = (10, 50, None)  # of each class, for the probe; None means all
ROUNDS = 20  # of timing

# ---- what is compared ----------------------------------------------------------------

# Title, and how the MixMIM of the config changes. None: no pretraining.
ARMS = {
    'mixmim': ('MixMIM', {}),
    'mask_token': ('mask token', dict(filling='mask_token')),
    'simmim': (
        'SimMIM: mask token, linear decoder',
        dict(
            filling='mask_token',
            neck=dict(type='SimMIMLinearDecoder', encoder_stride=8, in_channels=128),
            head=dict(
                type='SimMIMHead',
                patch_size=2,
                loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
            ),
        ),
    ),
    'unblocked': ('attention between images', dict(isolate=False)),
    'single': ('one image reconstructed', dict(reconstruct='own')),
    'k3': ('three images', dict(num_images=3)),
    'k4': ('four images', dict(num_images=4)),
    'none': ('no pretraining', None),
}
# Tasks, and the arms that each compares.
TASKS = dict(digits=tuple(ARMS), shapes=('mixmim', 'mask_token', 'none'))

ENCODERS = {
    'mixmim': ('MixMIMTransformer', dict(type='mmmixmim.MixMIMTransformer')),
    'swin': ('Swin', dict(type='mmmixmim.MixMIMSwinTransformer', pad_small_map=True)),
}
# Windows grow relative to the maps as in the published sizes; Swin's are shifted.
DIGITS_ENCODER = dict(
    arch=dict(embed_dims=32, depths=[1, 2, 1], num_heads=[2, 4, 8]),
    img_size=32,
    patch_size=2,
)
DIGITS_WINDOWS = dict(mixmim=[8, 8, 4], swin=4)
SHAPES_WINDOWS = dict(mixmim=[6, 6, 6], swin=6)

BUDGETS = dict(steps='equal steps', compute='equal compute')
SCORES = {
    **{f'probe-{n or "all"}': f'probe, {n or "all"} labels' for n in LABELS},
    'finetune': 'fine-tuning',
}
DENSE_SCORES = dict(segm_AP='segm AP', mIoU='mIoU')


@dataclass(frozen=True)
class Run:
    """One encoder, trained one way.

    Attributes:
        task: A key of ``TASKS``.
        encoder: A key of ``ENCODERS``.
        arm: A key of ``ARMS``.
        budget: A key of ``BUDGETS``.
        seed: Random seed.
        epochs: Length of pretraining.
    """

    task: str
    encoder: str
    arm: str
    budget: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Name of its files."""
        parts = (self.task, self.encoder, self.arm, self.budget, f'seed{self.seed}')
        return '-'.join(parts)


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


# ---- configs -------------------------------------------------------------------------


def read_config(folder: str, pattern: str) -> Config:
    """Read the one config in a folder that matches."""
    (path,) = (CONFIGS / folder).glob(pattern)
    return Config.fromfile(path)


def set_length(cfg: Config, epochs: int) -> None:
    """Train for ``epochs``, a tenth of them as warm-up, and evaluate at the end."""
    cfg.train_cfg.max_epochs = epochs
    if 'val_interval' in cfg.train_cfg:
        cfg.train_cfg.val_interval = epochs
    cfg.param_scheduler = [
        dict(
            type='mmmixmim.WarmupCosineLR',
            warmup=epochs / 10,
            end=epochs,
            convert_to_iter_based=True,
        )
    ]
    cfg.default_hooks.checkpoint.interval = epochs


def leave_unwatched(cfg: Config) -> None:
    """Measure nothing during the training."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = []


def apply_arm(cfg: Config, arm: str) -> None:
    """Change a pretraining config to another method."""
    for name, value in ARMS[arm][1].items():
        cfg.model[name] = value


def digits_config(run: Run, pretrain: bool, quick: bool = False) -> Config:
    """The config of pretraining, or else of fine-tuning, on the digits."""
    kind = 'mixmim_mixmim-*' if pretrain else 'mixmim-tiny_1xb64-*'
    cfg = read_config('digits', f'{kind}.py')
    backbone = ENCODERS[run.encoder][1] | DIGITS_ENCODER
    if run.encoder == 'swin':
        backbone |= dict(out_indices=(2,))
    cfg.model.backbone = dict(
        backbone, window_size=DIGITS_WINDOWS[run.encoder], drop_path_rate=0.0
    )
    cfg.model.data_preprocessor |= dict(mean=[70.0] * 3, std=[60.0] * 3)
    if pretrain:
        leave_unwatched(cfg)
    pipeline = [dict(type='PackInputs')]
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        loader |= dict(num_workers=0, persistent_workers=False)
        loader.dataset |= dict(type='ScatteredDigits', pipeline=pipeline)
        if split != 'train':
            loader.dataset.draws = 1 if quick else 3
    cfg.train_dataloader |= dict(batch_size=BATCH_SIZE, drop_last=True)
    if pretrain:
        cfg.model.neck.decoder_depth = 1
        apply_arm(cfg, run.arm)
        set_length(cfg, run.epochs)
    else:
        cfg.train_dataloader.batch_size = 50
        cfg.train_dataloader.dataset |= dict(
            samples_per_class=FINETUNE_LABELS, seed=run.seed
        )
        set_length(cfg, 1 if quick else FINETUNE_EPOCHS)
    if quick:
        cfg.train_dataloader.num_batch_per_epoch = 1
    cfg.randomness = dict(seed=run.seed)
    return cfg


def shapes_config(run: Run, kind: str, data: Path, quick: bool = False) -> Config:
    """The config of 'pretrain', 'detect' or 'segment' on the drawn shapes."""
    patterns = dict(
        pretrain='mixmim_mixmim-*.py', detect='mask-rcnn_*.py', segment='*_upernet_*.py'
    )
    cfg = read_config('shapes', patterns[kind])
    if kind == 'pretrain':
        leave_unwatched(cfg)
    backbone = {k: v for k, v in cfg.model.backbone.items() if k != 'type'}
    backbone |= ENCODERS[run.encoder][1]
    if run.encoder == 'swin':
        backbone |= dict(out_indices=(2,) if kind == 'pretrain' else (0, 1, 2))
    cfg.model.backbone = backbone | dict(window_size=SHAPES_WINDOWS[run.encoder])
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            loader |= dict(num_workers=0, persistent_workers=False)
            loader.dataset.data_root = str(data)
    if kind == 'pretrain':
        cfg.train_dataloader.dataset.data_root = str(data / 'images' / 'unlabelled')
        # The batch is a multiple of the images in a mixture.
        cfg.train_dataloader |= dict(batch_size=BATCH_SIZE, drop_last=True)
        apply_arm(cfg, run.arm)
        set_length(cfg, run.epochs)
    elif quick:
        set_length(cfg, 1)
    if kind == 'detect':
        truth = str(data / 'annotations' / 'instances_val.json')
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = truth
    cfg.randomness = dict(seed=run.seed)
    return cfg


# ---- one run -------------------------------------------------------------------------


def train(cfg: Config, path: Path) -> Runner:
    """Save a config, from which tools/train.py repeats this, and train it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    loaded = load_config(path)
    prepare_run(loaded, path, work_dir=str(path.with_suffix('')))
    loaded.experiment_name = f'{path.parent.name}-{path.stem}'
    if path.stem != 'pretrain':  # the progress line follows pretraining
        loaded.log_level = 'WARNING'
    runner = build_runner(loaded)
    runner.train()
    return runner


def scalar(runner: Runner, name: str) -> float:
    """The last value of a logged figure."""
    return float(runner.message_hub.get_scalar(name).current())


def run_digits(run: Run, folder: Path, quick: bool) -> dict[str, float]:
    """Pretrain, probe and fine-tune."""
    scores = {}
    cfg = digits_config(run, pretrain=False, quick=quick)
    if run.epochs:
        runner = train(digits_config(run, True, quick), folder / 'pretrain.py')
        scores['loss'] = scalar(runner, 'train/loss')
        start_from(cfg, folder, run.epochs)
    scores |= probe(cfg, run.seed, quick)
    runner = train(cfg, folder / 'finetune.py')
    scores['finetune'] = scalar(runner, 'val/accuracy/top1')
    return scores


def run_shapes(run: Run, folder: Path, quick: bool) -> dict[str, float]:
    """Pretrain, train Mask R-CNN and train UperNet."""
    data = folder.parent.parent / 'shapes'
    scores = {}
    if run.epochs:
        runner = train(shapes_config(run, 'pretrain', data), folder / 'pretrain.py')
        scores['loss'] = scalar(runner, 'train/loss')
    for kind, name, score, percent in (
        ('detect', 'val/coco/segm_mAP', 'segm_AP', 100),
        ('segment', 'val/mIoU', 'mIoU', 1),
    ):
        cfg = shapes_config(run, kind, data, quick)
        if run.epochs:
            start_from(cfg, folder, run.epochs)
        runner = train(cfg, folder / f'{kind}.py')
        # Without any detection mmdet reports no AP.
        found = name in runner.message_hub.log_scalars
        scores[score] = percent * scalar(runner, name) if found else 0.0
    return scores


def start_from(cfg: Config, folder: Path, epochs: int) -> None:
    """Start a config from the encoder that was pretrained in ``folder``."""
    checkpoint = folder / 'pretrain' / f'epoch_{epochs}.pth'
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.'
    )


def probe(cfg: Config, seed: int, quick: bool) -> dict[str, float]:
    """Accuracies of the linear probe in percent, with few and all labels."""
    from linear_probe import build_loaders  # beside this script

    init_default_scope(cfg.default_scope)
    set_random_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    cfg = Config(cfg.to_dict())
    cfg.train_dataloader.dataset.pop('samples_per_class')
    train, test = (extract_features(model, loader) for loader in build_loaders(cfg))
    scores = {}
    for count in LABELS:
        draws = range(3 if count and not quick else 1)
        found = [linear_probe(train, test, count, draw) for draw in draws]
        scores[f'probe-{count or "all"}'] = statistics.mean(found)
    return scores


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    replace_file(path, json.dumps(content, indent=1) + '\n')


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


# ---- report --------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    """Format mean and standard deviation over the seeds."""
    text = f'{statistics.mean(values):.1f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.1f}'
    return text


def tabulate(results: list[dict], task: str) -> str:
    """A Markdown table of mean and standard deviation for each encoder."""
    scores = SCORES if task == 'digits' else DENSE_SCORES
    tables = []
    for encoder, (title, _) in ENCODERS.items():
        rows = []
        for budget, budget_title in BUDGETS.items():
            for arm, (arm_title, _) in ARMS.items():
                chosen = select(results, task, encoder, arm, budget)
                if not chosen:
                    continue
                when = '' if arm == 'none' else budget_title
                rows.append(
                    [
                        arm_title,
                        when,
                        str(chosen[0]['epochs'] or ''),
                        str(len(chosen)),
                        *(
                            spread([row['scores'][name] for row in chosen])
                            for name in scores
                        ),
                    ]
                )
        if rows:
            head = ['method', 'budget', 'epochs', 'seeds', *scores.values()]
            tables.append(f'**{title}**\n\n{markdown_table(head, rows)}')
    return '\n\n'.join(tables)


def select(
    results: list[dict], task: str, encoder: str, arm: str, budget: str
) -> list[dict]:
    """The results of all seeds of a method."""
    wanted = dict(task=task, encoder=encoder, arm=arm, budget=budget)
    return [row for row in results if wanted.items() <= row.items()]


def draw(results: list[dict], task: str, path: Path) -> None:
    """Draw mean, standard deviation and every seed of each method."""
    from matplotlib.figure import Figure

    scores = SCORES if task == 'digits' else DENSE_SCORES
    encoders = [
        name for name in ENCODERS if any(row['encoder'] == name for row in results)
    ]
    arms = [name for name in ARMS if any(row['arm'] == name for row in results)]
    size = (2.4 * len(scores) + 2.2, (0.34 * len(arms) + 0.7) * len(encoders) + 0.5)
    figure = Figure(size, layout='constrained')
    axes = figure.subplots(
        len(encoders), len(scores), sharex='col', sharey=True, squeeze=False
    )
    colours = dict(steps='tab:blue', compute='tab:orange')
    budgets = [
        each for each in BUDGETS if any(row['budget'] == each for row in results)
    ]
    shifts = dict(steps=-0.15, compute=0.15) if len(budgets) > 1 else {budgets[0]: 0.0}
    for line, encoder in zip(axes, encoders, strict=True):
        for axis, (score, title) in zip(line, scores.items(), strict=True):
            for y, arm in enumerate(arms):
                for budget, shift in shifts.items():
                    chosen = select(results, task, encoder, arm, budget)
                    values = [row['scores'][score] for row in chosen]
                    if not values:
                        continue
                    mean = statistics.mean(values)
                    error = statistics.stdev(values) if len(values) > 1 else 0
                    colour = colours[budget]
                    axis.plot(
                        values, [y + shift] * len(values), '.', color=colour, alpha=0.4
                    )
                    axis.errorbar(mean, y + shift, xerr=error, fmt='o', color=colour)
            axis.set_title(f'{ENCODERS[encoder][0]}\n{title}', fontsize=9)
            axis.grid(axis='x', alpha=0.3)
        line[0].set_yticks(range(len(arms)), [ARMS[arm][0] for arm in arms], fontsize=9)
    axes[0, 0].set_ylim(len(arms) - 0.5, -0.5)  # the first on top
    handles = [
        axes[0, 0].plot([], [], 'o', color=colours[each], label=BUDGETS[each])[0]
        for each in budgets
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=2, fontsize=9)
    figure.savefig(path, dpi=110)


def report(work_dir: Path) -> str:
    """Write results.json, and for each task a table and a plot, of finished runs."""
    files = sorted((work_dir / 'runs').glob('*.json'))
    results = [json.loads(path.read_text()) for path in files]
    write_json(work_dir / 'results.json', results)
    text = ''
    for task in ('digits', 'shapes'):
        rows = [row for row in results if row['task'] == task]
        if rows:
            table = tabulate(rows, task)
            (work_dir / f'{task}.md').write_text(table + '\n')
            draw(rows, task, work_dir / f'{task}.png')
            text += f'\n{table}\n'
    return text


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
        '--seeds', nargs='+', type=int, default=[0, 1, 2], help='random seeds (0 1 2)'
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


def make_plan(args: argparse.Namespace) -> list[Run]:
    """List all runs that the options ask for."""
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
    return runs


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
    task = run_digits if run.task == 'digits' else run_shapes
    scores = task(run, args.work_dir / 'files' / run.name, args.quick)
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
