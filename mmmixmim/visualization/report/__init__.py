"""Reports of runs: one HTML file that needs nothing else."""

from .render import render_report, write_report

__all__ = ['render_report', 'write_report']
