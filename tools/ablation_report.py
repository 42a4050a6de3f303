"""Tables and plots of the finished runs of the ablations."""

import json
import statistics
from pathlib import Path

# Beside this file.
from ablation_runs import ARMS, BUDGETS, ENCODERS, LABELS

from mmmixmim.benchmarking import markdown_table
from mmmixmim.runtime import write_json

SCORES = {
    **{f'probe-{n or "all"}': f'probe, {n or "all"} labels' for n in LABELS},
    'finetune': 'fine-tuning',
}
DENSE_SCORES = dict(segm_AP='segm AP', mIoU='mIoU')


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
