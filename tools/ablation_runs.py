"""One run of the ablations: what it may compare, its configs, training and scores."""

import statistics
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmmixmim.evaluation import extract_features, linear_probe
from mmmixmim.evaluation.linear_probe import labelled_loaders
from mmmixmim.registry import MODELS
from mmmixmim.runtime import build_runner, load_config, prepare_run

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
# Batches hold 2, 3 and 4 times as many images as there are mixtures.
BATCH_SIZE = 48
FINETUNE_EPOCHS = 40
FINETUNE_LABELS = 50
LABELS = (10, 50, None)  # of each class, for the probe; None means all

# ---- what is compared ----------------------------------------------------------------

# Title, and how the MixMIM of the config changes. None: no pretraining.
ARMS = {
    'mixmim': ('MixMIM', {}),
    'mask_token': ('mask token', dict(filling='mask_token')),
    'simmim': (
        'SimMIM: mask token, linear decoder',
        dict(
            filling='mask_token',
            neck=dict(type='SimMIMLinearDecoder', encoder_stride=8, in_channels=128),
            head=dict(
                type='SimMIMHead',
                patch_size=2,
                loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
            ),
        ),
    ),
    'unblocked': ('attention between images', dict(isolate=False)),
    'single': ('one image reconstructed', dict(reconstruct='own')),
    'k3': ('three images', dict(num_images=3)),
    'k4': ('four images', dict(num_images=4)),
    'none': ('no pretraining', None),
}
# Tasks, and the arms that each compares.
TASKS = dict(digits=tuple(ARMS), shapes=('mixmim', 'mask_token', 'none'))

ENCODERS = {
    'mixmim': ('MixMIMTransformer', dict(type='mmmixmim.MixMIMTransformer')),
    'swin': ('Swin', dict(type='mmmixmim.MixMIMSwinTransformer', pad_small_map=True)),
}
# Windows grow relative to the maps as in the published sizes; Swin's are shifted.
DIGITS_ENCODER = dict(
    arch=dict(embed_dims=32, depths=[1, 2, 1], num_heads=[2, 4, 8]),
    img_size=32,
    patch_size=2,
)
DIGITS_WINDOWS = dict(mixmim=[8, 8, 4], swin=4)
SHAPES_WINDOWS = dict(mixmim=[6, 6, 6], swin=6)

BUDGETS = dict(steps='equal steps', compute='equal compute')


@dataclass(frozen=True)
class Run:
    """One encoder, trained one way.

    Attributes:
        task: A key of ``TASKS``.
        encoder: A key of ``ENCODERS``.
        arm: A key of ``ARMS``.
        budget: A key of ``BUDGETS``.
        seed: Random seed.
        epochs: Length of pretraining.
    """

    task: str
    encoder: str
    arm: str
    budget: str
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Name of its files."""
        parts = (self.task, self.encoder, self.arm, self.budget, f'seed{self.seed}')
        return '-'.join(parts)


# ---- configs -------------------------------------------------------------------------


def read_config(folder: str, pattern: str) -> Config:
    """Read the one config in a folder that matches."""
    (path,) = (CONFIGS / folder).glob(pattern)
    return Config.fromfile(path)


def set_length(cfg: Config, epochs: int) -> None:
    """Train for ``epochs``, a tenth of them as warm-up, and evaluate at the end."""
    cfg.train_cfg.max_epochs = epochs
    if 'val_interval' in cfg.train_cfg:
        cfg.train_cfg.val_interval = epochs
    cfg.param_scheduler = [
        dict(
            type='mmmixmim.WarmupCosineLR',
            warmup=epochs / 10,
            end=epochs,
            convert_to_iter_based=True,
        )
    ]
    cfg.default_hooks.checkpoint.interval = epochs


def leave_unwatched(cfg: Config) -> None:
    """Measure nothing during the training."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = []


def apply_arm(cfg: Config, arm: str) -> None:
    """Change a pretraining config to another method."""
    for name, value in ARMS[arm][1].items():
        cfg.model[name] = value


def digits_config(run: Run, pretrain: bool, quick: bool = False) -> Config:
    """The config of pretraining, or else of fine-tuning, on the digits."""
    kind = 'mixmim_mixmim-*' if pretrain else 'mixmim-tiny_1xb64-*'
    cfg = read_config('digits', f'{kind}.py')
    backbone = ENCODERS[run.encoder][1] | DIGITS_ENCODER
    if run.encoder == 'swin':
        backbone |= dict(out_indices=(2,))
    cfg.model.backbone = dict(
        backbone, window_size=DIGITS_WINDOWS[run.encoder], drop_path_rate=0.0
    )
    cfg.model.data_preprocessor |= dict(mean=[70.0] * 3, std=[60.0] * 3)
    if pretrain:
        leave_unwatched(cfg)
    pipeline = [dict(type='PackInputs')]
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        loader |= dict(num_workers=0, persistent_workers=False)
        loader.dataset |= dict(type='ScatteredDigits', pipeline=pipeline)
        if split != 'train':
            loader.dataset.draws = 1 if quick else 3
    cfg.train_dataloader |= dict(batch_size=BATCH_SIZE, drop_last=True)
    if pretrain:
        cfg.model.neck.decoder_depth = 1
        apply_arm(cfg, run.arm)
        set_length(cfg, run.epochs)
    else:
        cfg.train_dataloader.batch_size = 50
        cfg.train_dataloader.dataset |= dict(
            samples_per_class=FINETUNE_LABELS, seed=run.seed
        )
        set_length(cfg, 1 if quick else FINETUNE_EPOCHS)
    if quick:
        cfg.train_dataloader.num_batch_per_epoch = 1
    cfg.randomness = dict(seed=run.seed)
    return cfg


