"""A runner that leaves the terminal to a progress line."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmmixmim.log import quieten
from mmmixmim.registry import RUNNERS


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
