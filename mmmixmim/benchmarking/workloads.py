"""Identical workloads for our models and mmpretrain's port."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from mmmixmim.conversion import convert_state_dict
from mmmixmim.models import MixMIMTransformer, TokenOwnership
from mmmixmim.registry import MODELS

PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
TASKS = ('pretrain', 'finetune', 'inference', 'dense')
IMPLEMENTATIONS = ('ours', 'mmpretrain')


@dataclass
class Setting:
    """Description of a workload.

    Attributes:
        task: 'pretrain' and 'finetune' run forward and backward, 'inference' runs
            the forward of a classifier, 'dense' forward and backward of a bare
            backbone.
        arch: 'base', 'large', 'huge', or an arch dict.
        batch_size: Number of images.
        img_size: Height and width in pixels.
        device: Device to run on.
        precision: 'fp32', or 'bf16' or 'fp16' with autocast.
        compiled: Whether to ``torch.compile`` the forward.
        compile_mode: Its mode, such as 'reduce-overhead', which records CUDA graphs.
        recompute: What our backward pass recomputes; None for the device's default.
        low_precision_norms: Whether our norms stay in autocast's precision.
        window: Window size of all stages. By default windows scale with the image,
            from 14, 14, 14 and 7 at 224 pixels; 'dense' uses 16.
    """

    task: str = 'pretrain'
    arch: str | dict = 'base'
    batch_size: int = 4
    img_size: int = 224
    device: str = 'cpu'
    precision: str = 'fp32'
    compiled: bool = False
    compile_mode: str | None = None
    recompute: str | None = None
    low_precision_norms: bool = False
    window: int | None = None

    @property
    def backward(self) -> bool:
        """Whether the workload has a backward pass."""
        return self.task != 'inference'

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the GEMMs."""
        return PRECISIONS[self.precision]


@dataclass
class Workload:
    """A model and the pass to measure.

    Attributes:
        setting: Description of the workload.
        model: Our or mmpretrain's model.
        forward: Computes the result: a loss, or logits for 'inference'.
    """

    setting: Setting
    model: nn.Module
    forward: Callable[[], Tensor]

    def __call__(self) -> Tensor:
        """Clear the gradients and run once."""
        self.model.zero_grad(set_to_none=True)
        return self.accumulate()

    def accumulate(self) -> Tensor:
        """Run once and accumulate gradients."""
        setting = self.setting
        device, low = torch.device(setting.device).type, setting.precision != 'fp32'
        with torch.set_grad_enabled(setting.backward):
            with torch.autocast(device, setting.dtype) if low else nullcontext():
                result = self.forward()
            if setting.backward:
                result.backward()
        return result.detach()


