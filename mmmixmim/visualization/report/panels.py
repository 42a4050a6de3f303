"""What the charts of a report show."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from .run import RecordedRun


@dataclass(frozen=True)
class Measure:
    """A measure that runs log, and how to read it.

    Args:
        title: Its name.
        reading: How to read it.
        names: Labels by name of the scalar. ``{stage}`` stands for every stage.
        compared: Title of a chart that compares runs, with the label.
        scale: Factor of the values to show.
        digits: Format of a value.
        shown: Which value stands for the line, 'last' or 'highest'.
        if_collapsed: What to add for ``{runs}`` whose features have collapsed.
        limits: Range of y that is always shown.
        has_level: Whether the loss of predicting the mean is marked.
    """

    title: str
    reading: str
    names: dict[str, str]
    compared: str
    scale: float = 1.0
    digits: str = '.3g'
    shown: str = 'last'
    if_collapsed: str = ''
    limits: tuple[float, float] | None = None
    has_level: bool = False


MEASURES = (
    Measure(
        'Loss',
        'Lower is better. In pretraining, no level means that the features are good, '
        'and held-out images always get the same crops and masks, so the two curves '
        'need not meet: what counts is whether both fall.',
        {'loss': 'training', 'reconstruction/loss': 'held-out'},
        '{label} loss',
        has_level=True,
    ),
    Measure(
        'Effective rank of the features',
        'In how many directions the features of held-out images vary around their '
        'mean. 1 is collapse. Compare over time, not between stages: their numbers of '
        'channels differ.',
        {'features/rank_stage{stage}': 'stage {stage}'},
        'Effective rank, last stage',
        limits=(1, 2),
    ),
    Measure(
        'Spread of the features',
        'Standard deviation of normalised features: 0 if all images get the same '
        'ones, 1 if they point everywhere. Features share a mean, so compare a run '
        'with itself.',
        {'features/std_stage{stage}': 'stage {stage}'},
        'Spread, last stage',
        limits=(0, 0.05),
    ),
    Measure(
        'Dead channels, %',
        'Channels that are constant over the held-out images.',
        {'features/dead_stage{stage}': 'stage {stage}'},
        'Dead channels, last stage, %',
        scale=100,
        limits=(0, 10),
    ),
    Measure(
        'Accuracy with labels, %',
        'Of a linear probe and of nearest neighbours on frozen features. A low k-NN '
        'says little about fine-tuning.',
        {'probe/top1': 'linear probe', 'knn/top1': 'k-NN'},
        'Accuracy of {label}, %',
        digits='.1f',
        if_collapsed='The features of {runs} have collapsed. A probe standardises '
        'features, so it may score well on tiny differences between them: do not '
        'trust its accuracy.',
    ),
    Measure(
        'Accuracy on validation images, %',
        'Share of the images whose most likely class is the right one.',
        {'accuracy/top1': 'top-1'},
        'Accuracy on validation images, %',
        digits='.1f',
    ),
    Measure(
        'Gradient norm',
        'Single peaks are usual. A level that keeps rising precedes divergence.',
        {'grad_norm': 'gradient norm'},
        'Gradient norm',
    ),
    Measure(
        'Learning rate',
        'It rises during the warm-up and falls afterwards.',
        {'lr': 'highest'},
        'Learning rate, {label}',
        shown='highest',
    ),
)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        label: Its name in the legend.
        points: (x, y), ordered by x, all finite.
        style: Number of its colour, dashes and marker, from 0.
        width: Its width in points; of stages, the last one has the widest.
        value: The value that stands for it, formatted.
        words: The line in words.
    """

    label: str
    points: list[tuple[float, float]]
    style: int
    width: float
    value: str
    words: str


@dataclass(frozen=True)
class Panel:
    """One chart.

    Args:
        title: Its heading.
        reading: How to read it.
        x_label: What x is.
        lines: Its lines, at least one.
        level: The loss of predicting the mean, to be marked.
        limits: Range of y that is always shown.
    """

    title: str
    reading: str
    x_label: str
    lines: list[Line]
    level: float | None
    limits: tuple[float, float] | None

    @property
    def description(self) -> str:
        """The chart in words, for readers that cannot see it."""
        lines = '; '.join(line.words for line in self.lines)
        return f'{self.title} by {self.x_label}. {lines}.'


