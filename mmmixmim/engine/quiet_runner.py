"""A runner that leaves the terminal to a progress line."""

from __future__ import annotations

import logging

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmmixmim.registry import RUNNERS


@RUNNERS.register_module()
class QuietRunner(Runner):
    """MMEngine's runner; the log goes to its file, and only errors to the terminal."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, before anything is logged."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger
