"""Export encoders with mmpretrain's names to timm's classes.

For Swin, Swin V2 and ConvNeXt V1 and V2. timm has no MixMIMTransformer, no PVT V1 and
no HiViT.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError

from .encoder import stock_weights
from .formats import StateDict
from .formats.mmpretrain import columns_first
from .names import DERIVED, MAP_NORM

# A parameter that tells the encoder's family.
SWIN = 'stages.0.blocks.0.attn.w_msa.qkv.weight'
CONVNEXT = 'stages.0.0.depthwise_conv.weight'
# mmpretrain's names and timm's. All that match apply, in this order.
SWIN_NAMES = (
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'^stages\.', 'layers.'),
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'^norm\d+\.', 'norm.'),
)
CONVNEXT_NAMES = (
    (r'^stages\.(\d+)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'^downsample_layers\.0\.', 'stem.'),
    (r'^downsample_layers\.(\d+)\.', r'stages.\1.downsample.'),
    (r'\.depthwise_conv\.', '.conv_dw.'),
    (r'\.pointwise_conv(\d)\.', r'.mlp.fc\1.'),
    (r'\.grn\.gamma$', '.mlp.grn.weight'),
    (r'\.grn\.beta$', '.mlp.grn.bias'),
    (r'^norm\d+\.', 'head.norm.'),
)
STAGE = re.compile(r'stages\.(\d+)\.')
# What timm's classes don't have: position embeddings, and norms every n blocks.
UNSUPPORTED = re.compile(r'[^.]+$|stages\.\d+\.blocks\.\d+\.norm3\.')


def to_timm(state: StateDict, prefix: str | None = None) -> tuple[StateDict, list[str]]:
    """Translate an encoder to timm's names.

    Args:
        state: Weights of an encoder with mmpretrain's names, or of any model that holds
            one.
        prefix: Prefix of the encoder. Defaults to None: ``'backbone.'``, or the only
            encoder.

    Returns:
        The weights for ``timm.create_model(name, num_classes=0)``, and the names of the
        parameters that are left out: other parts, and norms of all maps but the last.

    Raises:
        UserError: If there is no encoder that timm has a class for.
    """
    if any(name.endswith(SWIN) for name in state):
        entries, others = stock_weights(state, SWIN, prefix)
        rename = _rename_swin
    elif any(name.endswith(CONVNEXT) for name in state):
        entries, others = stock_weights(state, CONVNEXT, prefix)
        rename = _rename_convnext
    else:
        raise UserError(
            'Only Swin, Swin V2 and ConvNeXt with the names of mmpretrain can be '
            'exported to timm, which has no MixMIMTransformer, HiViT or PVT V1. The '
            f'first entry is {next(iter(state), "nothing")}.'
        )
    unsupported = [name for name in entries if UNSUPPORTED.match(name)]
    if unsupported:
        raise UserError(
            f"timm's class has no {summarise_keys(unsupported)}: the encoder cannot be "
            'exported.'
        )
    last = max(int(stage[1]) for stage in map(STAGE.match, entries) if stage)
    norms = [
        name
        for name in entries
        if MAP_NORM.match(name) and not name.startswith(f'norm{last}.')
    ]
    kept = {
        name: value
        for name, value in entries.items()
        if name not in norms and not name.endswith(DERIVED)
    }
    return OrderedDict(rename(kept)), others + norms


def _rename_swin(entries: StateDict) -> StateDict:
    """Swin V1 and V2; the order of channels in patch merging differs, too."""
    version_2 = any(name.endswith('.logit_scale') for name in entries)
    renamed = {}
    for name, value in entries.items():
        if '.downsample.' in name:
            # V2 norms the channels after they are merged.
            if not version_2 or '.reduction.' in name:
                value = columns_first(value)
            # mmpretrain's V1 merges at the end of a stage, the others at the start.
            if not version_2:
                name = STAGE.sub(lambda stage: f'stages.{int(stage[1]) + 1}.', name)
        renamed[_apply(SWIN_NAMES, name)] = value
    return renamed


def _rename_convnext(entries: StateDict) -> StateDict:
    return {_apply(CONVNEXT_NAMES, name): value for name, value in entries.items()}


def _apply(names: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name
