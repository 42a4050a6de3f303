"""Warnings in the log."""

from __future__ import annotations

import logging

from mmengine.logging import print_log


def warn(text: str) -> None:
    """Log a warning with MMEngine's current logger."""
    print_log(text, 'current', logging.WARNING)
