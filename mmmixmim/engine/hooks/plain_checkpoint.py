"""Save checkpoints that hold nothing but plain values."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmixmim.checkpoint import to_plain
from mmmixmim.log import warn
from mmmixmim.registry import HOOKS


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save log histories and NumPy values of a checkpoint as plain values.

    ``torch.load(weights_only=True)`` then reads the whole file, resume state included,
    without a list of safe names. The loaders that importing ``mmmixmim`` installs
    rebuild the log histories. Other loaders skip these with a warning.

    :func:`mmmixmim.runtime.build_runner` adds this hook to every run.
    """

    # After the hooks that add something to the checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._warned = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace what is no plain value, and warn of what cannot be replaced."""
        unknown: list[str] = []
        for name, value in checkpoint.items():
            checkpoint[name] = to_plain(value, name, unknown)
        if unknown and not self._warned:
            self._warned = True
            warn(
                f'The checkpoint holds objects that are no plain values: '
                f'{", ".join(unknown)}. Only a file that you trust can resume with '
                'them, see docs/safety.md.'
            )