def make_workloads(
    setting: Setting, implementations: tuple[str, ...] = IMPLEMENTATIONS
) -> dict[str, Workload]:
    """Build workloads with the same weights, images and mask.

    Args:
        setting: Description of the workload.
        implementations: 'ours', 'mmpretrain', or both.

    Returns:
        The workloads by implementation.
    """
    torch.manual_seed(0)
    size = (setting.batch_size, 3, setting.img_size, setting.img_size)
    images = torch.randn(size).to(setting.device)
    cells = (setting.img_size // 32) ** 2
    rank = torch.rand(1, cells).argsort().argsort()
    mask = (rank < cells // 2).float().to(setting.device)
    models = {}
    for name in sorted(implementations, key=IMPLEMENTATIONS.index):
        model = _BUILDERS[name](setting)
        if name == 'mmpretrain' and models:
            state = convert_state_dict(models['ours'].state_dict(), 'mmpretrain')
            model.load_state_dict(state)
        models[name] = model.train(setting.backward)
    return {
        name: Workload(
            setting,
            models[name].to(setting.device),
            _forward(setting, name, models[name], images, mask),
        )
        for name in implementations
    }


def _build_ours(setting: Setting) -> nn.Module:
    backbone = dict(
        type='mmmixmim.MixMIMTransformer',
        arch=setting.arch,
        img_size=setting.img_size,
        window_size=_windows(setting),
        recompute=setting.recompute,
        low_precision_norms=setting.low_precision_norms,
    )
    if setting.task == 'pretrain':
        neck = dict(
            type='MixMIMPretrainDecoder',
            recompute=setting.recompute,
            low_precision_norms=setting.low_precision_norms,
        )
        return MODELS.build(dict(type='MixMIM', backbone=backbone, neck=neck))
    neck = dict(type='GlobalAveragePooling')
    return MODELS.build(_classifier(setting, dict(backbone=backbone, neck=neck)))


def _build_mmpretrain(setting: Setting) -> nn.Module:
    backbone = dict(
        type='MixMIMTransformer',
        arch=setting.arch,
        img_size=setting.img_size,
        window_size=_windows(setting),
    )
    if setting.task == 'pretrain':
        model = dict(
            type='MixMIM',
            backbone=backbone | dict(type='MixMIMPretrainTransformer'),
            neck=dict(
                type='MixMIMPretrainDecoder',
                num_patches=(setting.img_size // 32) ** 2,
                embed_dim=_channels(setting),
                encoder_stride=32,
                norm_cfg=dict(type='LN', eps=1e-5),
            ),
            head=dict(
                type='MixMIMPretrainHead',
                norm_pix=True,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            ),
        )
    else:
        model = _classifier(setting, dict(backbone=backbone))
    with MMPRETRAIN_MODELS.switch_scope_and_registry('mmpretrain') as registry:
        return registry.build(model)


_BUILDERS = dict(ours=_build_ours, mmpretrain=_build_mmpretrain)


def _classifier(setting: Setting, parts: dict) -> dict:
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=_channels(setting))
    return dict(type='ImageClassifier', head=head, **parts)


def _windows(setting: Setting) -> list[int]:
    """Window sizes of each stage. mmpretrain needs them to divide the feature map."""
    window = 16 if setting.task == 'dense' else setting.window
    if window:
        return [min(window, setting.img_size // 4 // 2**i) for i in range(4)]
    return [side * setting.img_size // 224 for side in (14, 14, 14, 7)]


def _channels(setting: Setting) -> int:
    arch = setting.arch
    arch = MixMIMTransformer.ARCHS[arch] if isinstance(arch, str) else arch
    return arch['embed_dims'] * 8


def _forward(
    setting: Setting, name: str, model: nn.Module, images: Tensor, mask: Tensor
) -> Callable[[], Tensor]:
    compiled = (
        partial(torch.compile, mode=setting.compile_mode)
        if setting.compiled
        else lambda function: function
    )
    if setting.task == 'pretrain':
        step = compiled(model.loss)
        if name == 'ours':
            side = setting.img_size // 32
            ownership = TokenOwnership(mask.view(1, side, side))
            return lambda: step(images, mask=ownership)['loss']
        _fix_mask(model.backbone, mask)
        return lambda: step(images, None)['loss']
    if setting.task == 'dense':
        encode = compiled(model.backbone)
        if name == 'ours':
            return lambda: encode(images)[-1].mean((2, 3)).square().mean()
        return lambda: encode(images)[-1].square().mean()
    classify = compiled(model)
    if setting.task == 'inference':
        return lambda: classify(images)
    labels = torch.arange(len(images), device=images.device)
    return lambda: F.cross_entropy(classify(images), labels, label_smoothing=0.1)


def _fix_mask(backbone: nn.Module, mask: Tensor) -> None:
    """Make mmpretrain's backbone use ``mask`` instead of drawing its own."""
    side = int(mask.shape[1] ** 0.5)
    grid = mask.view(1, 1, side, side)
    masks = [
        F.interpolate(grid, scale_factor=scale).view(1, -1, 1) for scale in (8, 4, 2, 1)
    ]
    backbone.random_masking = lambda images, ratio: masks
