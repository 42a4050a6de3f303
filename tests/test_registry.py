"""Types resolve to the right classes from every scope, as in a user's process."""

import json
import subprocess
import sys

import pytest

from mmmixmim import registry

# Fork a process for each scope. What is imported before is slow to import and
# registers no type of mmpretrain, mmdet or mmseg.
LOOKUP = """
import json, os, sys
from importlib import import_module
import matplotlib.pyplot, mmcv.ops, mmengine.runner
import sklearn.gaussian_process, torchvision
from mmengine.registry import MODELS

scopes = json.loads(sys.argv[1])
for scope, keys in scopes.items():
    if os.fork():
        continue
    import_module(f'{scope}.registry')
    found = {}
    with MODELS.switch_scope_and_registry(scope) as registry:
        for key in keys:
            cls = registry.get(key)
            found[key] = cls and f'{cls.__module__}.{cls.__qualname__}'
    # One write, since other processes write to the same pipe.
    os.write(1, f'\\nRESULT {json.dumps([scope, found])}\\n'.encode())
    os._exit(0)
for _ in scopes:
    os.wait()
"""

OURS = 'mmmixmim.models.backbones.mixmim_transformer.MixMIMTransformer'
PORT = 'mmpretrain.models.backbones.mixmim.MixMIMTransformer'
MIXMIM = 'mmmixmim.models.selfsup.mixmim.MixMIM'
CLASSIFIER = 'mmpretrain.models.classifiers.image.ImageClassifier'
RESNET = 'mmpretrain.models.backbones.resnet.ResNet'
MASK_RCNN = 'mmdet.models.detectors.mask_rcnn.MaskRCNN'
UPERNET = 'mmseg.models.decode_heads.uper_head.UPerHead'


EXPECTED = {
    'mmmixmim': {
        'MixMIMTransformer': OURS,
        'MixMIM': MIXMIM,
        'ImageClassifier': CLASSIFIER,
        'ResNet': RESNET,
        'mmpretrain.MixMIMTransformer': PORT,
        'mmdet.MaskRCNN': MASK_RCNN,
    },
    'mmpretrain': {
        'mmmixmim.MixMIMTransformer': OURS,
        'mmmixmim.MixMIM': MIXMIM,
        'MixMIMTransformer': PORT,
        'ImageClassifier': CLASSIFIER,
    },
    'mmdet': {
        'mmmixmim.MixMIMTransformer': OURS,
        'MaskRCNN': MASK_RCNN,
        'mmpretrain.MixMIMTransformer': PORT,
    },
    'mmseg': {
        'mmmixmim.MixMIMTransformer': OURS,
        'UPerHead': UPERNET,
        'mmpretrain.MixMIMTransformer': PORT,
    },
}
OTHERS = ['mmmixmim.MixMIMPretrainHead', 'mmmixmim.MixMIMPretrainDecoder']


@pytest.fixture(scope='module')
def found():
    """What each scope finds, in a process that has imported nothing of ours."""
    keys = {
        scope: [*expected, *OTHERS, 'mmmixmim.Unknown']
        for scope, expected in EXPECTED.items()
    }
    command = [sys.executable, '-W', 'ignore', '-c', LOOKUP, json.dumps(keys)]
    result = subprocess.run(command, capture_output=True, text=True)
    lines = [x for x in result.stdout.splitlines() if x.startswith('RESULT')]
    assert len(lines) == len(EXPECTED), result.stderr
    return dict(json.loads(line.removeprefix('RESULT')) for line in lines)


@pytest.mark.parametrize('scope', EXPECTED)
def test_models(found, scope):
    assert {key: found[scope][key] for key in EXPECTED[scope]} == EXPECTED[scope]
    assert all(found[scope][key].startswith('mmmixmim.models.') for key in OTHERS)


@pytest.mark.parametrize('scope', EXPECTED)
def test_unknown_type_is_none(found, scope):
    assert found[scope]['mmmixmim.Unknown'] is None


@pytest.mark.parametrize('name', sorted({*registry.__all__} - {'STRATEGIES'}))
def test_every_registry_is_a_child_of_mmpretrains(name):
    from mmpretrain import registry as parents

    ours, parent = getattr(registry, name), getattr(parents, name)
    assert ours.parent is parent and ours.scope == 'mmmixmim'
    assert ours.root.children['mmmixmim'] is ours
    (location,) = parent._locations
    assert ours._locations == [location, location.replace('mmpretrain', 'mmmixmim')]


def test_every_registry_of_mmpretrain_is_extended():
    from mmengine.registry import Registry
    from mmpretrain import registry as parents

    names = {k for k, v in vars(parents).items() if isinstance(v, Registry)}
    names = {name for name in names if not name.startswith('MMENGINE_')}
    # Tokenizers belong to mmpretrain's multi-modal models.
    assert names - {'TOKENIZER'} == {*registry.__all__} - {'STRATEGIES'}


def test_strategies_extend_those_of_mmengine():
    """mmpretrain has none."""
    from mmengine.registry import STRATEGIES

    assert registry.STRATEGIES.parent is STRATEGIES
    kind = STRATEGIES.get('mmmixmim.FSDPStrategy')
    assert kind.__module__.startswith('mmmixmim.engine')
    assert registry.STRATEGIES.get('DDPStrategy').__module__.startswith('mmengine')


@pytest.mark.parametrize(
    'name, key, module',
    [
        ('HOOKS', 'EMAHook', 'mmpretrain.engine.hooks.ema_hook'),
        ('HOOKS', 'CheckpointHook', 'mmengine.hooks.checkpoint_hook'),
        ('DATASETS', 'Digits', 'mmmixmim.datasets.digits'),
        ('DATASETS', 'ImageNet', 'mmpretrain.datasets.imagenet'),
        ('TRANSFORMS', 'RandAugment', 'mmpretrain.datasets.transforms.auto_augment'),
        ('TRANSFORMS', 'LoadImageFromFile', 'mmcv.transforms.loading'),
        ('OPTIMIZERS', 'AdamW', 'torch.optim.adamw'),
        ('OPTIMIZERS', 'Lamb', 'mmpretrain.engine.optimizers.lamb'),
        ('METRICS', 'Accuracy', 'mmpretrain.evaluation.metrics.single_label'),
        ('BATCH_AUGMENTS', 'Mixup', 'mmpretrain.models.utils.batch_augments.mixup'),
        ('PARAM_SCHEDULERS', 'LinearLR', 'mmengine.optim.scheduler.lr_scheduler'),
        ('VISUALIZERS', 'UniversalVisualizer', 'mmpretrain.visualization.visualizer'),
        ('LOOPS', 'EpochBasedTrainLoop', 'mmengine.runner.loops'),
    ],
)
def test_names_without_prefix_resolve_as_in_mmpretrain(name, key, module):
    assert getattr(registry, name).get(key).__module__ == module
