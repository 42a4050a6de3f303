"""Reports of runs: one HTML file that needs nothing else."""

from .next_steps import beside, with_labels
from .render import render_report, write_report
from .run import COUNTS

__all__ = ['COUNTS', 'beside', 'render_report', 'with_labels', 'write_report']
