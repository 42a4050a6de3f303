"""Pictures that a real run hands to its visualizer backends."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmmixmim.runtime import build_runner
from mmmixmim.validation import MissingDependencyError

from ...watched_run import config, log, train

HOOK = [dict(type='ReconstructionHook', num_groups=3)]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run with local files and TensorBoard."""
    folder = tmp_path_factory.mktemp('pictures')
    cfg = config(folder, custom_hooks=HOOK)
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    cfg.visualizer.vis_backends = cfg.vis_backends = backends
    cfg.experiment_name = 'pictures'
    train(cfg)
    return folder


def test_local_files_have_one_picture_for_each_validation(run):
    paths = sorted(run.glob('*/vis_data/vis_image/*.png'))
    assert [path.name for path in paths] == [
        'reconstruction_2.png',
        'reconstruction_4.png',
    ]
    first, last = (cv2.imread(str(path)) for path in paths)
    assert first.shape == last.shape
    rows = [np.array_split(picture, 6) for picture in (first, last)]
    names = ('original', 'visible', 'mixed', 'reconstructed', 'pasted', 'error')
    same = {name: np.array_equal(a, b) for name, a, b in zip(names, *rows, strict=True)}
    # Images and masks stay, what is predicted changes.
    assert same == dict.fromkeys(names[:3], True) | dict.fromkeys(names[3:], False)


def test_tensorboard_has_the_same_pictures_and_all_scalars(run):
    (folder,) = run.glob('*/vis_data')
    events = EventAccumulator(str(folder), size_guidance=dict(images=0, scalars=0))
    events.Reload()
    pictures = events.Images('reconstruction')
    assert [each.step for each in pictures] == [2, 4]
    for each in pictures:
        local = cv2.imread(
            str(folder / 'vis_image' / f'reconstruction_{each.step}.png')
        )
        data = np.frombuffer(each.encoded_image_string, np.uint8)
        assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), local)
    scalars = events.Tags()['scalars']
    wanted = {'loss', 'reconstruction/loss', 'features/rank_stage1'}
    assert wanted <= set(scalars)
    assert len(events.Scalars('loss')) == 4
    assert len(events.Scalars('reconstruction/loss')) == 2


def test_a_target_that_is_no_image_gives_one_line(tmp_path):
    cfg = config(tmp_path, custom_hooks=HOOK)
    cfg.model.head.target = 'hog'
    cfg.model.backbone.in_channels = 3
    cfg.model.data_preprocessor = dict(mean=[77.8] * 3, std=[95.9] * 3)
    pipeline = [dict(type='PackInputs')]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset = dict(type='ScatteredDigits', pipeline=pipeline)
    train(cfg)
    assert log(tmp_path).count('No pictures are drawn') == 1
    assert not list(tmp_path.glob('*/vis_data/vis_image/*'))


@pytest.mark.parametrize(
    'backend, package', [('WandbVisBackend', 'wandb'), ('AimVisBackend', 'aim')]
)
def test_a_backend_that_is_not_installed_stops_before_the_start(
    tmp_path, backend, package
):
    try:
        __import__(package)
    except ImportError:
        pass
    else:
        pytest.skip(f'{package} is installed')
    cfg = config(tmp_path / 'run')
    cfg.visualizer.vis_backends = [dict(type=backend)]
    cfg.launcher = 'none'
    message = f'{backend} needs {package}.*pip install {package}'
    with pytest.raises(MissingDependencyError, match=message):
        build_runner(Config(cfg.to_dict()))
    assert not (tmp_path / 'run').exists()


def test_mlflow_keeps_the_picture_of_every_step(tmp_path, monkeypatch):
    pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    store = tmp_path / 'store'
    backend = dict(type='MLflowVisBackend', tracking_uri=store.as_uri(), exp_name='a')
    cfg = config(tmp_path / 'run', custom_hooks=HOOK)
    cfg.visualizer.vis_backends = [backend]
    train(cfg)
    names = {path.name for path in store.rglob('*.png')}
    assert names == {'reconstruction_2.png', 'reconstruction_4.png'}


def test_wandb_gets_the_pictures_offline(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    cfg = config(tmp_path, custom_hooks=HOOK)
    cfg.visualizer.vis_backends = [dict(type='WandbVisBackend')]
    train(cfg)
    assert len(list(tmp_path.rglob('media/images/reconstruction_*.png'))) == 2
