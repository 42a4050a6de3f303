"""Reports of runs: one HTML file that needs nothing else."""

from .next_steps import beside, with_images, with_labels
from .render import render_report, write_report

__all__ = ['beside', 'render_report', 'with_images', 'with_labels', 'write_report']
