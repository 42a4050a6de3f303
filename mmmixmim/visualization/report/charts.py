"""Draw the charts of a report as SVG."""

from __future__ import annotations

import io
import re

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

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
    'lines.scale_dashes': False,
}
# Colours that matplotlib writes, each replaced by one of the style sheet, which knows
# light and dark.
_COLOURS = {
    name: f'#0000{i:02x}'
    for i, name in enumerate(
        (
            *('axis', 'grid', 'level'),
            *(f'line-{i}' for i in range(1, 7)),
        ),
        start=1,
    )
}
# Lines differ by more than their colours. Lengths are in points.
_DASHES = ((), (6, 2.5), (1.6, 1.8), (7, 2, 1.6, 2))
# Names in matplotlib, and paths in a box from -1 to 1.
_MARKERS = {
    'o': 'M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0z',
    's': 'M-.9 -.9h1.8v1.8h-1.8z',
    '^': 'M0 -1L1 1h-2z',
    'D': 'M0 -1.2L1.2 0 0 1.2 -1.2 0z',
    'v': 'M0 1L1 -1h-2z',
    'X': 'M-1 -1h.8l.2 .3 .2 -.3h.8v.8l-.4 .2 .4 .2v.8h-.8l-.2 -.3 -.2 .3h-.8z',
}
_MAX_POINTS = 600


def draw_key(line: Line) -> Markup:
    """Draw a line's key in the legend, an ``svg`` element."""
    colour, dashes, marker = _style_of(line)
    return Markup(
        '<svg class="key" viewBox="0 0 34 10" aria-hidden="true">'
        f'<path d="M1 5H33" fill="none" stroke="var(--{colour})" '
        f'stroke-width="{line.width * 1.2:.3g}" '
        f'stroke-dasharray="{" ".join(map(str, dashes))}"/>'
        f'<path transform="translate(17 5) scale(3)" d="{_MARKERS[marker]}" '
        f'fill="var(--{colour})"/></svg>'
    )


def draw_panel(panel: Panel, prefix: str) -> Markup:
    """Draw a chart.

    Args:
        panel: What to draw.
        prefix: Prefix of the ids in the SVG, unique in the page.

    Returns:
        An ``svg`` element. Its colours are the variables ``--axis``, ``--grid``,
        ``--level`` and ``--line-N`` of the page.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 2.5))
        figure.subplots_adjust(0.13, 0.17, 0.97, 0.95)
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
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))
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
    colour, dashes, marker = _style_of(line)
    style = dict(
        color=_COLOURS[colour],
        linewidth=line.width,
        linestyle=(0, dashes),
        solid_capstyle='round',
        marker=marker,
        markersize=4 if len(x) > 1 else 6,
        markeredgewidth=0,
        markevery=max(1, len(x) // 12),
    )
    if len(x) < 60:
        axes.plot(x, y, **style)
        return
    axes.plot(*_thin(x, y), color=style['color'], linewidth=0.8, alpha=0.35)
    window = len(x) // 40 * 2 + 1
    padded = np.pad(y, window // 2, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    x, y = _thin(x, np.median(windows, axis=1))
    axes.plot(x, y, **style | dict(markevery=max(1, len(x) // 12)))


def _style_of(line: Line) -> tuple[str, tuple[float, ...], str]:
    """Colour of the style sheet, dashes and marker of a line."""
    colour, again = line.style % 6, line.style // 6
    dashes = _DASHES[(line.style + again) % len(_DASHES)]
    return f'line-{colour + 1}', dashes, [*_MARKERS][colour]


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
        _scale_logarithmically(axes, values.min(), values.max())


def _scale_logarithmically(axes, low: float, high: float) -> None:
    """Show at most five decades, with three to eight ticks that can be read."""
    low = max(low, high / 1e5)
    decades = np.log10(high / low)
    subs = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
    axes.set_yscale('log')
    axes.set_ylim(low / 1.2, high * 1.2)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_number))


def _number(value: float, _: int | None = None) -> str:
    return f'{value:.6g}'
