"""The values of every recipe, which the tests compare with the configs.

They are written out here without reading a config. ``recipe`` returns the expected
sections of a runnable config by its name. Sections are complete: an entry of the
config that is not in them is a difference, too.
"""

RGB_MEAN = [123.675, 116.28, 103.53]
RGB_STD = [58.395, 57.12, 57.375]
PRETRAINED = dict(type='Pretrained', checkpoint='', prefix='backbone.')

#                    pretraining: encoder, epochs, images per GPU
PRETRAINING = {
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k': ('base', 300, 128),
    'mixmim_mixmim-base_16xb128-amp-coslr-600e_in1k': ('base', 600, 128),
    'mixmim_mixmim-large_16xb128-amp-coslr-600e_in1k': ('large', 600, 128),
    'mixmim_mixmim-huge_32xb64-amp-coslr-600e_in1k': ('huge', 600, 64),
    'mixmim_mixmim-large_16xb128-fsdp-coslr-600e_in1k': ('large', 600, 128),
    'mixmim_mixmim-huge_32xb64-fsdp-coslr-600e_in1k': ('huge', 600, 64),
    'mixmim_mixmim-large_16xb128-zero2-coslr-600e_in1k': ('large', 600, 128),
    'mixmim_mixmim-huge_32xb64-zero3-coslr-600e_in1k': ('huge', 600, 64),
    'mixmim_mixmim-tiny_1xb64-coslr-300e_folder': ('tiny', 300, 64),
    'mixmim_mixmim-base_1xb64-coslr-300e_folder': ('base', 300, 64),
    'mixmim_mixmim-large_1xb64-coslr-300e_folder': ('large', 300, 64),
    'mixmim_mixmim-huge_1xb64-coslr-300e_folder': ('huge', 300, 64),
}

#       fine-tuning: encoder, its channels, drop path, images per GPU, data, classes
FINETUNING = {
    'mixmim-base_8xb128-amp-coslr-100e_in1k': (('base', 1024, 0.1, 128, 'in1k', 1000)),
    'mixmim-large_8xb128-amp-coslr-100e_in1k': (
        ('large', 1536, 0.2, 128, 'in1k', 1000)
    ),
    'mixmim-huge_16xb64-amp-coslr-100e_in1k': (
        # only training has half the batch
        ('huge', 2816, 0.3, 64, 'in1k', 1000)
    ),
    'mixmim-base_8xb128-amp-coslr-100e_in1k-384px': (
        ('base', 1024, 0.1, 128, 'in1k', 1000)
    ),
    'mixmim-large_8xb128-amp-coslr-100e_in1k-384px': (
        ('large', 1536, 0.2, 128, 'in1k', 1000)
    ),
    'mixmim-base_8xb128-amp-coslr-100e_inat2018': (
        ('base', 1024, 0.1, 128, 'inat2018', 8142)
    ),
    'mixmim-base_8xb128-amp-coslr-100e_inat2019': (
        ('base', 1024, 0.1, 128, 'inat2019', 1010)
    ),
    'mixmim-base_8xb128-amp-coslr-100e_places205': (
        ('base', 1024, 0.1, 128, 'places205', 205)
    ),
    'mixmim-base_8xb128-amp-coslr-100e_places365': (
        ('base', 1024, 0.1, 128, 'places365', 365)
    ),
    'mixmim-base_1xb64-coslr-100e_folder': (('base', 1024, 0.1, 64, 'folder', 1000)),
    'mixmim-tiny_1xb64-coslr-100e_folder': (('tiny', 512, 0.1, 64, 'folder', 1000)),
}

#       pretraining of other encoders: backbone, size of the images
OTHER_PRETRAINING = {
    'mixmim_swin-tiny_16xb128-amp-coslr-300e_in1k': (
        dict(
            type='MixMIMSwinTransformer', arch='tiny', img_size=224, drop_path_rate=0.0
        ),
        224,
    ),
    'mixmim_swin-base_16xb128-amp-coslr-300e_in1k': (
        dict(
            type='MixMIMSwinTransformer', arch='base', img_size=224, drop_path_rate=0.0
        ),
        224,
    ),
    'mixmim_swin-v2-base_16xb128-amp-coslr-300e_in1k-256px': (
        dict(
            type='MixMIMSwinTransformerV2',
            arch='base',
            img_size=256,
            window_size=8,
            drop_path_rate=0.0,
        ),
        256,
    ),
    'mixmim_pvt-small_16xb128-amp-coslr-300e_in1k': (
        dict(
            type='MixMIMPyramidVisionTransformer',
            pretrain_img_size=224,
            embed_dims=64,
            num_layers=[3, 4, 6, 3],
            num_heads=[1, 2, 5, 8],
            out_indices=(3,),
            drop_path_rate=0.0,
        ),
        224,
    ),
    'mixmim_convnext-base_16xb128-amp-coslr-300e_in1k': (
        dict(
            type='MixMIMConvNeXt',
            arch='base',
            img_size=224,
            gap_before_final_norm=False,
        ),
        224,
    ),
    'mixmim_convnext-v2-base_16xb128-amp-coslr-300e_in1k': (
        dict(
            type='MixMIMConvNeXt',
            arch='base',
            img_size=224,
            gap_before_final_norm=False,
            use_grn=True,
            layer_scale_init_value=0.0,
        ),
        224,
    ),
    'mixmim_hivit-base_16xb128-amp-coslr-300e_in1k': (
        dict(type='MixMIMHiViT', arch='base', img_size=224),
        224,
    ),
}