def shapes_config(run: Run, kind: str, data: Path, quick: bool = False) -> Config:
    """The config of 'pretrain', 'detect' or 'segment' on the drawn shapes."""
    patterns = dict(
        pretrain='mixmim_mixmim-*.py', detect='mask-rcnn_*.py', segment='*_upernet_*.py'
    )
    cfg = read_config('shapes', patterns[kind])
    if kind == 'pretrain':
        leave_unwatched(cfg)
    backbone = {k: v for k, v in cfg.model.backbone.items() if k != 'type'}
    backbone |= ENCODERS[run.encoder][1]
    if run.encoder == 'swin':
        backbone |= dict(out_indices=(2,) if kind == 'pretrain' else (0, 1, 2))
    cfg.model.backbone = backbone | dict(window_size=SHAPES_WINDOWS[run.encoder])
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            loader |= dict(num_workers=0, persistent_workers=False)
            loader.dataset.data_root = str(data)
    if kind == 'pretrain':
        cfg.train_dataloader.dataset.data_root = str(data / 'images' / 'unlabelled')
        # The batch is a multiple of the images in a mixture.
        cfg.train_dataloader |= dict(batch_size=BATCH_SIZE, drop_last=True)
        apply_arm(cfg, run.arm)
        set_length(cfg, run.epochs)
    elif quick:
        set_length(cfg, 1)
    if kind == 'detect':
        truth = str(data / 'annotations' / 'instances_val.json')
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = truth
    cfg.randomness = dict(seed=run.seed)
    return cfg


# ---- one run -------------------------------------------------------------------------


def train(cfg: Config, path: Path) -> Runner:
    """Save a config, from which tools/train.py repeats this, and train it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(path)
    loaded = load_config(path)
    prepare_run(loaded, path, work_dir=str(path.with_suffix('')))
    loaded.experiment_name = f'{path.parent.name}-{path.stem}'
    if path.stem != 'pretrain':  # the progress line follows pretraining
        loaded.log_level = 'WARNING'
    runner = build_runner(loaded)
    runner.train()
    return runner


def scalar(runner: Runner, name: str) -> float:
    """The last value of a logged figure."""
    return float(runner.message_hub.get_scalar(name).current())


def execute(run: Run, work_dir: Path, quick: bool) -> dict[str, float]:
    """Train and score one run.

    Args:
        run: What to train.
        work_dir: Files are written to ``files/NAME``; the drawn shapes are read from
            ``shapes``.
        quick: Train for one epoch on a few images.

    Returns:
        The scores in percent, and ``loss`` if there is pretraining.
    """
    folder = work_dir / 'files' / run.name
    if run.task == 'digits':
        return run_digits(run, folder, quick)
    return run_shapes(run, folder, work_dir / 'shapes', quick)


def run_digits(run: Run, folder: Path, quick: bool) -> dict[str, float]:
    """Pretrain, probe and fine-tune."""
    scores = {}
    cfg = digits_config(run, pretrain=False, quick=quick)
    if run.epochs:
        runner = train(digits_config(run, True, quick), folder / 'pretrain.py')
        scores['loss'] = scalar(runner, 'train/loss')
        start_from(cfg, folder, run.epochs)
    scores |= probe(cfg, run.seed, quick)
    runner = train(cfg, folder / 'finetune.py')
    scores['finetune'] = scalar(runner, 'val/accuracy/top1')
    return scores


def run_shapes(run: Run, folder: Path, data: Path, quick: bool) -> dict[str, float]:
    """Pretrain, train Mask R-CNN and train UperNet."""
    scores = {}
    if run.epochs:
        runner = train(shapes_config(run, 'pretrain', data), folder / 'pretrain.py')
        scores['loss'] = scalar(runner, 'train/loss')
    for kind, name, score, percent in (
        ('detect', 'val/coco/segm_mAP', 'segm_AP', 100),
        ('segment', 'val/mIoU', 'mIoU', 1),
    ):
        cfg = shapes_config(run, kind, data, quick)
        if run.epochs:
            start_from(cfg, folder, run.epochs)
        runner = train(cfg, folder / f'{kind}.py')
        # Without any detection mmdet reports no AP.
        found = name in runner.message_hub.log_scalars
        scores[score] = percent * scalar(runner, name) if found else 0.0
    return scores


def start_from(cfg: Config, folder: Path, epochs: int) -> None:
    """Start a config from the encoder that was pretrained in ``folder``."""
    checkpoint = folder / 'pretrain' / f'epoch_{epochs}.pth'
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.'
    )


def probe(cfg: Config, seed: int, quick: bool) -> dict[str, float]:
    """Accuracies of the linear probe in percent, with few and all labels."""
    init_default_scope(cfg.default_scope)
    set_random_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    cfg = Config(cfg.to_dict())
    cfg.train_dataloader.dataset.pop('samples_per_class')
    train, test = (extract_features(model, loader) for loader in labelled_loaders(cfg))
    scores = {}
    for count in LABELS:
        draws = range(3 if count and not quick else 1)
        found = [linear_probe(train, test, count, draw) for draw in draws]
        scores[f'probe-{count or "all"}'] = statistics.mean(found)
    return scores
