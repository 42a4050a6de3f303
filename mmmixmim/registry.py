"""Registries of the scope ``mmmixmim``, one for each registry of mmpretrain.

Each is a child of mmpretrain's registry, so that with
``default_scope = 'mmmixmim'`` all types of mmpretrain resolve without a prefix.
Each is also added to the children of MMEngine's root registry. Lookups from mmdet
and mmseg search only these, and would not find ``mmmixmim.MixMIMTransformer``
otherwise.
"""

from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import Registry
from mmpretrain import registry as parents

__all__ = [
    'BATCH_AUGMENTS',
    'DATASETS',
    'DATA_SAMPLERS',
    'EVALUATORS',
    'HOOKS',
    'LOG_PROCESSORS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIMIZERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'RUNNERS',
    'RUNNER_CONSTRUCTORS',
    'STRATEGIES',
    'TASK_UTILS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
]


def _extend(parent: Registry, package: str) -> Registry:
    """Create a child of one of mmpretrain's registries.

    Args:
        parent: mmpretrain's registry.
        package: Subpackage that registers the types, of the same name in mmpretrain
            and here. The first lookup imports both, because lookups do not import
            the locations of parent registries.
    """
    child = Registry(
        parent.name,
        parent=parent,
        scope='mmmixmim',
        locations=[f'mmpretrain.{package}', f'mmmixmim.{package}'],
    )
    child.root.children.setdefault('mmmixmim', child)
    return child


RUNNERS = _extend(parents.RUNNERS, 'engine')
RUNNER_CONSTRUCTORS = _extend(parents.RUNNER_CONSTRUCTORS, 'engine')
STRATEGIES = _extend(ROOT_STRATEGIES, 'engine')  # mmpretrain has none
LOOPS = _extend(parents.LOOPS, 'engine')
HOOKS = _extend(parents.HOOKS, 'engine')
LOG_PROCESSORS = _extend(parents.LOG_PROCESSORS, 'engine')
OPTIMIZERS = _extend(parents.OPTIMIZERS, 'engine')
OPTIM_WRAPPERS = _extend(parents.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _extend(parents.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
PARAM_SCHEDULERS = _extend(parents.PARAM_SCHEDULERS, 'engine')

DATASETS = _extend(parents.DATASETS, 'datasets')
DATA_SAMPLERS = _extend(parents.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _extend(parents.TRANSFORMS, 'datasets')

MODELS = _extend(parents.MODELS, 'models')
MODEL_WRAPPERS = _extend(parents.MODEL_WRAPPERS, 'models')
WEIGHT_INITIALIZERS = _extend(parents.WEIGHT_INITIALIZERS, 'models')
BATCH_AUGMENTS = _extend(parents.BATCH_AUGMENTS, 'models')
TASK_UTILS = _extend(parents.TASK_UTILS, 'models')

METRICS = _extend(parents.METRICS, 'evaluation')
EVALUATORS = _extend(parents.EVALUATORS, 'evaluation')

VISUALIZERS = _extend(parents.VISUALIZERS, 'visualization')
VISBACKENDS = _extend(parents.VISBACKENDS, 'visualization')
