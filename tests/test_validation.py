"""Errors that users can correct, and old names of arguments."""

import pickle

import pytest
import torch

from mmmixmim.models import MixMIM, MixMIMPretrainDecoder, MixMIMPretrainHead
from mmmixmim.validation import (
    MissingDependencyError,
    MissingFileError,
    UnreadableFileError,
    UserError,
    check_int_between,
    check_positive,
    check_positive_int,
    renamed_arguments,
)


@pytest.mark.parametrize(
    'kind, builtin',
    [
        (UserError, ValueError),
        (MissingFileError, FileNotFoundError),
        (UnreadableFileError, OSError),
        (MissingDependencyError, ImportError),
    ],
)
def test_errors_are_user_errors_and_builtin_ones(kind, builtin):
    """And keep their message through a worker process."""
    error = kind('what is wrong')
    assert isinstance(error, UserError) and isinstance(error, builtin)
    assert str(error) == 'what is wrong'
    assert str(pickle.loads(pickle.dumps(error))) == 'what is wrong'


@pytest.mark.parametrize('value', [0, -1, 1.0, True, '1', None])
def test_positive_ints(value):
    check_positive_int('size', 1)
    with pytest.raises(UserError, match=f'size must be a positive int, got {value!r}'):
        check_positive_int('size', value)


@pytest.mark.parametrize('value', [0, -0.1, '1', None, float('nan')])
def test_positive_numbers(value):
    check_positive('ratio', 0.1)
    with pytest.raises(UserError, match='ratio must be a positive number'):
        check_positive('ratio', value)


@pytest.mark.parametrize('value', [-2, 5, 1.0, None, False])
def test_ints_between(value):
    for good in (-1, 4):
        check_int_between('stage', good, -1, 4)
    with pytest.raises(UserError, match='an int between -1 and 4'):
        check_int_between('stage', value, -1, 4)


@renamed_arguments(old='new')
def function(first, new=0, *, other=None):
    return first, new, other


def test_old_names_of_arguments():
    assert function(1, old=2, other=3) == function(1, 2, other=3) == (1, 2, 3)
    assert function(old=2, first=1) == (1, 2, None)
    for arguments in (
        dict(args=(1,), kwargs=dict(new=2)),
        dict(args=(1, 2), kwargs={}),
    ):
        with pytest.raises(UserError, match='old is the old name of new, and both'):
            function(*arguments['args'], old=3, **arguments['kwargs'])


def test_names_of_mmpretrains_configs_build_the_same_models():
    torch.manual_seed(0)
    new = MixMIMPretrainDecoder(
        encoder_channels=16, in_channels=2, stride=8, img_size=32, decoder_embed_dims=32
    )
    torch.manual_seed(0)
    old = MixMIMPretrainDecoder(
        embed_dim=16,
        in_chans=2,
        encoder_stride=8,
        img_size=32,
        decoder_embed_dim=32,
        num_patches=16,
    )
    assert all(map(torch.equal, new.parameters(), old.parameters()))
    head = MixMIMPretrainHead(patch_size=8, in_chans=2)
    assert (head.stride, head.in_channels) == (8, 2)


def test_old_names_inside_a_config(tiny_arch):
    backbone = dict(type='MixMIMTransformer', arch=tiny_arch)
    neck = dict(
        embed_dim=128, encoder_stride=32, decoder_embed_dim=32, decoder_num_heads=4
    )
    head = dict(patch_size=32)
    model = MixMIM(backbone, neck, head)
    assert model.neck.decoder_embed.out_features == 32
    with pytest.raises(UserError, match='stride=16, but the backbone has 32'):
        MixMIM(backbone, neck | dict(encoder_stride=16))
    with pytest.raises(UserError, match='num_patches is 196, but .* has 49 cells'):
        MixMIM(backbone, neck | dict(num_patches=196))
    with pytest.raises(UserError, match='decoder_embed_dim is the old name'):
        MixMIM(backbone, neck | dict(decoder_embed_dims=32))