#       their fine-tuning: backbone, its channels, size of the images, margin around it
OTHER_FINETUNING = {
    'swin-tiny_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(type='SwinTransformer', arch='tiny', img_size=224, drop_path_rate=0.1),
        768,
        224,
        256,
    ),
    'swin-base_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(type='SwinTransformer', arch='base', img_size=224, drop_path_rate=0.1),
        1024,
        224,
        256,
    ),
    'swin-v2-base_mixmim-pre_8xb128-amp-coslr-100e_in1k-256px': (
        dict(
            type='SwinTransformerV2',
            arch='base',
            img_size=256,
            window_size=8,
            drop_path_rate=0.1,
        ),
        1024,
        256,
        292,
    ),
    'pvt-small_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(
            type='MixMIMPyramidVisionTransformer',
            pretrain_img_size=224,
            embed_dims=64,
            num_layers=[3, 4, 6, 3],
            num_heads=[1, 2, 5, 8],
            out_indices=(3,),
            drop_path_rate=0.1,
        ),
        512,
        224,
        256,
    ),
    'convnext-base_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(type='ConvNeXt', arch='base', drop_path_rate=0.4),
        1024,
        224,
        256,
    ),
    'convnext-v2-base_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(
            type='ConvNeXt',
            arch='base',
            use_grn=True,
            layer_scale_init_value=0.0,
            drop_path_rate=0.1,
        ),
        1024,
        224,
        256,
    ),
    'hivit-base_mixmim-pre_8xb128-amp-coslr-100e_in1k': (
        dict(type='HiViT', arch='base', img_size=224, drop_path_rate=0.2),
        512,
        224,
        256,
    ),
}

#                    SimMIM: epochs
SIMMIM = {'simmim_swin-base_16xb128-amp-steplr-800e_in1k-192px': (800,)}

#                    linear probing: encoder, its channels
LINEAR = {
    'mixmim-base_8xb2048-linear-amp-coslr-90e_in1k': ('base', 1024),
    'mixmim-large_8xb2048-linear-amp-coslr-90e_in1k': ('large', 1536),
    'mixmim-huge_8xb2048-linear-amp-coslr-90e_in1k': ('huge', 2816),
}

ARCHS = dict(
    tiny=dict(embed_dims=64, depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 16]),
    base='base',
    large='large',
    huge='huge',
)

#                    data: of training, of validation
DATA = dict(
    in1k=[
        dict(type='ImageNet', data_root='data/imagenet', split=split)
        for split in ('train', 'val')
    ],
    inat2018=[
        dict(
            type='INaturalist',
            data_root='data/inaturalist/2018',
            ann_file=f'{split}2018.json',
        )
        for split in ('train', 'val')
    ],
    inat2019=[
        dict(
            type='INaturalist',
            data_root='data/inaturalist/2019',
            ann_file=f'{split}2019.json',
        )
        for split in ('train', 'val')
    ],
    places205=[
        dict(
            type='Places205',
            data_root='data/places205',
            data_prefix='data/vision/torralba/deeplearning/images256',
            ann_file=f'trainvalsplit_places205/{split}_places205.csv',
        )
        for split in ('train', 'val')
    ],
    places365=[
        dict(type='CustomDataset', data_root=f'data/places365_standard/{split}')
        for split in ('train', 'val')
    ],
    folder=[
        dict(type='CustomDataset', data_root=f'data/images/{split}')
        for split in ('train', 'val')
    ],
)

#       Mask and Cascade Mask R-CNN: encoder, channels, drop path, recomputed, schedule
COCO = {
    'mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco': (
        ('base', [128, 256, 512, 1024], 0.1, None, '1x')
    ),
    'mask-rcnn_mixmim-base_fpn_8xb2-amp-ms-crop-3x_coco': (
        ('base', [128, 256, 512, 1024], 0.1, None, '3x')
    ),
    'mask-rcnn_mixmim-base_fpn_32xb2-amp-lsj-100e_coco': (
        ('base', [128, 256, 512, 1024], 0.1, None, 'lsj')
    ),
    'mask-rcnn_mixmim-large_fpn_8xb2-amp-1x_coco': (
        ('large', [192, 384, 768, 1536], 0.4, True, '1x')
    ),
    'mask-rcnn_mixmim-large_fpn_8xb2-amp-ms-crop-3x_coco': (
        ('large', [192, 384, 768, 1536], 0.4, True, '3x')
    ),
    'mask-rcnn_mixmim-large_fpn_32xb2-amp-lsj-100e_coco': (
        ('large', [192, 384, 768, 1536], 0.4, True, 'lsj')
    ),
    'cascade-mask-rcnn_mixmim-base_fpn_8xb2-amp-ms-crop-3x_coco': (
        ('base', [128, 256, 512, 1024], 0.1, None, '3x')
    ),
}

#                    UperNet: encoder, channels, drop path
ADE20K = {
    'mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512': (
        ('base', [128, 256, 512, 1024], 0.1)
    ),
    'mixmim-large_upernet_8xb2-amp-160k_ade20k-512x512': (
        ('large', [192, 384, 768, 1536], 0.2)
    ),
}

_SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch='base',
    img_size=224,
    drop_path_rate=0.3,
    pad_small_map=True,
    out_indices=(0, 1, 2, 3),
    init_cfg=PRETRAINED,
)
_CONVNEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch='base',
    drop_path_rate=0.4,
    gap_before_final_norm=False,
    out_indices=(0, 1, 2, 3),
    init_cfg=PRETRAINED,
)
#                    Mask R-CNN for 12 epochs: backbone
OTHER_COCO = {
    'mask-rcnn_swin-base_fpn_mixmim-pre_8xb2-amp-1x_coco': (_SWIN,),
    'mask-rcnn_convnext-base_fpn_mixmim-pre_8xb2-amp-1x_coco': (_CONVNEXT,),
}
#                    UperNet: backbone
OTHER_ADE20K = {
    'swin-base_upernet_mixmim-pre_8xb2-amp-160k_ade20k-512x512': (_SWIN,),
    'convnext-base_upernet_mixmim-pre_8xb2-amp-160k_ade20k-512x512': (_CONVNEXT,),
}


