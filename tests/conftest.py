"""Fixtures that all tests share."""

import http.server
import json
import os
import threading
from pathlib import Path

# Parallel test processes and their subprocesses use one thread each. OpenMP reads this
# when torch is imported.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch
import yapf  # noqa: F401 (writes its cache before there are two processes)
from mmengine.registry import DefaultScope

from mmmixmim.models import MixMIM, MixMIMTransformer

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / 'tests' / 'reference'
ALL_CONFIGS = sorted(
    path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts
)
# Those of mmdet and mmseg.
DENSE_CONFIGS = [
    path for path in ALL_CONFIGS if 'rcnn' in path.stem or 'upernet' in path.stem
]
# Those that need statistics of the images first.
RASTER_CONFIGS = [
    path for path in ALL_CONFIGS if path.stem.endswith(('-grey16', '-13bands'))
]

# The first backward pass starts a thread for each device, of which fake tensors pretend
# to have many, and then PyTorch refuses backward passes in forked processes.
torch.ones(1, requires_grad=True).sum().backward()

TINY_ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _default_scope():
    """Keep the default scope that one test sets from the next."""
    scopes = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture(scope='session')
def reference():
    """Figures of ``reference.json``."""
    return json.loads((REFERENCE / 'reference.json').read_text())


@pytest.fixture
def tiny_arch():
    """Four stages, 16 to 128 channels."""
    return dict(TINY_ARCH)


@pytest.fixture
def make_backbone():
    """Builder of tiny encoders."""

    def make(**kwargs):
        kwargs = dict(arch=TINY_ARCH, img_size=64, window_size=[8, 8, 4, 2]) | kwargs
        return MixMIMTransformer(**kwargs)

    return make


@pytest.fixture
def make_mixmim():
    """Builder of tiny pretraining models."""

    def make(backbone=None, neck=None, head=None, **kwargs):
        backbone = dict(
            type='MixMIMTransformer',
            arch=TINY_ARCH,
            img_size=64,
            window_size=[8, 8, 4, 2],
        ) | (backbone or {})
        neck = dict(
            type='MixMIMPretrainDecoder',
            decoder_embed_dims=32,
            decoder_depth=2,
            decoder_num_heads=4,
        ) | (neck or {})
        head = dict(type='MixMIMPretrainHead') | (head or {})
        return MixMIM(backbone=backbone, neck=neck, head=head, **kwargs)

    return make


@pytest.fixture
def image_folder(tmp_path):
    """Real image files in a nested folder: JPEG and PNG, colour and grey."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = tmp_path / 'images'
    for name, mode in {
        'a.jpg': 'RGB',
        'b.png': 'L',
        'deep/er/c.JPEG': 'RGB',
        'deep/d.png': 'RGBA',
        'deep/e.webp': 'RGB',
    }.items():
        shape = (70, 90) if mode == 'L' else (70, 90, len(mode))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    (folder / 'notes.txt').write_text('not an image')
    return folder


@pytest.fixture
def server():
    """Starter of a web server of a folder; it returns the address."""
    servers = []

    def start(folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def log_message(self, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{servers[-1].server_port}/'

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()
