"""Weights pretrained here in the stock classes of mmdet's and mmseg's models."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmmixmim.models import MixMIM, MixMIMConvNeXt, MixMIMSwinTransformer

CHANNELS = [8, 16, 32, 64]
SWIN = dict(
    arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    window_size=4,
    pad_small_map=True,
)


CONVNEXT = dict(
    arch=dict(depths=[1, 1, 2, 1], channels=CHANNELS), gap_before_final_norm=False
)
DECODER = dict(decoder_embed_dims=16, decoder_depth=1, decoder_num_heads=2)


def pretrain(encoder):
    """One step of pretraining from random weights."""
    model = MixMIM(backbone=encoder, neck=DECODER)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.loss(torch.randn(4, 3, 64, 64))['loss'].backward()
    optimizer.step()
    return model


def pretrained_swin():
    return pretrain(MixMIMSwinTransformer(img_size=64, **SWIN))


def pretrained_convnext():
    return pretrain(MixMIMConvNeXt(img_size=64, **CONVNEXT))


# What is pretrained, and the config of the stock class that takes the weights.
ENCODERS = {
    'swin': (pretrained_swin, dict(type='mmpretrain.SwinTransformer', **SWIN)),
    'convnext': (pretrained_convnext, dict(type='mmpretrain.ConvNeXt', **CONVNEXT)),
}


@pytest.fixture(params=ENCODERS)
def pretrained(request, tmp_path):
    """A pretrained encoder, and the stock backbone's config with its checkpoint."""
    build, stock = ENCODERS[request.param]
    model = build()
    checkpoint = dict(meta=dict(epoch=1, iter=1), state_dict=model.state_dict())
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    init_cfg = dict(
        type='Pretrained',
        checkpoint=str(tmp_path / 'epoch_1.pth'),
        prefix='backbone.',
    )
    backbone = dict(stock, out_indices=[0, 1, 2, 3], init_cfg=init_cfg)
    return model.get_submodule('backbone'), backbone


def detector(backbone):
    from mmdet.registry import MODELS

    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS
    init_default_scope('mmdet')
    return MODELS.build(cfg)


def detection_sample():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    sample = DetDataSample(metainfo=dict(img_shape=(90, 120), batch_input_shape=None))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 20.0, 60.0, 80.0]]),
        labels=torch.tensor([3]),
        masks=BitmapMasks(torch.ones(1, 90, 120).numpy(), 90, 120),
    )
    return sample


def segmentor(backbone):
    from mmseg.registry import MODELS

    head = dict(
        type='UPerHead',
        in_channels=CHANNELS,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=5,
        norm_cfg=dict(type='GN', num_groups=4),
    )
    init_default_scope('mmseg')
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(90, 120)),
            backbone=backbone,
            decode_head=head,
        )
    )


def segmentation_sample():
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=(90, 120)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 90, 120)))
    return sample


@pytest.mark.parametrize('build', [detector, segmentor])
@pytest.mark.parametrize('options', [{}, dict(prefix='backbone.')])
def test_swin_of_mmdet_and_mmseg_takes_the_weights(build, options, tmp_path):
    source = pretrained_swin()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'epoch_1.pth')
    checkpoint = str(tmp_path / 'epoch_1.pth')
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint, **options)
    cfg = dict(type='SwinTransformer', window_size=4, init_cfg=ConfigDict(init_cfg))
    model = build(cfg | SWIN['arch'])
    model.init_weights()
    encoder, backbone = source.get_submodule('backbone').eval(), model.backbone
    backbone.eval()  # returns None
    assert type(backbone).__module__.split('.')[0] in ('mmdet', 'mmseg')
    image = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        assert torch.equal(backbone(image)[-1], encoder(image)[-1])


@pytest.mark.parametrize(
    'build, make_sample',
    [(detector, detection_sample), (segmentor, segmentation_sample)],
    ids=['mask rcnn', 'upernet'],
)
def test_pretrained_weights_drop_into_the_stock_class(pretrained, build, make_sample):
    encoder, cfg = pretrained
    model = build(cfg)
    model.init_weights()
    backbone = model.backbone
    assert type(backbone) in type(encoder).__mro__

    loaded = dict(backbone.named_parameters())
    trained = dict(encoder.named_parameters())
    assert loaded.keys() - trained.keys() == {
        f'norm{i}.{name}' for i in range(3) for name in ('weight', 'bias')
    }
    for name, value in trained.items():
        assert torch.equal(loaded[name], value), name

    encoder.eval()
    model.eval()
    image = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        assert torch.equal(backbone(image)[-1], encoder(image)[-1])

    model.train()
    before = {name: value.clone() for name, value in loaded.items()}
    optimizer = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=0.01),
            constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9),
        ),
    )
    images = torch.randint(0, 256, (2, 3, 90, 120), dtype=torch.uint8)
    data = dict(inputs=list(images), data_samples=[make_sample(), make_sample()])
    losses = model.train_step(data, optimizer)
    assert losses['loss'].isfinite()
    for name, value in backbone.named_parameters():
        assert value.isfinite().all() and not torch.equal(value, before[name]), name
