import json
from pathlib import Path

import numpy as np
import pytest

from mmmixmim.evaluation import diagnose

STEPS = np.arange(10, 2010, 10)


def curve(start, end, noise=0.01, seed=0):
    """A loss that falls exponentially, with noise."""
    rng = np.random.default_rng(seed)
    values = end + (start - end) * np.exp(-np.arange(200) / 40)
    return list(
        zip(STEPS.tolist(), values * (1 + noise * rng.normal(size=200)), strict=True)
    )


def flat(level, noise=0.01):
    return curve(level, level, noise)


def every(points, n=20):
    return points[n - 1 :: n]


def titles(history, **kwargs):
    return [finding.title for finding in diagnose(history, **kwargs)]


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('noise', (0.0, 0.01, 0.05))
def test_a_falling_loss_is_healthy_whatever_the_noise(seed, noise):
    history = {'loss': curve(1.1, 0.5, noise, seed)}
    history['reconstruction/loss'] = every(curve(1.05, 0.6, noise / 10, seed + 9))
    (finding,) = diagnose(history)
    assert (finding.severity, finding.title) == ('info', 'Healthy')


def test_without_held_out_images_a_falling_loss_is_said_to_prove_little():
    (finding,) = diagnose({'loss': curve(1.1, 0.5)})
    assert 'No images are held out' in finding.advice


