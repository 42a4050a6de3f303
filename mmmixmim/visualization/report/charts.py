"""Draw the charts of a report as SVG."""

from __future__ import annotations

import io
import re

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .panels import Line, Panel

_STYLE = {
    'svg.fonttype': 'none',  # text stays text: searchable, in the page's font
    'svg.hashsalt': 'mmmixmim',  # the same run gives the same file
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.spines.left': False,
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.axisbelow': True,
    'axes.formatter.limits': (-3, 5),
}
# Colours that matplotlib writes, each replaced by one of the style sheet, which knows
# light and dark.
_COLOURS = {
    name: f'#0000{i:02x}'
    for i, name in enumerate(
        (
            *('axis', 'grid', 'level'),
            *(f'line-{i}' for i in range(1, 7)),
            *(f'stage-{i}' for i in range(1, 5)),
        ),
        start=1,
    )
}
_MAX_POINTS = 600


def draw_panel(panel: Panel, prefix: str) -> Markup:
    """Draw a chart.

    Args:
        panel: What to draw.
        prefix: Prefix of the ids in the SVG, unique in the page.

    Returns:
        An ``svg`` element. Its colours are the variables ``--axis``, ``--grid``,
        ``--level``, ``--line-N`` and ``--stage-N`` of the page.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.5))
        figure.subplots_adjust(0.11, 0.17, 0.96, 0.92)
        axes = figure.subplots()
        _style(axes, panel)
        for line in panel.lines:
            _draw(axes, line)
        _limit(axes, panel)
        file = io.StringIO()
        figure.savefig(
            file,
            format='svg',
            transparent=True,
            metadata=dict(Date=None, Creator=None, Format=None, Type=None),
        )
    svg = file.getvalue()
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{prefix}-', svg)
    for name, colour in _COLOURS.items():
        svg = svg.replace(colour, f'var(--{name})')
    label = escape(panel.description)
    return Markup(svg.replace('<svg', f'<svg role="img" aria-label="{label}"', 1))


def _style(axes, panel: Panel) -> None:
    axes.set_xlabel(panel.x_label, color=_COLOURS['axis'])
    axes.tick_params(colors=_COLOURS['axis'], length=0)
    axes.grid(color=_COLOURS['grid'], linewidth=0.8)
    axes.spines['bottom'].set_color(_COLOURS['axis'])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if panel.level is not None:
        axes.axhline(panel.level, color=_COLOURS['level'], linewidth=1, linestyle=':')
        axes.annotate(
            'predicting the mean',
            (1, panel.level),
            xycoords=('axes fraction', 'data'),
            xytext=(0, 2),
            textcoords='offset points',
            ha='right',
            color=_COLOURS['axis'],
            fontsize=8,
        )


def _draw(axes, line: Line) -> None:
    """Draw a line: faint points and their running median if there are many."""
    if not line.points:
        return
    x, y = np.array(line.points).T
    style = dict(
        color=_COLOURS[line.colour],
        linewidth=line.width,
        linestyle='--' if line.dashed else '-',
        solid_capstyle='round',
    )
    if len(x) < 60:
        axes.plot(x, y, marker='o', markersize=3 if len(x) > 1 else 5, **style)
        return
    axes.plot(*_thin(x, y), color=style['color'], linewidth=0.8, alpha=0.35)
    window = len(x) // 40 * 2 + 1
    padded = np.pad(y, window // 2, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    axes.plot(*_thin(x, np.median(windows, axis=1)), **style)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the lowest and highest point of each of at most 300 intervals."""
    if len(x) <= _MAX_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), _MAX_POINTS // 2):
        kept |= {part[y[part].argmin()], part[y[part].argmax()]}
    index = sorted(kept)
    return x[index], y[index]


def _limit(axes, panel: Panel) -> None:
    """Choose the range of y: logarithmic where a peak would hide the rest."""
    values = np.array([y for line in panel.lines for _, y in line.points])
    if panel.limits:
        low, high = panel.limits
        axes.set_ylim(min(low, *values, low), max(high, *values, high) * 1.02)
    elif len(values) and values.min() > 0 and values.max() > 10 * np.median(values):
        axes.set_yscale('log')
