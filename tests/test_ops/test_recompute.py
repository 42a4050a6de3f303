"""What is recomputed changes neither losses nor gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim import ops
from mmmixmim.models import MixMIMTransformer
from mmmixmim.models.layers import TransformerBlock
from mmmixmim.ops.recompute import MODES, recipe_of
from mmmixmim.validation import UserError


def results(model, images, dtype):
    """Loss and gradients of one step."""
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype, enabled=dtype is not torch.float32):
        loss = model.loss(images)['loss']
    loss.backward()
    trained = [each for each in model.parameters() if each.requires_grad]
    return [loss.detach(), *(each.grad for each in trained)]


@pytest.mark.parametrize('gpu', [False, True], ids=['cpu', 'as-on-gpu'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_all_modes_agree_bit_for_bit(make_mixmim, dtype, gpu):
    images, found = torch.rand(3, 3, 96, 64), {}
    for mode in (None, *MODES):
        torch.manual_seed(0)
        parts = dict(recompute=mode)
        model = make_mixmim(backbone=parts | dict(drop_path_rate=0.2), neck=parts)
        if gpu:
            with ops.as_on_gpu():
                found[mode] = results(model, images, dtype)
        else:
            found[mode] = results(model, images, dtype)
    for mode in MODES:
        assert all(map(torch.equal, found[mode], found[None])), mode


@pytest.mark.parametrize('low', [False, True])
def test_norms_and_residual_stream_in_low_precision(make_mixmim, low):
    options = dict(low_precision_norms=low)
    model = make_mixmim(backbone=options, neck=options)
    images = torch.rand(2, 3, 64, 64)
    mask = model.ownership(images)
    expected = model.loss(images, mask=mask)['loss']
    dtypes = {ops.LayerNorm: set(), TransformerBlock: set()}
    for module in model.modules():
        for kind, seen in dtypes.items():
            if isinstance(module, kind):
                module.register_forward_hook(
                    lambda _, inputs, out, seen=seen: seen.update(
                        {inputs[0].dtype, out.dtype}
                    )
                )
    with ops.as_on_gpu(), torch.autocast('cpu', torch.bfloat16):
        loss = model.loss(images, mask=mask)['loss']
    for seen in dtypes.values():
        assert torch.bfloat16 in seen and (torch.float32 not in seen) == low
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)
    # Without autocast nothing changes.
    options = dict(low_precision_norms=not low)
    other = make_mixmim(backbone=options, neck=options)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.loss(images, mask=mask)['loss'], expected)


def test_low_precision_norms_have_float32_statistics():
    norm = ops.LayerNorm(512)
    torch.nn.init.normal_(norm.weight)
    x = (1000 + torch.randn(4, 512)).bfloat16()
    expected = F.layer_norm(x.float(), (512,), norm.weight, norm.bias)
    ops.set_low_precision(norm, True)
    with torch.autocast('cpu', torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('affine', [False, True])
def test_norms_without_parameters_in_low_precision(affine):
    norm = ops.LayerNorm(8, elementwise_affine=affine, bias=False)
    norm.low_precision, x = True, torch.randn(2, 8)
    with torch.autocast('cpu', torch.bfloat16):
        out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.layer_norm(x, (8,)), atol=0.02, rtol=0)


def test_the_default_depends_on_the_device():
    """Norms are recomputed on a CPU, nothing on a GPU."""
    norm, x = ops.LayerNorm(4), torch.rand(2, 4)
    assert recipe_of(norm(x)) is not None
    with ops.as_on_gpu():
        assert recipe_of(norm(x)) is None
    for mode in MODES:
        ops.set_recompute(norm, mode)
        assert (recipe_of(norm(x)) is not None) == (mode == 'norms')


@pytest.mark.parametrize('op', [ops.LayerNorm(4), ops.gelu])
def test_files_of_features_hold_no_code(op, tmp_path):
    features = op(torch.rand(2, 4))
    torch.save(features, tmp_path / 'features.pt')
    loaded = torch.load(tmp_path / 'features.pt', weights_only=True)
    assert torch.equal(loaded, features) and recipe_of(loaded) is None
    assert recipe_of(features) is not None


@pytest.mark.parametrize(
    'options, repeats',
    [
        (dict(recompute='none'), False),
        (dict(recompute='norms'), False),
        (dict(recompute='blocks'), True),
        (dict(with_cp=True), True),
        (dict(recompute='norms', with_cp=False), False),
    ],
)
def test_only_blocks_repeat_gemms(make_mixmim, options, repeats):
    decoder = {'recompute': 'blocks' if repeats else 'none'}
    model = make_mixmim(backbone=options, neck=decoder)
    images = torch.rand(2, 3, 64, 64)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.loss(images)
    with FlopCounterMode(display=False) as step:
        model.loss(images)['loss'].backward()
    ratio = step.get_total_flops() / forward.get_total_flops()
    # Attention weights are always recomputed.
    assert (3.5 < ratio < 4) if repeats else (2.8 < ratio < 3.2)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(recompute='all'), "one of none, norms, blocks.*got 'all'"),
        (dict(recompute='norms', with_cp=True), 'leave with_cp out'),
    ],
)
def test_what_means_nothing_is_refused(tiny_arch, options, message):
    with pytest.raises(UserError, match=message):
        MixMIMTransformer(tiny_arch, **options)
