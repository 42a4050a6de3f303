"""Inference on chunks of tokens whose hidden features fit the CPU's cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .switch import is_watched, runs_eagerly, runs_on_cpu

# Bytes of hidden features per chunk. For 32 images of 224 pixels 4, 8 and 16 MiB were
# equally fast, and one chunk 10 % slower. For one image, 16 MiB make glibc request
# memory from the system in every pass; 4 MiB don't.
CHUNK = 4 * 2**20


def in_chunks(layer: nn.Module, x: Tensor, hidden: int) -> Tensor:
    """Compute ``layer.transform(x)``, at inference on a CPU chunk by chunk.

    Modules inside ``layer`` with hooks or another ``forward`` get all tokens in one
    call, so that these see the whole input.

    Args:
        layer: Module with a method ``transform`` that treats every token by itself.
        x: Tokens (..., C).
        hidden: Largest number of features per token inside ``layer``.

    Returns:
        What ``layer.transform`` returns, (..., C).
    """
    # Asking for the size first would fix it in an exported graph.
    if not (runs_eagerly() and runs_on_cpu(x)) or torch.is_grad_enabled():
        return layer.transform(x)
    size = x.shape[:-1].numel() * hidden * x.element_size()
    if size <= CHUNK or any(map(is_watched, layer.children())):
        return layer.transform(x)
    chunks = x.flatten(0, -2).chunk(-(-size // CHUNK))
    return torch.cat([layer.transform(chunk) for chunk in chunks]).view(x.shape)
