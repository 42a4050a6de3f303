import math

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmmixmim.engine import WarmupCosineLR
from mmmixmim.registry import PARAM_SCHEDULERS
from mmmixmim.validation import UserError


def optimizer(*rates):
    groups = [
        dict(params=[torch.zeros(1, requires_grad=True)], lr=lr, lr_scale=lr / rates[0])
        for lr in rates
    ]
    return OptimWrapper(torch.optim.SGD(groups, lr=1))


def authors_rate(epoch, lr, min_lr, warmup, epochs):
    if epoch < warmup:
        return lr * epoch / warmup
    phase = math.pi * (epoch - warmup) / (epochs - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(phase))


@pytest.mark.parametrize('lr, min_lr', [(1.2e-3, 0.0), (2e-3, 1e-6)])
def test_every_fraction_of_every_epoch(lr, min_lr):
    """Built and stepped as by a runner, with 7 iterations per epoch."""
    wrapper = optimizer(lr, lr * 0.7**20)
    schedule = PARAM_SCHEDULERS.build(
        dict(
            type='WarmupCosineLR',
            warmup=4,
            end=30,
            min_lr=min_lr,
            convert_to_iter_based=True,
        ),
        default_args=dict(optimizer=wrapper, epoch_length=7),
    )
    assert not schedule.by_epoch
    for iteration in range(30 * 7):
        expected = authors_rate(iteration / 7, lr, min_lr, 4, 30)
        for group, scale in zip(
            wrapper.optimizer.param_groups, (1, 0.7**20), strict=True
        ):
            assert group['lr'] == pytest.approx(expected * scale, rel=1e-9, abs=0)
        wrapper.step()
        schedule.step()
    assert wrapper.param_groups[0]['lr'] == pytest.approx(min_lr, abs=1e-15)


def test_accumulated_batches_share_the_rate_of_the_first(recwarn):
    """As in the authors' code, so that updates have the rates of a large batch."""
    wrapper = optimizer(1.0)
    wrapper._accumulative_counts = 3
    schedule = WarmupCosineLR(wrapper, warmup=6, end=30, by_epoch=False)
    rates = []
    for i in range(30):
        rates.append(wrapper.param_groups[0]['lr'])
        if i % 3 == 2:
            wrapper.step()
        schedule.step()
    expected = [authors_rate(3 * (i // 3), 1.0, 0.0, 6, 30) for i in range(30)]
    assert rates == pytest.approx(expected)
    assert not recwarn.list


def test_continues_where_it_was_saved():
    def build():
        return WarmupCosineLR(optimizer(1.0), warmup=3, end=10)

    first, second = build(), build()
    for _ in range(5):
        first.optimizer.step()
        first.step()
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.optimizer.step()
        schedule.step()
    assert first.get_last_value() == second.get_last_value()


def test_resuming_keeps_the_times_of_the_config():
    saved = WarmupCosineLR(optimizer(1.0), warmup=3, end=10).state_dict()
    schedule = WarmupCosineLR(optimizer(1.0), warmup=1, end=20, min_lr=0.1)
    schedule.load_state_dict(saved)
    assert (schedule.warmup, schedule.end, schedule.min_lr) == (1, 21, 0.1)
    # A position in another unit comes with its own times.
    schedule = WarmupCosineLR(optimizer(1.0), warmup=7, end=140, by_epoch=False)
    schedule.load_state_dict(saved)
    assert (schedule.by_epoch, schedule.warmup, schedule.end) == (True, 3, 11)


def test_rates_by_epoch_and_by_iteration():
    for by_epoch in (True, False):
        wrapper = optimizer(1.0)
        schedule = WarmupCosineLR(wrapper, warmup=2, end=4, by_epoch=by_epoch)
        assert schedule.by_epoch is by_epoch
        rates = []
        for _ in range(7):
            rates.append(wrapper.param_groups[0]['lr'])
            wrapper.step()
            schedule.step()
        # The minimum is 0 by default, and the rate stays there.
        assert rates == pytest.approx([0, 0.5, 1, 0.5, 0, 0, 0])


def test_resumes_from_a_step():
    wrapper = optimizer(1.0)
    for group in wrapper.param_groups:
        group['initial_lr'] = 1.0
    schedule = WarmupCosineLR(wrapper, warmup=4, end=10, last_step=1)
    assert schedule.get_last_value() == [0.5]


def test_groups_without_a_scale_have_the_whole_minimum():
    parameter = torch.zeros(1, requires_grad=True)
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=1))
    schedule = WarmupCosineLR(wrapper, warmup=0, end=1, min_lr=0.25)
    wrapper.step()
    schedule.step()
    assert schedule.get_last_value() == [0.25]


def test_only_times_in_epochs_are_converted():
    def convert(**kwargs):
        WarmupCosineLR.build_iter_from_epoch(optimizer(1.0), epoch_length=7, **kwargs)

    with pytest.raises(UserError, match='needs by_epoch=True, got by_epoch=False'):
        convert(warmup=1, end=9, by_epoch=False)
    # In the unit of the config, not in iterations.
    with pytest.raises(UserError, match='warmup=9 and end=9'):
        convert(warmup=9, end=9)


def test_no_warmup_starts_at_the_full_rate():
    wrapper = optimizer(0.5)
    WarmupCosineLR(wrapper, warmup=0, end=10)
    assert wrapper.param_groups[0]['lr'] == 0.5


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(warmup=10, end=10), 'warmup=10 and end=10'),
        (dict(warmup=-1, end=10), 'warmup=-1'),
        (dict(warmup=1, end=10, min_lr=-1), 'min_lr must be.*got -1'),
    ],
)
def test_refuses_bad_times(arguments, message):
    with pytest.raises(UserError, match=message):
        WarmupCosineLR(optimizer(1.0), **arguments)