def recipe(name: str) -> dict:
    """The expected sections of a config."""
    tables = {
        pretraining: PRETRAINING,
        other_pretraining: OTHER_PRETRAINING,
        simmim: SIMMIM,
        finetuning: FINETUNING,
        other_finetuning: OTHER_FINETUNING,
        linear_probing: LINEAR,
        detection: COCO,
        other_detection: OTHER_COCO,
        segmentation: ADE20K,
        other_segmentation: OTHER_ADE20K,
    }
    for make, table in tables.items():
        if name in table:
            return make(name, *table[name])
    raise KeyError(name)


def flatten(node, key: str = '') -> dict:
    """Leaves of nested dicts and lists by their dotted names.

    Registry scopes and absent file backends are left out: mmdet's base files set
    them and they change nothing here.
    """
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return {key[1:]: node}
    leaves = {}
    for name, child in items:
        if name != '_scope_' and (name, child) != ('backend_args', None):
            leaves |= flatten(child, f'{key}.{name}')
    return leaves or {key[1:]: type(node)()}


def loader(batch, workers, dataset, shuffle, **options) -> dict:
    """A dataloader of pretraining and classification."""
    return dict(
        batch_size=batch,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
        **options,
    )


def runtime(name: str) -> dict:
    """What all recipes of pretraining and classification share."""
    return dict(
        default_scope='mmmixmim',
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(type='LoggerHook', interval=100),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=3),
            preemption=dict(type='PreemptionHook'),
            non_finite=dict(type='NonFiniteHook'),
            sampler_seed=dict(type='DistSamplerSeedHook'),
            plain_checkpoint=dict(type='PlainCheckpointHook'),
            unreadable_images=dict(type='UnreadableImagesHook', max_share=0.01),
            visualization=dict(type='VisualizationHook', enable=False),
        ),
        env_cfg=dict(
            cudnn_benchmark=False,
            mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
            dist_cfg=dict(backend='nccl'),
        ),
        auto_scale_lr=dict(enable=True, base_batch_size=256),
        randomness=dict(seed=0, diff_rank_seed=True),
        load_from=None,
        resume=False,
    )


def optimizer_wrapper(name: str, **entries) -> dict:
    """Mixed precision where the name says so."""
    if '-zero' in name:
        return dict(type='DeepSpeedOptimWrapper', **entries)
    amp = '-amp-' in name
    return dict(type='AmpOptimWrapper' if amp else 'OptimWrapper', **entries)


def sharding(name: str) -> dict:
    """FSDP or DeepSpeed's ZeRO, where the name says so."""
    flexible = dict(runner_type='FlexibleRunner')
    if '-fsdp-' in name:
        precision = dict(
            param_dtype='bfloat16',
            reduce_dtype='float32',
            cast_forward_inputs=True,
            cast_root_forward_inputs=False,
        )
        return flexible | dict(
            strategy=dict(
                type='mmmixmim.FSDPStrategy',
                model_wrapper=dict(mixed_precision=precision),
                state_dict_cfg='full',
            )
        )
    if '-zero' in name:
        zero = dict(stage=2, overlap_comm=True, contiguous_gradients=True)
        if '-zero3-' in name:
            zero |= dict(stage=3, stage3_gather_16bit_weights_on_model_save=True)
        return flexible | dict(
            strategy=dict(
                type='mmmixmim.DeepSpeedStrategy',
                bf16=dict(enabled=True),
                inputs_to_half=['inputs'],
                zero_optimization=zero,
            )
        )
    return {}


def pretraining(name: str, size: str, epochs: int, batch: int) -> dict:
    """The authors' recipe, except for sizes."""
    neck = dict(type='MixMIMPretrainDecoder')  # by default 512 channels, 8 blocks
    if size == 'tiny':
        neck |= dict(decoder_embed_dims=256, decoder_depth=4, decoder_num_heads=8)
    pipeline = [
        dict(
            type='LoadRandomResizedCrop',
            scale=224,
            crop_ratio_range=(0.2, 1.0),
            interpolation='bicubic',
            flip_prob=0.5,
            ignore_empty=True,
        ),
        dict(type='PackInputs'),
    ]
    held_out_pipeline = [
        dict(
            type='LoadRandomResizedCrop',
            scale=224,
            max_attempts=0,
            aspect_ratio_range=(1.0, 1.0),
            interpolation='bicubic',
            ignore_empty=True,
        ),
        dict(type='PackInputs'),
    ]
    if '_in1k' in name:
        dataset = dict(
            type='ImageNet', data_root='data/imagenet', split='train', pipeline=pipeline
        )
        held_out = dict(type='ImageNet', data_root='data/imagenet', split='val')
        train = loader(batch, 8, dataset, True, drop_last=True)
        val_cfg = dict(type='HeldOutLoop', max_images=5000)
    else:
        dataset = dict(
            type='ImageFolder',
            data_root='data/images',
            held_out=0.05,
            pipeline=pipeline,
        )
        held_out = dict(type='ImageFolder', part='held_out')
        train = loader(batch, 4, dataset, True, drop_last=True)
        val_cfg = dict(type='HeldOutLoop')
    return (
        runtime(name)
        | sharding(name)
        | dict(
            model=dict(
                type='MixMIM',
                backbone=dict(type='MixMIMTransformer', arch=ARCHS[size], img_size=224),
                neck=neck,
                head=dict(type='MixMIMPretrainHead', norm_pix=True),
                mask_ratio=0.5,
                data_preprocessor=dict(
                    type='SelfSupDataPreprocessor',
                    mean=RGB_MEAN,
                    std=RGB_STD,
                    to_rgb=True,
                    non_blocking=True,
                ),
            ),
            train_dataloader=train,
            val_dataloader=loader(
                32, 4, held_out | dict(pipeline=held_out_pipeline), False
            ),
            val_cfg=val_cfg,
            val_evaluator=[dict(type='ReconstructionLoss'), dict(type='FeatureHealth')],
            custom_hooks=[
                dict(type='ReconstructionHook'),
                dict(type='DiagnosisHook'),
                dict(type='ReportHook'),
            ],
            optim_wrapper=optimizer_wrapper(
                name,
                optimizer=dict(
                    type='AdamW',
                    lr=1.5e-4,
                    betas=(0.9, 0.95),
                    weight_decay=0.05,
                    fused=True,
                ),
                paramwise_cfg=dict(flat_decay_mult=0.0),
            ),
            param_scheduler=[
                dict(
                    type='WarmupCosineLR',
                    warmup=40,
                    end=epochs,
                    convert_to_iter_based=True,
                )
            ],
            train_cfg=dict(
                type='ResumableEpochLoop', max_epochs=epochs, val_interval=5
            ),
        )
    )


