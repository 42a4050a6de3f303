"""Pooled features of all stages of an encoder, whatever maps it returns."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def stage_features(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Encode plain images, and pool the output of each stage over the map.

    The stages are the entries of ``encoder.stages`` or ``encoder.layers``. If an entry
    is a list (PVT), its last module counts. The last stage is what the encoder returns,
    behind its norm. An encoder without such a list, as HiViT, has this one alone.

    Args:
        encoder: See :class:`MixingEncoder`.
        images: (B, in_channels, H, W).

    Returns:
        One float32 tensor (B, C) for each stage, from the finest to the last.
    """
    stages = list(getattr(encoder, 'stages', None) or getattr(encoder, 'layers', []))
    outputs: list[Tensor] = []
    hooks = [
        (
            stage[-1] if isinstance(stage, nn.ModuleList) else stage
        ).register_forward_hook(_keep(outputs))
        for stage in stages[:-1]
    ]
    try:
        last = encoder(images)[-1]
    finally:
        for hook in hooks:
            hook.remove()
    # Two sides of a map and its channels may agree in one stage, but not in all.
    first = any(
        each.ndim == 4 and each.shape[1] == channels != each.shape[3]
        for each, channels in zip(outputs, encoder.out_channels, strict=False)
    )
    pooled = [_pool(each, first) for each in outputs]
    return [*pooled, _pool(last, channels_first=True)]


def _keep(outputs: list[Tensor]) -> Callable:
    def hook(module: nn.Module, args: tuple, output) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    return hook


def _pool(maps: Tensor, channels_first: bool) -> Tensor:
    """Mean over tokens of (B, C), (B, N, C), (B, H, W, C) or (B, C, H, W)."""
    maps = maps.float()
    if maps.ndim == 2:
        return maps
    if maps.ndim == 3:
        return maps.mean(1)
    return maps.mean((2, 3) if channels_first else (1, 2))
