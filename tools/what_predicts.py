"""Which measure of pretraining predicts fine-tuning? On scattered digits, on a CPU.

Pretrains small encoders that should differ, measures them during the training as any
run with our configs does, fine-tunes every checkpoint, and prints how the measures
correlate with the accuracy of fine-tuning. Each finished run leaves a JSON file; given
again, the command continues where it stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ablation_runs import (  # beside this script
    Run,
    digits_config,
    read_config,
    scalar,
    set_length,
    start_from,
    train,
)
from mmengine.config import Config

from mmmixmim.benchmarking import markdown_table
from mmmixmim.evaluation import read_history
from mmmixmim.runtime import one_line_errors, positive_int, random_seed, write_json
from mmmixmim.validation import check_int_between

# What differs from the first run: title, and config entries.
RUNS = {
    'good': ('as in the recipe', {}),
    'slow': ('learning rate / 10', {'optim_wrapper.optimizer.lr': 1.5e-4}),
    'fast': ('learning rate x 30', {'optim_wrapper.optimizer.lr': 4.5e-2}),
    'few': (
        '50 images, 25 times as often',
        {
            'train_dataloader.dataset': dict(
                type='RepeatDataset',
                times=25,
                dataset=dict(
                    type='ScatteredDigits',
                    split='train',
                    samples_per_class=5,
                    pipeline=[dict(type='PackInputs')],
                ),
            )
        },
    ),
    'hard': ('mask ratio 0.9', {'model.mask_ratio': 0.9}),
    'broken': (
        'nearly blank images and target',
        {'model.data_preprocessor.std': [1e6] * 3},
    ),
}
MEASURES = {
    'loss': 'training loss',
    'reconstruction/loss': 'held-out loss',
    'features/rank_stage3': 'effective rank, last stage',
    'features/std_stage3': 'standard deviation, last stage',
    'features/dead_stage3': 'dead channels, last stage',
    'knn/top1': 'k-NN',
    'probe/top1': 'linear probe',
}


def pretraining_config(name: str, epochs: int, points: int, seed: int) -> Config:
    """The config of a run, with measures and checkpoints at ``points`` epochs."""
    cfg = digits_config(Run('digits', 'mixmim', 'mixmim', 'steps', seed, epochs), True)
    watched = read_config('digits', 'mixmim_mixmim-*.py')
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = watched[key]
    pipeline = [dict(type='PackInputs')]
    cfg.val_dataloader.dataset.update(type='ScatteredDigits', pipeline=pipeline)
    cfg.val_cfg.max_images = None
    labelled = dict(type='ScatteredDigits', split='train', pipeline=pipeline)
    cfg.custom_hooks = [
        dict(type='OnlineProbeHook', train=labelled),
        dict(type='DiagnosisHook', interval=100),
    ]
    cfg.train_cfg.val_interval = epochs // points
    cfg.default_hooks.checkpoint.update(interval=epochs // points, max_keep_ckpts=-1)
    cfg.merge_from_dict(
        {key: value for key, value in RUNS[name][1].items() if '.dataset' not in key}
    )
    if 'train_dataloader.dataset' in RUNS[name][1]:
        cfg.train_dataloader.dataset = RUNS[name][1]['train_dataloader.dataset']
    return cfg


def run_one(name: str, args: argparse.Namespace, seed: int) -> list[dict]:
    """Pretrain, and fine-tune each checkpoint.

    Returns:
        For each checkpoint the measures and ``finetune``, in percent.
    """
    folder = args.work_dir / 'files' / f'{name}-seed{seed}'
    cfg = pretraining_config(name, args.epochs, args.points, seed)
    train(cfg, folder / 'pretrain.py')
    history = read_history(folder / 'pretrain')
    rows = []
    for i in range(args.points):
        epoch = (i + 1) * (args.epochs // args.points)
        step = history['reconstruction/loss'][i][0]
        row = dict(run=name, seed=seed, epoch=epoch)
        for measure in MEASURES:
            row[measure] = [v for at, v in history[measure] if at <= step][-1]
        cfg = digits_config(
            Run('digits', 'mixmim', 'mixmim', 'steps', seed, args.epochs), False
        )
        set_length(cfg, args.finetune_epochs)
        start_from(cfg, folder, epoch)
        runner = train(cfg, folder / f'finetune-{epoch}.py')
        row['finetune'] = scalar(runner, 'val/accuracy/top1')
        rows.append(row)
    return rows


def correlation(rows: list[dict], measure: str) -> tuple[float, float] | None:
    """Pearson's and Spearman's correlation of a measure with fine-tuning."""
    pairs = np.array([(row[measure], row['finetune']) for row in rows], dtype=float)
    pairs = pairs[np.isfinite(pairs).all(1)]
    if len(pairs) < 3 or (pairs.std(0) == 0).any():
        return None
    from scipy.stats import spearmanr

    return float(np.corrcoef(pairs.T)[0, 1]), float(spearmanr(*pairs.T).statistic)


def report(rows: list[dict]) -> str:
    """Markdown tables of the checkpoints and of the correlations."""
    head = ['run', 'epoch', *MEASURES.values(), 'fine-tuning']
    table = [
        [
            RUNS[row['run']][0],
            str(row['epoch']),
            *(f'{row[measure]:.3g}' for measure in MEASURES),
            f'{row["finetune"]:.1f}',
        ]
        for row in rows
    ]
    broken = ('fast', 'broken')
    sets = {
        'all runs': rows,
        'runs that learn': [row for row in rows if row['run'] not in broken],
        'last checkpoints': [
            row for row in rows if row['epoch'] == max(r['epoch'] for r in rows)
        ],
    }
    correlations = []
    for measure, title in MEASURES.items():
        cells = [correlation(chosen, measure) for chosen in sets.values()]
        cells = ['-' if c is None else f'{c[0]:+.2f}, {c[1]:+.2f}' for c in cells]
        correlations.append([title, *cells])
    counts = [f'{title} ({len(chosen)})' for title, chosen in sets.items()]
    return '\n\n'.join(
        (
            markdown_table(head, table),
            "Pearson's and Spearman's correlation with fine-tuning:",
            markdown_table(['measure', *counts], correlations),
        )
    )


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--runs', nargs='+', choices=RUNS, default=list(RUNS), help='runs (all)'
    )
    parser.add_argument(
        '--seeds', nargs='+', type=random_seed, default=[0], help='seeds (0)'
    )
    parser.add_argument(
        '--epochs', type=positive_int, default=8, help='epochs of pretraining (8)'
    )
    parser.add_argument(
        '--points', type=positive_int, default=2, help='checkpoints of each run (2)'
    )
    parser.add_argument(
        '--finetune-epochs', type=positive_int, default=10, help='of fine-tuning (10)'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/what_predicts'),
        help='output folder (work_dirs/what_predicts)',
    )
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Do the runs that are left and report."""
    args = parse_args()
    check_int_between('--points', args.points, 1, args.epochs)
    lengths = f'{args.epochs}-{args.points}-{args.finetune_epochs}'
    rows = []
    for seed in dict.fromkeys(args.seeds):  # each once
        for name in dict.fromkeys(args.runs):
            path = args.work_dir / f'{name}-seed{seed}-{lengths}.json'
            if not path.exists():
                write_json(path, run_one(name, args, seed))
            rows += json.loads(path.read_text())
    print(report(rows))


if __name__ == '__main__':
    main()