def other_pretraining(name: str, backbone: dict, img_size: int) -> dict:
    """The recipe of the base model for another encoder."""
    expected = pretraining(name, 'base', 300, 128)
    expected['model']['backbone'] = backbone
    for split in ('train', 'val'):
        expected[f'{split}_dataloader']['dataset']['pipeline'][0]['scale'] = img_size
    return expected


def simmim(name: str, epochs: int) -> dict:
    """mmpretrain's recipe of SimMIM, by our algorithm and our reading of images."""
    backbone = dict(
        type='MixMIMSwinTransformer',
        arch='base',
        img_size=192,
        window_size=6,
        drop_path_rate=0.0,
    )
    expected = other_pretraining(name, backbone, 192)
    expected['train_dataloader']['dataset']['pipeline'][0] = dict(
        type='LoadRandomResizedCrop',
        scale=192,
        crop_ratio_range=(0.67, 1.0),
        interpolation='bilinear',
        flip_prob=0.5,
        ignore_empty=True,
    )
    held_out = expected['val_dataloader']['dataset']['pipeline'][0]
    held_out['interpolation'] = 'bilinear'
    expected['model'] |= dict(
        neck=dict(type='SimMIMLinearDecoder', in_channels=1024, encoder_stride=32),
        head=dict(
            type='SimMIMHead',
            patch_size=4,
            loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
        ),
        filling='mask_token',
        mask_ratio=0.6,
    )
    by_epoch = dict(convert_to_iter_based=True)
    return expected | dict(
        optim_wrapper=optimizer_wrapper(
            name,
            optimizer=dict(
                type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True
            ),
            clip_grad=dict(max_norm=5.0),
            paramwise_cfg=dict(
                flat_decay_mult=0.0,
                custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0)),
            ),
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=5e-3, end=10, **by_epoch),
            dict(
                type='MultiStepLR', milestones=[700], begin=10, end=epochs, **by_epoch
            ),
        ],
        train_cfg=dict(type='ResumableEpochLoop', max_epochs=epochs, val_interval=5),
        auto_scale_lr=dict(enable=True, base_batch_size=512),
    )


def classification(name: str, data: str, classes: int) -> dict:
    """What fine-tuning and linear probing share."""
    return runtime(name) | dict(
        num_classes=classes,
        custom_hooks=[dict(type='ClassCheckHook')],
        val_cfg={},
        test_cfg={},
        **{
            f'{split}_evaluator': dict(
                type='Accuracy', topk=1 if data == 'folder' else (1, 5)
            )
            for split in ('val', 'test')
        },
    )


def finetuning(
    name: str,
    size: str,
    channels: int,
    drop_path: float,
    batch: int,
    data: str,
    classes,
) -> dict:
    """The authors' recipe, except for sizes and data."""
    img_size, resized = (384, 384) if name.endswith('384px') else (224, 256)
    backbone = dict(
        type='MixMIMTransformer',
        arch=ARCHS[size],
        img_size=img_size,
        drop_path_rate=drop_path,
        init_cfg=PRETRAINED,
    )
    if img_size == 384:
        backbone['window_size'] = [16, 16, 24, 12]
    resizing = dict(backend='pillow', interpolation='bicubic')
    train_pipeline = [
        dict(type='LoadImageOrSkip'),
        dict(type='RandomResizedCrop', scale=img_size, **resizing),
        dict(type='RandomFlip', prob=0.5),
        dict(
            type='RandAugment',
            policies='timm_increasing',
            num_policies=2,
            total_level=10,
            magnitude_level=9,
            magnitude_std=0.5,
            hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
        ),
        dict(
            type='RandomErasing',
            erase_prob=0.25,
            mode='rand',
            min_area_ratio=0.02,
            max_area_ratio=1 / 3,
            fill_color=RGB_MEAN[::-1],
            fill_std=RGB_STD[::-1],
        ),
        dict(type='PackInputs'),
    ]
    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=resized, edge='short', **resizing),
        dict(type='CenterCrop', crop_size=img_size),
        dict(type='PackInputs'),
    ]
    train, val = DATA[data]
    own = data == 'folder'
    workers, test_batch = (4, 64) if own else (10, 128)
    test = loader(test_batch, workers, val | dict(pipeline=test_pipeline), False)
    return classification(name, data, classes) | dict(
        model=dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=classes,
                in_channels=channels,
                loss=dict(
                    type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
                ),
                init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
            ),
            train_cfg=dict(
                augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
            ),
            data_preprocessor=dict(
                num_classes=classes, mean=RGB_MEAN, std=RGB_STD, to_rgb=True
            ),
        ),
        train_dataloader=loader(
            batch,
            workers,
            train | dict(pipeline=train_pipeline),
            True,
            drop_last=not own,
        ),
        val_dataloader=test,
        test_dataloader=test,
        optim_wrapper=optimizer_wrapper(
            name,
            optimizer=dict(
                type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True
            ),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(
                layer_decay_rate=0.7, custom_keys=dict(head=dict(lr_mult=0.7))
            ),
        ),
        param_scheduler=[
            dict(
                type='WarmupCosineLR',
                warmup=5,
                end=100,
                min_lr=1e-6,
                convert_to_iter_based=True,
            )
        ],
        train_cfg=dict(type='ResumableEpochLoop', max_epochs=100, val_interval=1),
    )


