"""A runner that leaves the terminal to a progress line."""

from __future__ import annotations

import io
import logging
import re
import sys
from contextlib import redirect_stdout

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmmixmim.registry import RUNNERS

# Warnings of every run, which concern nobody who reads the terminal.
_EVERYDAY = re.compile(
    'is skipped since its requires_grad|deprecated in future|only the encoder is loaded'
    '|has no metainfo|Fast sampler-level resume is unavailable'
)


@RUNNERS.register_module()
class QuietRunner(Runner):
    """MMEngine's runner; the log goes to its file, only warnings to the terminal."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, before anything is logged."""
        logger = super().build_logger(*args, **kwargs)
        quieten(logger)
        return logger

    def load_checkpoint(self, *args, **kwargs) -> dict:
        """Load a checkpoint; log what MMEngine prints about it."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            checkpoint = super().load_checkpoint(*args, **kwargs)
        text = printed.getvalue().strip()
        if 'do not match exactly' in text:  # some weights are random
            self.logger.warning(text)
        elif text:
            self.logger.info(text)
        return checkpoint


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
