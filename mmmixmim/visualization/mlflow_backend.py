"""MMEngine's MLflow backend, with pictures that have an extension and a step."""

from __future__ import annotations

import mmengine.visualization
import numpy as np

from mmmixmim.registry import VISBACKENDS


@VISBACKENDS.register_module()
class MLflowVisBackend(mmengine.visualization.MLflowVisBackend):
    """Writes the picture ``NAME`` of a step as the artifact ``NAME_STEP.png``.

    MMEngine's class passes on the name alone: MLflow refuses one without an extension,
    and every step would replace the one before.
    """

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        """Write a picture, RGB (H, W, 3)."""
        super().add_image(f'{name}_{step}.png', image, step, **kwargs)