def other_finetuning(
    name: str, backbone: dict, channels: int, img_size: int, resized: int
) -> dict:
    """The recipe of the base model for another encoder, in its stock class."""
    expected = finetuning(name, 'base', channels, 0.1, 128, 'in1k', 1000)
    model = expected['model']
    model['backbone'] = backbone | dict(init_cfg=PRETRAINED)
    if backbone['type'] == 'ConvNeXt':  # it pools its map itself
        model['neck'] = None
    _, crop, *_ = expected['train_dataloader']['dataset']['pipeline']
    crop['scale'] = img_size
    _, resize, crop, _ = expected['val_dataloader']['dataset']['pipeline']
    resize['scale'], crop['crop_size'] = resized, img_size
    return expected


def linear_probing(name: str, size: str, channels: int) -> dict:
    """MAE's recipe."""
    resizing = dict(backend='pillow', interpolation='bicubic')
    train, val = DATA['in1k']
    train_pipeline = [
        dict(type='LoadImageOrSkip'),
        dict(type='RandomResizedCrop', scale=224, **resizing),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=256, edge='short', **resizing),
        dict(type='CenterCrop', crop_size=224),
        dict(type='PackInputs'),
    ]
    test = loader(128, 10, val | dict(pipeline=test_pipeline), False)
    return classification(name, 'in1k', 1000) | dict(
        model=dict(
            type='ImageClassifier',
            backbone=dict(
                type='MixMIMTransformer',
                arch=size,
                img_size=224,
                drop_path_rate=0.0,
                frozen_stages=4,
                init_cfg=PRETRAINED,
            ),
            neck=[
                dict(type='GlobalAveragePooling'),
                dict(type='ClsBatchNormNeck', input_features=channels),
            ],
            head=dict(
                type='LinearClsHead',
                num_classes=1000,
                in_channels=channels,
                loss=dict(type='CrossEntropyLoss'),
                init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
            ),
            train_cfg=None,
            data_preprocessor=dict(
                num_classes=1000, mean=RGB_MEAN, std=RGB_STD, to_rgb=True
            ),
        ),
        train_dataloader=loader(
            2048, 10, train | dict(pipeline=train_pipeline), True, drop_last=True
        ),
        val_dataloader=test,
        test_dataloader=test,
        optim_wrapper=optimizer_wrapper(
            name,
            optimizer=dict(type='LARS', lr=0.1, momentum=0.9, weight_decay=0.0),
            paramwise_cfg=dict(custom_keys={'head.fc.bias': dict(lars_exclude=True)}),
        ),
        param_scheduler=[
            dict(type='WarmupCosineLR', warmup=10, end=90, convert_to_iter_based=True)
        ],
        train_cfg=dict(type='ResumableEpochLoop', max_epochs=90, val_interval=1),
    )


def dense_wrapper(name: str, weight_decay: float) -> dict:
    """AdamW with ViTDet's layer decay for 24 blocks."""
    return optimizer_wrapper(
        name,
        optimizer=dict(
            type='AdamW',
            lr=1e-4,
            betas=(0.9, 0.999),
            weight_decay=weight_decay,
            fused=True,
        ),
        constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.8),
    )


def dense_encoder(size, drop_path, img_size, window_size) -> dict:
    """The backbone of a detector or a segmentor."""
    return dict(
        type='mmmixmim.MixMIMTransformer',
        arch=size,
        img_size=img_size,
        window_size=window_size,
        drop_path_rate=drop_path,
        out_indices=(0, 1, 2, 3),
        init_cfg=PRETRAINED,
    )


def detection(name, size, channels, drop_path, recomputed, schedule) -> dict:
    """Mask R-CNN of mmdet's Swin configs or, with large-scale jitter, of ViTDet.

    Of the model, which is mmdet's, only what differs from mmdet's base file.
    """
    jitter = schedule == 'lsj'
    img_size, windows = (1024, [16, 16, 32, 32]) if jitter else (896, [14, 14, 28, 28])
    backbone = dense_encoder(size, drop_path, img_size, windows)
    if recomputed:
        backbone['with_cp'] = True
    model = dict(
        type='CascadeRCNN' if name.startswith('cascade') else 'MaskRCNN',
        backbone=backbone,
        neck=dict(type='FPN', in_channels=channels, out_channels=256, num_outs=5),
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=RGB_MEAN,
            std=RGB_STD,
            bgr_to_rgb=True,
            pad_mask=True,
            pad_size_divisor=32,
        ),
    )
    if jitter:
        model['data_preprocessor']['batch_augments'] = [
            dict(type='BatchFixedSizePad', size=(1024, 1024), pad_mask=True)
        ]
    end, milestones = {
        '1x': (12, [8, 11]),
        '3x': (36, [27, 33]),
        'lsj': (25, [22, 24]),  # each four times COCO
    }[schedule]
    train, test = detection_data(schedule)
    evaluator = dict(
        type='CocoMetric',
        ann_file='data/coco/annotations/instances_val2017.json',
        metric=['bbox', 'segm'],
        format_only=False,
        backend_args=None,
    )
    return dict(
        default_scope='mmdet',
        model=model,
        train_dataloader=train,
        val_dataloader=test,
        test_dataloader=test,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        optim_wrapper=dense_wrapper(name, 0.1 if jitter else 0.05),
        param_scheduler=[
            dict(
                type='LinearLR',
                start_factor=0.001,
                by_epoch=False,
                begin=0,
                end=250 if jitter else 1000,
            ),
            dict(
                type='MultiStepLR', begin=0, end=end, milestones=milestones, gamma=0.1
            ),
        ],
        train_cfg=dict(
            type='mmmixmim.ResumableEpochLoop',
            max_epochs=end,
            val_interval=5 if jitter else 1,
        ),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        auto_scale_lr=dict(enable=True, base_batch_size=64 if jitter else 16),
        custom_hooks=[dict(type='mmmixmim.AnnotationCheckHook')],
    )