def test_a_plateau_early_in_the_schedule_is_no_error():
    steps = [step for step, _ in flat(0.99)]
    cosine = 0.5 + 0.5 * np.cos(np.pi * np.arange(len(steps)) / len(steps))
    history = {'loss': flat(0.99), 'lr': list(zip(steps, cosine, strict=True))}
    for share, title in ((5, 'Not learned yet'), (2, 'Nothing learned')):
        begin = {name: each[: len(steps) // share] for name, each in history.items()}
        (finding,) = diagnose(begin)
        assert finding.title == title
    constant = {'loss': flat(0.99), 'lr': [(step, 1.0) for step in steps]}
    assert titles(constant) == ['Nothing learned']
    # Where the mean of a cell says more about images, a plateau lies lower.
    assert titles({'loss': curve(1.1, 0.98)}, mean_loss=1.2) == ['Healthy']


def test_no_loss_yet_is_said():
    assert titles({}) == ['No training yet']


def test_a_run_with_labels_holds_out_nothing_and_its_loss_may_vanish():
    for loss in (
        curve(1.1, 0.5),
        [(10 * i, max(1e-6, 1 / i**3)) for i in range(1, 50)],
    ):
        (finding,) = diagnose({'loss': loss}, None, pretraining=False)
        assert finding.title == 'Healthy'
        assert finding.advice == 'Judge the run by its scores on validation images.'


def test_one_noisy_point_of_a_flat_loss_changes_no_verdict():
    for value in (0.8, 4.0):
        for at in (0, 30, 199):
            loss = flat(1.0)
            loss[at] = (loss[at][0], value)
            assert titles({'loss': loss}) == ['Nothing learned']


def test_a_single_spike_and_a_single_skipped_step_change_no_verdict():
    loss = curve(1.1, 0.5)
    loss[100] = (loss[100][0], 30.0)
    loss[120] = (loss[120][0], float('nan'))
    assert titles({'loss': loss}) == ['Healthy']


def test_a_single_skipped_step_is_none_in_means_that_overlap():
    """With epochs of two iterations, means of ten are logged every two."""
    loss = [(step, value) for step, (_, value) in enumerate(curve(1.1, 0.5), start=1)]
    loss[150:160] = [(step, float('nan')) for step, _ in loss[150:160]]
    for end in range(151, 161):
        assert titles({'loss': loss[:end:2]}) == ['Healthy']
    loss[160:] = [(step, float('nan')) for step, _ in loss[160:]]
    assert titles({'loss': loss[::2]}) == ['Loss is not finite']


def test_nan_is_an_error_that_names_the_first_iteration():
    loss = curve(1.1, 0.5)
    loss[150:] = [(step, float('nan')) for step, _ in loss[150:]]
    finding = diagnose({'loss': loss})[0]
    assert (finding.severity, finding.title) == ('error', 'Loss is not finite')
    assert 'iteration 1510' in finding.message


def test_a_loss_that_rises_and_stays_up_has_diverged():
    loss = curve(1.1, 0.5)
    loss[120:] = [(step, 2.0) for step, _ in loss[120:]]
    assert titles({'loss': loss}) == ['Loss diverged']


@pytest.mark.parametrize('noise', (0.2, 0.4))
@pytest.mark.parametrize('points', (20, 40))
def test_a_noisy_loss_that_stays_has_not_diverged(noise, points):
    found = []
    for seed in range(40):
        values = 0.5 * np.exp(noise * np.random.default_rng(seed).normal(size=points))
        loss = list(zip(STEPS.tolist(), values, strict=False))
        found += titles({'loss': loss}, mean_loss=None)
    assert found.count('Loss diverged') <= 2


@pytest.mark.parametrize('points', (20, 50))
def test_a_loss_that_diverges_wildly_has_diverged(points):
    rng = np.random.default_rng(0)
    part = np.arange(points) / points
    values = (0.5 + 0.6 * np.exp(-8 * part)) * (1 + 0.02 * rng.normal(size=points))
    wild = part >= 0.4
    values[wild] = 3 * np.exp(rng.normal(size=wild.sum()))
    loss = list(zip(STEPS.tolist(), values, strict=False))
    assert titles({'loss': loss}) == ['Loss diverged']


@pytest.mark.parametrize('at', (70, 120, 170))
@pytest.mark.parametrize('best', (0.9, 0.82))
def test_a_loss_that_returns_to_the_mean_has_diverged(best, at):
    noise = 1 + 0.005 * np.random.default_rng(0).normal(size=200)
    falling = 1 - (1 - best) * np.minimum(1, np.arange(200) / (0.9 * at))
    values = np.where(np.arange(200) < at, falling, 1.0) * noise
    loss = list(zip(STEPS.tolist(), values, strict=True))
    assert titles({'loss': loss}) == ['Loss diverged']
    # Not yet where the learning rate still rises: it may recover.
    rising = [(step, step * 1e-6) for step, _ in loss]
    assert titles({'loss': loss, 'lr': rising}) == ['Too early to say']
    values[at:] = (0.3 + 0.7 * best) * noise[at:]  # a part of what was learned
    loss = list(zip(STEPS.tolist(), values, strict=True))
    assert 'Loss diverged' not in titles({'loss': loss})


def test_a_negative_loss_is_judged_by_its_changes():
    """That of CosineSimilarityLoss goes to -1."""
    for start, end, title in (
        (-0.1, -0.95, 'Healthy'),
        (-0.95, -0.95, 'Nothing wrong seen'),
    ):
        assert titles({'loss': curve(start, end)}, mean_loss=None) == [title]
    loss = curve(-0.1, -0.9)
    loss[120:] = flat(-0.1)[120:]
    assert titles({'loss': loss}, mean_loss=None) == ['Loss diverged']
    held_out = [(step, -value) for step, value in every(flat(0.9, 0.005))]
    history = {'loss': curve(-0.1, -0.9), 'reconstruction/loss': held_out}
    assert titles(history, mean_loss=None) == ['Healthy']


@pytest.mark.parametrize('epoch', (1, 4))
@pytest.mark.parametrize(
    'deviation, title', ((0.2, 'Loss diverged'), (0.1, 'Learning rate too high'))
)
def test_means_that_overlap_seem_no_less_noisy_than_they_are(epoch, deviation, title):
    """Short epochs log a mean of the last ten iterations each."""
    found = []
    for seed in range(20):
        noise = 1 + deviation * np.random.default_rng(seed).normal(size=600)
        values = noise * (0.95 + 0.1 * np.exp(-np.arange(600) / 40))
        means = np.convolve(values, np.ones(10) / 10, 'valid')
        loss = list(zip(range(10, 601), means, strict=True))[::epoch]
        found += titles({'loss': loss})
    assert title not in found


def blank(history, share):
    """The same run on images of which a share of the cells has one colour."""
    scaled = {
        name: [(step, (1 - share) * value) for step, value in points]
        for name, points in history.items()
    }
    level = (1 - share) * np.ones(10)
    steps = STEPS[19::20].tolist()
    return scaled | {'reconstruction/mean_loss': list(zip(steps, level, strict=True))}


@pytest.mark.parametrize('share', (0.2, 0.5, 0.985))
def test_images_with_blank_cells_are_judged_by_their_own_mean(share):
    history = {'loss': flat(1.0), 'reconstruction/loss': every(flat(1.0))}
    (finding,) = diagnose(blank(history, share))
    assert finding.title == 'Nothing learned'
    assert f'costs {1 - share:.3g} on held-out images' in finding.seen
    short = {name: points[:15] for name, points in blank(history, share).items()}
    assert titles(short) == ['Not learned yet']
    history = {'loss': curve(1.1, 0.5), 'reconstruction/loss': every(curve(1.1, 0.6))}
    assert titles(blank(history, share)) == ['Healthy']
    spoilt = {'loss': flat(1e-3), 'reconstruction/loss': every(flat(1e-3))}
    assert titles(blank(spoilt, share)) == ['Loss near zero']


def test_images_that_vanish_have_a_loss_near_zero_although_it_is_that_of_the_mean():
    history = {'loss': flat(1.0), 'reconstruction/loss': every(flat(1.0))}
    assert titles(blank(history, 0.998)) == ['Loss near zero']


def test_held_out_images_that_are_predicted_show_that_something_is_learned():
    """Crops of the training may have fewer blank cells."""
    history = {'loss': flat(0.95), 'reconstruction/loss': every(flat(0.8))}
    for found in (history, blank(history, 0.0)):
        for end in (15, 200):
            short = {name: points[:end] for name, points in found.items()}
            assert titles(short) == ['Nothing wrong seen']


def test_held_out_images_show_that_nothing_is_learned():
    """Crops of the training may have more blank cells."""
    held_out = every(flat(0.998, 0.0))
    history = blank({'loss': flat(0.7), 'reconstruction/loss': held_out}, 0.0)
    for end, title in ((15, 'Not learned yet'), (200, 'Nothing learned')):
        short = {name: points[:end] for name, points in history.items()}
        (finding,) = diagnose(short)
        assert finding.title == title
    assert 'held-out loss at 0.998. Predicting the mean' in finding.seen
    history['loss'][2:4] = [(30, 4.0), (40, 2.0)]
    (finding,) = diagnose(history)
    assert finding.title == 'Learning rate too high'
    assert 'held-out loss at 0.998. Predicting the mean' in finding.seen


def test_a_loss_a_little_below_the_measured_mean_is_learned():
    values = 0.88 + 0.17 * np.exp(-np.arange(200) / 15)
    values += 0.003 * np.random.default_rng(0).normal(size=200)
    history = {'loss': list(zip(STEPS.tolist(), values, strict=True))}
    history['reconstruction/loss'] = [(1000, 0.885), (2000, 0.88)]
    assert titles(history) == ['Nothing learned']  # blank cells may cost nothing
    history['reconstruction/mean_loss'] = [(1000, 0.999), (2000, 0.999)]
    assert titles(history) == ['Healthy']


def test_a_flat_loss_at_the_mean_is_nothing_learned_only_after_the_warmup():
    history = {'loss': flat(1.0)}
    assert titles(history) == ['Nothing learned']
    history['lr'] = [(step, step * 1e-6) for step, _ in history['loss']]
    assert titles(history) == ['Too early to say']
    assert 'warm-up' in diagnose(history)[0].advice
    assert 'warm-up' not in diagnose({'loss': flat(1.0)[:3]})[0].advice
    history['lr'][-1] = (2000, 1e-6)
    assert titles(history) == ['Nothing learned']
    # A rate that stays constant after the warm-up.
    top = history['lr'][len(history['lr']) // 2][1]
    history['lr'] = [(step, min(rate, top)) for step, rate in history['lr'][:-1]]
    assert titles(history) == ['Nothing learned']


def test_a_flat_loss_is_no_finding_if_the_loss_of_the_mean_is_unknown():
    assert titles({'loss': flat(1.0)}, mean_loss=None) == ['Nothing wrong seen']


def test_a_peak_before_the_flat_loss_points_at_the_learning_rate():
    loss = [(10, 1.3), (20, 1.3), (30, 4.0), (40, 2.0), *flat(1.0)[4:]]
    assert titles({'loss': loss}) == ['Learning rate too high']


def test_a_loss_near_zero_points_at_the_target():
    history = {'loss': [(10 * i, max(1e-4, 1 / i**3)) for i in range(1, 50)]}
    assert titles(history) == ['Loss near zero']
    assert titles(history, mean_loss=None) == ['Loss near zero']
    assert titles({'loss': curve(3.0, 0.03)}, mean_loss=None) == ['Healthy']


def test_collapse_of_the_last_stage_is_an_error():
    history = {'loss': curve(1.1, 0.5)}
    for stage, end in ((1, 20.0), (2, 1.1)):
        history[f'features/rank_stage{stage}'] = every(curve(25.0, end, 0.0))
    finding = diagnose(history)[0]
    assert (finding.severity, finding.title) == ('error', 'Features collapsed')
    assert 'Stage 2' in finding.seen
    assert '1.27' in finding.seen


@pytest.mark.parametrize('name, value', (('std', 0.001), ('dead', 0.95)))
def test_constant_or_dead_channels_are_a_collapse_too(name, value):
    history = {'loss': curve(1.1, 0.5), f'features/{name}_stage4': [(2000, value)]}
    assert titles(history) == ['Features collapsed']


def test_shrinking_features_are_a_warning():
    history = {'loss': curve(1.1, 0.5)}
    history['features/rank_stage1'] = every(curve(40.0, 5.0, 0.0))
    history['features/rank_stage2'] = every(curve(40.0, 30.0, 0.0))
    finding = diagnose(history)[0]
    assert (finding.severity, finding.title) == (
        'warning',
        'Features of stage 1 shrink',
    )


def rising(end):
    return [(200 * i, 0.6 + max(0, i - 4) * (end - 0.6) / 6) for i in range(1, 11)]


def test_a_rise_of_the_held_out_loss_while_training_falls_is_a_warning():
    history = {'loss': curve(1.1, 0.3), 'reconstruction/loss': rising(0.8)}
    finding = diagnose(history)[0]
    assert (finding.severity, finding.title) == ('warning', 'Held-out loss rises')
    assert '10 % of ImageNet' in finding.advice


@pytest.mark.parametrize(
    'values, title',
    [
        ((0.9, 0.7, 0.8, 0.95), 'Held-out loss rises'),
        ((0.9, 0.7, 0.72, 0.73), 'Healthy'),
        ((0.9, 0.8, 0.7, 0.95), 'Healthy'),
    ],
)
def test_a_steep_rise_shows_in_four_validations(values, title):
    held_out = list(zip((500, 1000, 1500, 2000), values, strict=True))
    history = {'loss': curve(1.1, 0.3), 'reconstruction/loss': held_out}
    assert titles(history) == [title]


def test_longer_training_is_advised_if_the_held_out_loss_still_falls():
    for seed in range(20):
        history = {'loss': curve(1.1, 0.5, 0.05, seed)}
        for name, values in (
            ('converged', 0.52 + 0.4 * np.exp(-0.6 * np.arange(20))),
            ('falls', 0.9 - 0.02 * np.arange(20)),
        ):
            held_out = list(zip(STEPS[9::10].tolist(), values, strict=True))
            (finding,) = diagnose(history | {'reconstruction/loss': held_out})
            assert ('still falls' in finding.advice) == (name == 'falls')


def test_a_rise_within_the_noise_is_none():
    history = {'loss': curve(1.1, 0.3), 'reconstruction/loss': rising(0.605)}
    assert titles(history) == ['Healthy']


def test_both_losses_rising_is_no_overfitting():
    loss = curve(1.1, 0.5)
    loss = [(step, value + (step > 900) * step * 1.5e-4) for step, value in loss]
    history = {'loss': loss, 'reconstruction/loss': rising(0.8)}
    assert 'Held-out loss rises' not in titles(history)


def test_a_long_history_is_judged_like_a_short_one():
    loss = [(i, 0.5 + 0.6 * np.exp(-i / 2e4)) for i in range(200_000)]
    assert titles({'loss': loss}) == ['Healthy']
    loss[150_000:] = [(i, 2.0) for i, _ in loss[150_000:]]
    assert titles({'loss': loss}) == ['Loss diverged']


def test_a_mask_that_hides_more_than_published_ones_is_a_warning():
    history = {'loss': curve(1.1, 0.5)}
    assert titles(history, mask_ratio=0.75) == ['Healthy']
    finding = diagnose(history, mask_ratio=0.9)[0]
    assert finding.severity == 'warning' and 'sees 10% of an image' in finding.seen


def test_an_error_explains_the_warnings():
    history = {'loss': curve(1.1, 0.3), 'reconstruction/loss': rising(0.8)}
    assert titles(history) == ['Held-out loss rises']
    history['features/rank_stage4'] = [(2000, 1.0)]
    assert titles(history) == ['Features collapsed']


@pytest.fixture(scope='module')
def five_runs():
    """Scalars that ``python tools/benchmarks/five_runs.py`` has logged, four digits."""
    return json.loads(Path(__file__).with_name('five_runs.json').read_text())


@pytest.mark.parametrize(
    'name, ratio, early, end',
    (
        ('good', 0.5, ['Healthy'], ['Healthy']),
        (
            'high-learning-rate',
            0.5,
            ['Features collapsed'],
            ['Learning rate too high', 'Features collapsed'],
        ),
        ('few-images', 0.5, ['Held-out loss rises'], ['Held-out loss rises']),
        ('broken-target', 0.5, *[['Loss near zero', 'Features collapsed']] * 2),
        ('mask-ratio-0.9', 0.9, *[['Most of each image is hidden']] * 2),
    ),
)
def test_real_runs_are_told_apart_before_and_at_their_end(
    five_runs, name, ratio, early, end
):
    history = five_runs[name]
    third = history['loss'][-1][0] * 0.4
    begin = {
        name: [point for point in points if point[0] <= third]
        for name, points in history.items()
    }
    found = titles(begin, mask_ratio=ratio)
    assert set(early) <= set(found)
    assert ('Healthy' in early) == ('Healthy' in found)
    assert titles(history, mask_ratio=ratio) == end
    mean = {'reconstruction/mean_loss': [(400, 0.953)]}  # measured since
    assert titles(history | mean, mask_ratio=ratio) == end