def panels_of(run: RecordedRun) -> list[Panel]:
    """List the charts of one run: one per measure that it logged."""
    panels = []
    for measure in MEASURES:
        names = {}
        for pattern, label in measure.names.items():
            names |= _names(pattern, label, run)
        lines = [
            _line(measure, run, name, label, i)
            for i, (name, label) in enumerate(names.items())
        ]
        staged = any('{stage}' in name for name in measure.names)
        if staged:  # ordered: the last one, which tasks use, is the thickest
            lines = [
                replace(line, width=max(0.8, 2.8 - 0.4 * (len(lines) - line.style)))
                for line in lines
            ]
        panels.append(_panel(measure, measure.title, lines, [run]))
    return [panel for panel in panels if panel.lines]


def panels_of_all(runs: list[RecordedRun]) -> list[Panel]:
    """List the charts that compare runs, with a line per run.

    Of the stages, only the last one of each encoder is compared.
    """
    # Runs on other data have other epochs.
    by_epoch = len({run.iters_per_epoch for run in runs}) == 1
    panels = []
    for measure in MEASURES:
        for pattern, label in measure.names.items():
            lines = []
            for i, run in enumerate(runs):
                names = [*_names(pattern, label, run)]
                if names:
                    line = _line(measure, run, names[-1], run.name, i, by_epoch)
                    lines.append(line)
            title = measure.compared.format(label=label)
            title = title[0].upper() + title[1:]
            panels.append(_panel(measure, title, lines, runs, by_epoch))
    return [panel for panel in panels if panel.lines]


def _panel(
    measure: Measure,
    title: str,
    lines: list[Line],
    runs: list[RecordedRun],
    by_epoch: bool = True,
) -> Panel:
    means = [run.mean_loss for run in runs]  # measured: to rounding the same
    levels = {mean if mean is None else float(f'{mean:.3g}') for mean in means}
    level = levels.pop() if measure.has_level and len(levels) == 1 else None
    by_epoch = by_epoch and runs[0].iters_per_epoch is not None
    axis = 'epoch' if by_epoch else 'iteration'
    reading = measure.reading
    collapsed = [
        run.name
        for run in runs
        if any(finding.kind == 'collapsed' for finding in run.findings)
    ]
    if collapsed and measure.if_collapsed:
        reading += ' ' + measure.if_collapsed.format(runs=' and '.join(collapsed))
    return Panel(title, reading, axis, lines, level, measure.limits)


def _line(
    measure: Measure,
    run: RecordedRun,
    name: str,
    label: str,
    style: int,
    by_epoch: bool = True,
) -> Line:
    unit = (by_epoch and run.iters_per_epoch) or 1
    points = [
        (step / unit, value * measure.scale)
        for step, value in run.history[name]
        if math.isfinite(value)
    ]
    values = [y for _, y in points] or [math.nan]
    first, last, lowest, highest = (
        format(value, measure.digits)
        for value in (values[0], values[-1], min(values), max(values))
    )
    words = f'{label}: from {first} to {last}, between {lowest} and {highest}'
    value = highest if measure.shown == 'highest' else last
    if not math.isfinite(run.history[name][-1][1]):
        value = 'not finite'
    return Line(label, points, style, 1.8, value, words)


def _names(pattern: str, label: str, run: RecordedRun) -> dict[str, str]:
    """Labels by name of the scalars that a run logged, ordered by stage."""
    regex = re.escape(pattern).replace(re.escape('{stage}'), r'(?P<stage>\d+)')
    found = filter(None, (re.fullmatch(regex, name) for name in run.history))
    found = sorted(found, key=lambda match: [*map(int, match.groups())])
    return {match[0]: label.format(**match.groupdict()) for match in found}