def other_detection(name: str, backbone: dict) -> dict:
    """The recipe of the base model, which has as many channels, for another one."""
    expected = detection(name, 'base', [128, 256, 512, 1024], 0.1, None, '1x')
    expected['model']['backbone'] = backbone
    return expected


def detection_data(schedule: str) -> tuple[dict, dict]:
    """Dataloaders of COCO, for training and testing."""
    load = [
        dict(type='mmmixmim.LoadImageOrSkip'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    ]
    flip, pack = dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')
    if schedule == '1x':
        resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
        pipeline = [*load, resize, flip, pack]
    elif schedule == '3x':
        sides = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
        resize = dict(
            type='RandomChoiceResize',
            scales=[(side, 1333) for side in sides],
            keep_ratio=True,
        )
        before = dict(
            type='RandomChoiceResize',
            scales=[(400, 1333), (500, 1333), (600, 1333)],
            keep_ratio=True,
        )
        crop = dict(
            type='RandomCrop',
            crop_type='absolute_range',
            crop_size=(384, 600),
            allow_negative_crop=True,
        )
        choice = dict(
            type='RandomChoice', transforms=[[resize], [before, crop, resize]]
        )
        pipeline = [*load, flip, choice, pack]
    else:
        resize = dict(
            type='RandomResize',
            scale=(1024, 1024),
            ratio_range=(0.1, 2.0),
            keep_ratio=True,
        )
        crop = dict(
            type='RandomCrop',
            crop_type='absolute_range',
            crop_size=(1024, 1024),
            recompute_bbox=True,
            allow_negative_crop=True,
        )
        small = dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2))
        pipeline = [*load, resize, crop, small, flip, pack]
    coco = dict(type='CocoDataset', data_root='data/coco/', backend_args=None)
    dataset = coco | dict(
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=pipeline,
    )
    shared = dict(num_workers=2, persistent_workers=True)
    train = shared | dict(
        batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset
    )
    if schedule == 'lsj':
        train['dataset'] = dict(type='RepeatDataset', times=4, dataset=dataset)
    else:
        train['batch_sampler'] = dict(type='AspectRatioBatchSampler')
    scale = (1024, 1024) if schedule == 'lsj' else (1333, 800)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=scale, keep_ratio=True),
        load[1],
        dict(type='PackDetInputs', meta_keys=keys),
    ]
    test = shared | dict(
        batch_size=1,
        drop_last=False,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=coco
        | dict(
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017/'),
            test_mode=True,
            pipeline=test_pipeline,
        ),
    )
    return train, test


def segmentation(name: str, size: str, channels: list[int], drop_path: float) -> dict:
    """mmsegmentation's recipe of MAE, and ViTDet's layer decay."""
    norm_cfg = dict(type='SyncBN', requires_grad=True)
    head = dict(
        dropout_ratio=0.1, num_classes=150, norm_cfg=norm_cfg, align_corners=False
    )
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=RGB_MEAN,
            std=RGB_STD,
            bgr_to_rgb=True,
            size=(512, 512),
            pad_val=0,
            seg_pad_val=255,
        ),
        backbone=dense_encoder(size, drop_path, 512, [16, 16, 32, 16]),
        decode_head=head
        | dict(
            type='UPerHead',
            in_channels=channels,
            in_index=[0, 1, 2, 3],
            pool_scales=(1, 2, 3, 6),
            channels=512,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
        auxiliary_head=head
        | dict(
            type='FCNHead',
            in_channels=channels[2],
            in_index=2,
            channels=256,
            num_convs=1,
            concat_input=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
        ),
        train_cfg={},
        test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
    )
    train, test, augmented = segmentation_data()
    evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    return dict(
        default_scope='mmseg',
        num_classes=150,
        model=model,
        tta_model=dict(type='SegTTAModel'),
        tta_pipeline=augmented,
        train_dataloader=train,
        val_dataloader=test,
        test_dataloader=test,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        optim_wrapper=dense_wrapper(name, 0.05),
        param_scheduler=[
            dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
            dict(type='PolyLR', power=1.0, begin=1500, end=160000, by_epoch=False),
        ],
        train_cfg=dict(
            type='mmmixmim.ResumableIterLoop', max_iters=160000, val_interval=16000
        ),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        auto_scale_lr=dict(enable=True, base_batch_size=16),
        custom_hooks=[dict(type='mmmixmim.AnnotationCheckHook')],
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(
                type='mmmixmim.SafeCheckpointHook', by_epoch=False, interval=16000
            ),
            preemption=dict(type='mmmixmim.PreemptionHook'),
            non_finite=dict(type='mmmixmim.NonFiniteHook'),
            sampler_seed=dict(type='DistSamplerSeedHook'),
            plain_checkpoint=dict(type='mmmixmim.PlainCheckpointHook'),
            visualization=dict(type='SegVisualizationHook'),
        ),
    )


