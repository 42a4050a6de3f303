"""Parameters and multiply-accumulates of a model and its submodules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def complexity(model: nn.Module, images: Tensor, **kwargs) -> dict[str, dict[str, int]]:
    """Count the parameters and multiply-accumulates (MACs) of a model.

    GEMMs and convolutions count, including those of attention. Norms, activations
    and elementwise operations do not. One MAC is two floating-point operations;
    papers on image classification usually report MACs as FLOPs. Frozen parameters
    count.

    Args:
        model: The model. Use the meta device if its forward supports that.
        images: (B, C, H, W), on the same device.
        **kwargs: Further arguments of the model's forward.

    Returns:
        For each direct submodule of the model and for ``total``, a dict with
        ``parameters`` and ``macs``, the latter per image.
    """
    counter = FlopCounterMode(display=False)
    # FlopCounterMode counts the GEMMs of the math backend on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(images, **kwargs)
    counts = {
        name: sum(flops.values()) // (2 * len(images))
        for name, flops in counter.get_flop_counts().items()
    }
    root = type(model).__name__

    def row(name: str, part: nn.Module) -> dict[str, int]:
        # mmdet calls the submodules of RoI heads, never the RoI head itself. Then the
        # outermost modules that were called add up.
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
