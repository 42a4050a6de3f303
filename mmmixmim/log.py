"""Warnings in the log, and what of the log reaches the terminal."""

from __future__ import annotations

import logging
import re
import sys

from mmengine.logging import print_log

# Warnings of every run, which concern nobody who reads the terminal.
_EVERYDAY = re.compile(
    'is skipped since its requires_grad|deprecated in future|only the encoder is loaded'
    '|has no metainfo|Fast sampler-level resume is unavailable'
)


def warn(text: str) -> None:
    """Log a warning with MMEngine's current logger."""
    print_log(text, 'current', logging.WARNING)


def quieten(logger: logging.Logger) -> None:
    """Keep all but warnings of a logger from the terminal; idempotent."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
            handler.addFilter(_is_news)
            handler.format = _one_line


def _is_news(record: logging.LogRecord) -> bool:
    return not _EVERYDAY.search(record.getMessage())


def _one_line(record: logging.LogRecord) -> str:
    """Format a record; in a terminal it overwrites the progress line."""
    start = '\r\x1b[K' if sys.stdout.isatty() else ''
    return f'{start}{record.levelname.lower()}: {record.getMessage()}'
