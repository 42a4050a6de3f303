"""tools/visualize_reconstruction.py on real files."""

import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from ..scripts import PRETRAIN, call, passed, run

SPLIT = ('--cfg-options', 'train_dataloader.dataset.split=test')


def test_reconstructions_are_drawn(pretrained, tmp_path):
    """Also of fewer images than asked for, by a config that drops the last batch."""
    few = ['train_dataloader.drop_last=True', 'train_dataloader.dataset.indices=2']
    options = ['--num', '3', '--out', 'new/picture.png', *SPLIT, *few]
    result = run(
        'visualize_reconstruction.py', PRETRAIN, pretrained, *options, cwd=tmp_path
    )
    assert passed(result).splitlines()[-1] == 'new/picture.png'
    assert min(Image.open(tmp_path / 'new' / 'picture.png').size) > 200


def test_config_that_imports_its_types(imported_types, pretrained, tmp_path):
    options = [imported_types, pretrained, '--num', '2']
    passed(call('visualize_reconstruction.py', *options, cwd=tmp_path))
    assert (tmp_path / 'reconstruction.png').exists()


def test_number_and_seed_choose_the_images(pretrained, tmp_path, monkeypatch):
    drawn = []

    def draw(model, images, path, bands, details):
        assert not details
        drawn.append((images, torch.rand(1)))
        weights = torch.load(pretrained, weights_only=False)['state_dict']
        for name, value in model.state_dict().items():
            assert torch.equal(value, weights[name]), name

    def build_dataloader(config, seed):
        seeds.append(seed)
        return build(config, seed)

    build, seeds = Runner.build_dataloader, []
    monkeypatch.setattr(Runner, 'build_dataloader', build_dataloader)
    monkeypatch.setattr(
        'mmmixmim.visualization.reconstruction.draw_reconstruction', draw
    )
    for seed in (0, 0, 1):
        options = ['--num', 5, '--seed', seed, *SPLIT]
        result = call(
            'visualize_reconstruction.py', PRETRAIN, pretrained, *options, cwd='.'
        )
        passed(result)
    (first, mask), (again, same_mask), (others, other_mask) = drawn
    assert first.shape == (6, 1, 32, 32)  # three pairs
    assert seeds == [0, 0, 1]  # of the order of the images
    assert torch.equal(first, again) and torch.equal(mask, same_mask)
    assert not torch.equal(first, others) and not torch.equal(mask, other_mask)


@pytest.mark.parametrize(
    'option, num, drawn', [('num_images=3', 8, 9), ('filling=zeros', 5, 5)]
)
def test_whole_mixtures_are_drawn(option, num, drawn, pretrained, monkeypatch):
    counts = []
    monkeypatch.setattr(
        'mmmixmim.visualization.reconstruction.draw_reconstruction',
        lambda model, images, path, **shown: counts.append(len(images)),
    )
    options = [PRETRAIN, pretrained, '--num', num, *SPLIT, f'model.{option}']
    call('visualize_reconstruction.py', *options, cwd='.')
    assert counts == [drawn]


def test_no_images_are_refused(tmp_path):
    options = [PRETRAIN, 'some.pth', '--num', '0']
    result = call('visualize_reconstruction.py', *options, cwd=tmp_path)
    assert result.returncode == 2 and "'0' is not a positive int" in result.stderr
