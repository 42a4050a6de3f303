"""Registries of the scope ``mmmixmim``, one for every kind mmpretrain has.

Each one is a child of mmpretrain's registry, so that under
``default_scope = 'mmmixmim'`` every mmpretrain type resolves without a prefix.
Each one also hangs below mmengine's root: lookups that start in mmdet or mmseg
see the root's direct children only, and would otherwise not find
``mmmixmim.MixMIMTransformer``.
"""

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
    'TASK_UTILS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
]


def _extend(parent: Registry, package: str) -> Registry:
    """Create our child of one of mmpretrain's registries.

    Args:
        parent: mmpretrain's registry.
        package: The subpackage, of the same name in mmpretrain and here, whose
            import registers the types. Both are imported at the first lookup,
            since a lookup never imports what its parents would.
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
