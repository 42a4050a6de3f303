"""The training loss as one graph, alone and by MMEngine's Runner."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch._dynamo.utils import counters

from mmmixmim.models import MixMIM

MODEL = dict(
    type='MixMIM',
    backbone=dict(
        type='MixMIMTransformer',
        arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=64,
    ),
    neck=dict(
        type='MixMIMPretrainDecoder',
        decoder_embed_dims=32,
        decoder_depth=1,
        decoder_num_heads=2,
    ),
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127], std=[57]),
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def loss_and_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize(
    'given, head',
    [(True, {}), (False, {}), (False, dict(target='hog'))],
    ids=['given-mask', 'drawn-mask', 'hog'],
)
def test_one_graph_for_all_masks(make_mixmim, given, head):
    """No break, no recompilation, the same loss and gradients."""
    model, images = make_mixmim(head=head), torch.rand(2, 3, 96, 96)
    compiled = torch.compile(model.loss, backend='aot_eager', fullgraph=True)
    masks = set()
    for seed in range(4):
        torch.manual_seed(seed)
        ownership = model.ownership(images)
        masks.add(tuple(ownership.mask.flatten().tolist()))
        arguments = dict(mask=ownership) if given else {}
        results = []
        for loss in (model.loss, compiled):
            torch.manual_seed(seed)
            results.append(loss_and_gradients(model, loss(images, **arguments)['loss']))
        torch.testing.assert_close(*results)
    assert len(masks) == 4 and counters['stats']['unique_graphs'] == 1


@pytest.mark.slow
def test_inductor_compiles_once_for_masks_epochs_and_the_last_batch():
    """A smaller last batch compiles once more, not in every epoch.

    There are four windows, where attention takes masks.
    """
    model = MixMIM(
        backbone=dict(
            type='MixMIMTransformer',
            arch=dict(embed_dims=8, depths=[1], num_heads=[1]),
            img_size=32,
            window_size=4,
        ),
        neck=dict(
            type='MixMIMPretrainDecoder',
            decoder_embed_dims=8,
            decoder_depth=1,
            decoder_num_heads=1,
        ),
    )
    # Without vector instructions g++ takes half the time.
    compiled = torch.compile(model.loss, fullgraph=True, options={'cpp.simdlen': 1})
    batches = [torch.rand(size, 3, 32, 32) for size in (4, 4, 3)]
    graphs, masks = [], set()
    for _ in range(2):
        for images in batches:
            ownership = model.ownership(images)
            masks.add(tuple(ownership.mask.flatten().tolist()))
            results = [
                loss_and_gradients(model, loss(images, mask=ownership)['loss'])
                for loss in (model.loss, compiled)
            ]
            torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
            graphs.append(counters['stats']['unique_graphs'])
    assert len(masks) == 6
    assert graphs == [1, 1, 2, 2, 2, 2]


def test_runner_compiles(image_folder, tmp_path):
    """``compile`` in a config: the losses of the same run without it."""
    losses = []
    for compile in (False, dict(backend='aot_eager')):
        config = dict(
            model=MODEL,
            work_dir=str(tmp_path),
            experiment_name=f'compile {bool(compile)}',
            default_scope='mmmixmim',
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(
                    type='ImageFolder',
                    data_root=str(image_folder),
                    pipeline=[
                        dict(type='LoadRandomResizedCrop', scale=64),
                        dict(type='PackInputs'),
                    ],
                ),
            ),
            train_cfg=dict(by_epoch=False, max_iters=3),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
            default_hooks=dict(checkpoint=None),
            randomness=dict(seed=0),
            compile=compile,
        )
        runner = Runner.from_cfg(Config(config))
        runner.train()
        losses.append(runner.message_hub.get_scalar('train/loss').data[0])
    assert counters['stats']['unique_graphs'] >= 1
    assert len(set(losses[0])) == 3
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
