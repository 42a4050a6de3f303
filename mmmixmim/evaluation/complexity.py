"""Parameters and multiply-accumulates of a model, part by part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def complexity(model: nn.Module, images: Tensor, **kwargs) -> dict[str, dict[str, int]]:
    """Count the parameters and the multiply-accumulates (MACs) of each part.

    MACs are those of matrix products and convolutions, attention's included;
    one is two floating-point operations. What papers call FLOPs of an image
    classifier usually are these. Norms, activations and sums count nothing.
    Parameters include those that are not trained.

    Args:
        model: The model, on the meta device if its forward allows that.
        images: (B, C, H, W) on the same device.
        **kwargs: Other arguments of the model's forward.

    Returns:
        For each direct part of the model, and for ``total``, a dict with
        ``parameters`` and ``macs``, the latter for one image.
    """
    counter = FlopCounterMode(display=False)
    # As single products, attention is counted on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(images, **kwargs)
    counts = {
        name: sum(flops.values()) // (2 * len(images))
        for name, flops in counter.get_flop_counts().items()
    }
    root = type(model).__name__

    def row(name: str, part: nn.Module) -> dict[str, int]:
        # A part that is not called as a module, as mmdet's RoI heads, is not
        # counted itself: what it calls is.
        within = [each for each in counts if f'{each}.'.startswith(f'{root}.{name}.')]
        names = [
            each
            for each in within
            if not any(each.startswith(f'{other}.') for other in within)
        ]
        return dict(
            parameters=sum(p.numel() for p in part.parameters()),
            macs=sum(counts[each] for each in names),
        )

    figures = {name: row(name, part) for name, part in model.named_children()}
    figures['total'] = dict(
        parameters=sum(p.numel() for p in model.parameters()), macs=counts['Global']
    )
    return figures
