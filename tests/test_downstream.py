"""The backbone in mmdet and mmseg models, by its prefixed type."""

import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

BACKBONE = dict(
    type='mmmixmim.MixMIMTransformer',
    arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    img_size=64,
    out_indices=(0, 1, 2, 3),
)
CHANNELS = [16, 32, 64, 128]


def assert_trains(model, inputs, data_samples):
    data = dict(inputs=inputs, data_samples=data_samples)
    data = model.data_preprocessor(data, training=True)
    losses = model(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_mask_rcnn():
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone = BACKBONE
    cfg.neck.in_channels = CHANNELS
    init_default_scope('mmdet')
    model = MODELS.build(cfg)

    sample = DetDataSample(metainfo=dict(img_shape=(90, 120), batch_input_shape=None))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 20.0, 60.0, 80.0]]),
        labels=torch.tensor([3]),
        masks=BitmapMasks(torch.ones(1, 90, 120).numpy(), 90, 120),
    )
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    assert_trains(model, [image], [sample])


def test_upernet(tmp_path):
    """It starts from the file that mmseg's models name by ``pretrained``."""
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    init_default_scope('mmseg')
    weights = MODELS.build(BACKBONE).state_dict()
    checkpoint = {f'backbone.{name}': value for name, value in weights.items()}
    torch.save(dict(state_dict=checkpoint), tmp_path / 'pretrained.pth')
    model = MODELS.build(
        ConfigDict(
            pretrained=str(tmp_path / 'pretrained.pth'),
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 96)),
            backbone=BACKBONE,
            decode_head=dict(
                type='UPerHead',
                in_channels=CHANNELS,
                in_index=[0, 1, 2, 3],
                channels=16,
                num_classes=5,
                norm_cfg=dict(type='GN', num_groups=4),
            ),
        )
    )
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    sample = SegDataSample(metainfo=dict(img_shape=(64, 96)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 5, (1, 64, 96)))
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    assert_trains(model, [image], [sample])