def other_segmentation(name: str, backbone: dict) -> dict:
    """The recipe of the base model, which has as many channels, for another one."""
    expected = segmentation(name, 'base', [128, 256, 512, 1024], 0.1)
    expected['model']['backbone'] = backbone
    return expected


def segmentation_data() -> tuple[dict, dict, list]:
    """Dataloaders of ADE20K, and the pipeline of test-time augmentation."""
    load = dict(type='LoadImageFromFile')
    labels = dict(type='LoadAnnotations', reduce_zero_label=True)
    pack = dict(type='PackSegInputs')
    train_pipeline = [
        dict(type='mmmixmim.LoadImageOrSkip'),
        labels,
        dict(
            type='RandomResize',
            scale=(2048, 512),
            ratio_range=(0.5, 2.0),
            keep_ratio=True,
        ),
        dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        pack,
    ]
    resize = dict(type='Resize', scale=(2048, 512), keep_ratio=True)
    test_pipeline = [load, resize, labels, pack]
    ratios, flips = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), (0.0, 1.0)
    augmented = [
        load,
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in ratios],
                [
                    dict(type='RandomFlip', prob=p, direction='horizontal')
                    for p in flips
                ],
                [labels],
                [pack],
            ],
        ),
    ]

    def ade20k(split, pipeline):
        folders = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
        return dict(
            type='ADE20KDataset',
            data_root='data/ade/ADEChallengeData2016',
            data_prefix=folders,
            pipeline=pipeline,
        )

    shared = dict(num_workers=4, persistent_workers=True)
    train = shared | dict(
        batch_size=2,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=ade20k('training', train_pipeline),
    )
    test = shared | dict(
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=ade20k('validation', test_pipeline),
    )
    return train, test, augmented


_DECAY = {
    'optim_wrapper.type': 'OptimWrapper',
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.optimizer.weight_decay': 0.05,
}
_NO_DECAY_OF_VECTORS = {
    'optim_wrapper.paramwise_cfg.flat_decay_mult': 0.0,
}
_ANY_DIGITS = (
    _DECAY
    | _NO_DECAY_OF_VECTORS
    | {
        'model.data_preprocessor.mean': [77.8],
        'model.data_preprocessor.std': [95.9],
        'train_dataloader.dataset.type': 'Digits',
        'train_dataloader.dataset.split': 'train',
        'train_dataloader.dataset.pipeline.0.scale': (32, 32),
        'train_dataloader.dataset.pipeline.1.scale': 32,
        'train_dataloader.dataset.pipeline.1.crop_ratio_range': (0.6, 1.0),
        'randomness.seed': 0,
    }
)
_DIGITS = _ANY_DIGITS | {
    'model.backbone.arch.embed_dims': 32,
    'model.backbone.arch.depths': [1, 1, 4],
    'model.backbone.arch.num_heads': [2, 4, 8],
    'model.backbone.img_size': 32,
    'model.backbone.patch_size': 2,
    'model.backbone.in_channels': 1,
    'model.backbone.window_size': 8,
}
_DIGITS_FROM_LABELS = _DIGITS | {
    'num_classes': 10,
    'model.head.num_classes': 10,
    'model.data_preprocessor.num_classes': 10,
    'model.head.in_channels': 128,
    'model.head.loss.label_smooth_val': 0.1,
    'model.backbone.drop_path_rate': 0.1,
    'optim_wrapper.optimizer.lr': 1e-3,
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'test_dataloader.dataset.split': 'test',
    'test_dataloader.dataset.pipeline.0.scale': (32, 32),
    'val_dataloader.batch_size': 256,
    'val_evaluator.topk': 1,
}
_SHAPES = _DECAY | {
    'model.backbone.arch.embed_dims': 32,
    'model.backbone.arch.depths': [1, 1, 4],
    'model.backbone.arch.num_heads': [1, 2, 4],
    'model.backbone.img_size': 96,
    'model.backbone.window_size': [6, 6, 6],
    'randomness.seed': 0,
}
_SHAPES_DENSE = _SHAPES | {
    'model.backbone.out_indices': (0, 1, 2),
    'custom_hooks': [dict(type='mmmixmim.AnnotationCheckHook')],
    'train_dataloader.batch_size': 8,
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'optim_wrapper.constructor': 'mmmixmim.LayerDecayOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.9,
    'param_scheduler.0.warmup': 2,
}


def _cosine(warmup: int, epochs: int) -> dict:
    """MMEngine's linear warm-up and cosine, and the training that they cover."""
    return {
        'param_scheduler.0.type': 'LinearLR',
        'param_scheduler.0.start_factor': 1e-3,
        'param_scheduler.0.end': warmup,
        'param_scheduler.1.type': 'CosineAnnealingLR',
        'param_scheduler.1.begin': warmup,
        'param_scheduler.1.end': epochs,
        'train_cfg.max_epochs': epochs,
    }


_DIGITS_PRETRAINING = (
    _ANY_DIGITS
    | _cosine(4, 40)
    | {
        'model.neck.decoder_embed_dims': 64,
        'model.neck.decoder_depth': 2,
        'model.neck.decoder_num_heads': 4,
        'optim_wrapper.optimizer.lr': 1.5e-3,
        'optim_wrapper.optimizer.betas': (0.9, 0.95),
        'train_dataloader.batch_size': 64,
    }
)
_SMALL_SWIN = dict(
    arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[2, 4, 8]),
    img_size=32,
    patch_size=2,
    in_channels=1,
    window_size=4,
    drop_path_rate=0.0,
    out_indices=(2,),
)
_SMALL_CONVNEXT = dict(
    type='MixMIMConvNeXt',
    arch=dict(depths=[1, 1, 4], channels=[32, 64, 128]),
    img_size=32,
    stem_patch_size=2,
    in_channels=1,
    out_indices=(2,),
    gap_before_final_norm=False,
)

# Pretraining of other encoders on the digits: the whole backbone.
OTHER_DIGITS = {
    f'mixmim_{name}-tiny_1xb64-coslr-40e_digits': _DIGITS_PRETRAINING
    | {'model.backbone': backbone}
    for name, backbone in {
        'swin': dict(type='MixMIMSwinTransformer', **_SMALL_SWIN),
        'swin-v2': _SMALL_SWIN
        | dict(
            type='MixMIMSwinTransformerV2',
            arch=_SMALL_SWIN['arch'] | dict(extra_norm_every_n_blocks=0),
            pretrained_window_sizes=[0, 0, 0],
        ),
        'pvt': dict(
            type='MixMIMPyramidVisionTransformer',
            pretrain_img_size=32,
            in_channels=1,
            embed_dims=32,
            num_stages=3,
            num_layers=[1, 1, 4],
            num_heads=[1, 2, 4],
            patch_sizes=[2, 2, 2],
            strides=[2, 2, 2],
            paddings=[0, 0, 0],
            sr_ratios=[4, 2, 1],
            mlp_ratios=[4, 4, 4],
            drop_path_rate=0.0,
            out_indices=(2,),
        ),
        'convnext': _SMALL_CONVNEXT,
        'convnext-v2': _SMALL_CONVNEXT | dict(use_grn=True, layer_scale_init_value=0.0),
        'hivit': dict(
            type='MixMIMHiViT',
            arch=dict(embed_dims=128, depths=[1, 1, 4], num_heads=4),
            img_size=32,
            patch_size=8,
            in_chans=1,
        ),
    }.items()
}

# Images of other channels than RGB: what differs from the tiny model on a folder.
RASTERS = {
    f'mixmim_mixmim-tiny_1xb64-coslr-300e_folder-{kind}': {
        'model.backbone.arch': ARCHS['tiny'],
        'model.backbone.in_channels': channels,
        'model.neck.decoder_embed_dims': 256,
        'model.neck.decoder_depth': 4,
        'model.neck.decoder_num_heads': 8,
        'model.data_preprocessor': dict(
            type='RasterDataPreprocessor', statistics='data/statistics.json'
        ),
        'train_dataloader.batch_size': 64,
        'train_dataloader.dataset.type': 'RasterFolder',
        'train_dataloader.dataset.data_root': 'data/images',
        'train_dataloader.dataset.pipeline': [
            dict(
                type='LoadRasterCrop',
                scale=224,
                crop_ratio_range=(0.2, 1.0),
                interpolation='bicubic',
                flip_prob=0.5,
                ignore_empty=True,
                num_channels=channels,
                **options,
            ),
            dict(type='PackInputs', algorithm_keys=('pixel_weight',)),
        ],
        'optim_wrapper.optimizer.lr': 1.5e-4,
        'param_scheduler.0.end': 300,
        'train_cfg.max_epochs': 300,
    }
    for kind, channels, options in (
        ('grey16', 1, {}),
        ('13bands', 13, dict(vertical_flip_prob=0.5, no_data=0, max_crop=448)),
    )
}

# Small configs for a CPU: the entries that decide about their figures.
DEMOS = (
    OTHER_DIGITS
    | RASTERS
    | {
        'mixmim_mixmim-tiny_1xb64-coslr-40e_digits': _DIGITS | _DIGITS_PRETRAINING,
        'mixmim-tiny_1xb64-coslr-20e_digits': _DIGITS_FROM_LABELS
        | _cosine(2, 20)
        | {'train_dataloader.batch_size': 64},
        'mixmim-tiny_1xb20-coslr-40e_digits-10shot': _DIGITS_FROM_LABELS
        | _cosine(4, 40)
        | {
            'train_dataloader.batch_size': 20,
            'train_dataloader.dataset.samples_per_class': 10,
        },
        'mixmim_mixmim-tiny_1xb64-coslr-16e_shapes': _SHAPES
        | _NO_DECAY_OF_VECTORS
        | {
            'model.mask_ratio': 0.5,
            'model.head.norm_pix': True,
            'model.neck.decoder_embed_dims': 128,
            'model.neck.decoder_depth': 2,
            'model.neck.decoder_num_heads': 4,
            'train_dataloader.batch_size': 64,
            'train_dataloader.dataset.type': 'ImageFolder',
            'train_dataloader.dataset.data_root': 'data/shapes/images/unlabelled',
            'train_dataloader.dataset.pipeline.0.scale': 96,
            'train_dataloader.dataset.pipeline.0.crop_ratio_range': (0.4, 1.0),
            'optim_wrapper.optimizer.lr': 1.5e-3,
            'optim_wrapper.optimizer.betas': (0.9, 0.95),
            'param_scheduler.0.warmup': 2,
            'param_scheduler.0.end': 16,
            'train_cfg.max_epochs': 16,
        },
        'mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes': _SHAPES_DENSE
        | {
            'model.neck.in_channels': [32, 64, 128],
            'model.roi_head.bbox_head.num_classes': 5,
            'model.roi_head.mask_head.num_classes': 5,
            'test_dataloader.dataset.pipeline.1.scale': (96, 96),
            'optim_wrapper.optimizer.lr': 1e-3,
            'param_scheduler.0.end': 12,
            'train_cfg.max_epochs': 12,
        },
        'mixmim-tiny_upernet_1xb8-24e_shapes': _SHAPES_DENSE
        | {
            'model.decode_head.in_channels': [32, 64, 128],
            'model.decode_head.num_classes': 6,
            'model.data_preprocessor.size': (96, 96),
            'optim_wrapper.optimizer.lr': 2e-3,
            'param_scheduler.0.end': 24,
            'train_cfg.max_epochs': 24,
        },
    }
)
