"""What the curves of a pretraining run say: verdicts in words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .curves import (
    History,
    all_values,
    apart,
    finite_values,
    first_level,
    largest_rise,
    last_level,
    lowest_level,
    lowest_level_noise,
    measured_mean_loss,
    measured_stages,
    past_warmup,
    when,
)


@dataclass(frozen=True)
class Finding:
    """One verdict on a run.

    Args:
        kind: The verdict in a word, for programs: 'not-finite', 'diverged',
            'high-rate', 'nothing-learned', 'near-zero', 'collapsed', 'shrinks',
            'held-out-rises', 'mask-ratio', 'healthy', 'unclear', 'plateau', 'early' or
            'none'.
        severity: 'error' (stop the run), 'warning' (look at it) or 'info'.
        title: A few words.
        seen: What was seen, with numbers.
        advice: What to do.
    """

    kind: str
    severity: str
    title: str
    seen: str
    advice: str

    @property
    def message(self) -> str:
        """What was seen and what to do, for the log."""
        return f'{self.seen} {self.advice}'


def diagnose(
    history: History,
    mean_loss: float | None = 1.0,
    mask_ratio: float | None = None,
    pretraining: bool = True,
) -> list[Finding]:
    """Say whether a run learns, and what is wrong if it doesn't.

    A level of a curve is the median of a tenth of its points, of three at least: the
    first tenth, the last, or the lowest running one. A single spike or a noisy batch
    therefore changes no verdict. The log averages the training loss over ten
    iterations before that, and values that are closer are left out.

    ============================ ===================================================
    verdict                      threshold and reason
    ============================ ===================================================
    loss is not finite           the last two training losses, of ten iterations or
                                 more, or the last held-out one, are NaN or infinite:
                                 mixed precision skips single bad steps, which change
                                 nothing but the ten means that they are part of
    diverged                     last level 25 % above the lowest, or, after the
                                 warm-up, more than half of the way back from it to
                                 predicting the mean; and six standard errors above it,
                                 by the noise of the points up to it, since the lowest
                                 of many levels is low by chance
    learning rate too high       flat above 85 % of predicting the mean, and either the
                                 loss rose by 15 % at some time (medians of three
                                 points), as no flat curve does, or the features
                                 collapsed. Such runs predict the mean of each position:
                                 94 % of that of each cell on the digits
    nothing learned              flat above 97 % of predicting the mean if that was
                                 measured, else 85 %, since blank cells may lower it;
                                 and the learning rate is constant, or a quarter below
                                 its peak, after a third of a cosine schedule: before, a
                                 plateau is normal
    flat (of these two)          all held-out losses are above that share, and, if the
                                 mean was not measured on the same images, the lowest
                                 level too; the second half of the points lowers the
                                 level by less than 2 %; 20 points or more
    loss near zero               last level below 2 % of predicting the mean, or, if
                                 that is unknown, 0.5 % of the first loss: real images
                                 are never predicted that well. Below 0.02 if predicting
                                 the mean costs less than 0.01: 99 % of the cells are
                                 blank then. With labels, a loss may be as low as it
                                 likes
    collapse                     last stage: effective rank below 2 (1 is one direction
                                 for all images), deviation below 0.005 (healthy runs
                                 came down to 0.02, since pooled features share a large
                                 mean) or 90 % of the channels dead
    features shrink              effective rank of a stage below a quarter of its
                                 highest, or half of its channels dead
    held-out loss rises          median of the last three held-out losses 2 % above the
                                 lowest before them, or both of the last two 10 %, while
                                 the training loss fell. Masks and crops of held-out
                                 images are fixed, so that 2 % are no noise
    most of an image is hidden   mask ratio above 0.8: published methods hide 50 %
                                 (MixMAE), 60 % (SimMIM) and 75 % (MAE)
    ============================ ===================================================

    Args:
        history: Scalars by name, each a list of (iteration, value): ``loss``, and, as
            far as they were measured, ``lr``, ``epoch``,
            ``reconstruction/{loss,mean_loss}`` and
            ``features/{rank,std,dead}_stageN``. Other names are ignored.
        mean_loss: Loss of predicting the mean of each cell, if
            ``reconstruction/mean_loss`` was not measured. Defaults to 1.0, about that
            of normalised pixels; blank cells lower it in images of one channel. None if
            it is unknown.
        mask_ratio: Share of an image that is hidden. Defaults to None: unknown.
        pretraining: Whether the run pretrains an encoder, rather than learning labels.
            Defaults to True.

    Returns:
        The errors; without errors, the warnings, which errors would explain; without
        either, one finding of severity 'info'. In pretraining that is 'Not learned yet'
        while the last held-out loss is above 97 % of predicting the mean, and, if that
        was not measured, the last level too.
    """
    history = history | {'loss': apart(history.get('loss', []))}
    loss = all_values(history, 'loss')
    if not len(loss):
        return [
            Finding(
                'none',
                'info',
                'No training yet',
                'No training loss has been logged.',
                'Wait for the first log lines, or check that the run started.',
            )
        ]
    mean_loss = measured_mean_loss(history, mean_loss)
    findings = [
        *_not_finite(history),
        *_loss_level(history, mean_loss, pretraining),
        *_collapse(history),
        *_held_out_rise(history),
        *_mask_ratio(mask_ratio),
    ]
    errors = _explain([each for each in findings if each.severity == 'error'])
    return errors or findings or [_healthy(history, mean_loss, pretraining)]


_STILL = 'A probe may still score well, as it standardises features.'
# Why features collapse, if the loss tells it.
_CAUSES = {
    'near-zero': 'the target carries no information',
    'high-rate': 'the learning rate is too high',
    'diverged': 'the training diverged',
    'not-finite': 'the loss is not finite',
}


def _explain(errors: list[Finding]) -> list[Finding]:
    """Advise to fix the cause where another error explains a collapse."""
    causes = [_CAUSES[each.kind] for each in errors if each.kind in _CAUSES]
    if not causes:
        return errors
    advice = f'Probably because {causes[0]}: fix that first. {_STILL}'
    return [
        replace(each, advice=advice) if each.kind == 'collapsed' else each
        for each in errors
    ]


# Above this share of the loss of predicting the mean, a model predicts little else.
_NO_BETTER = 0.97

_LOWER = (
    'Lower the learning rate by a factor of 10 (optim_wrapper.optimizer.lr), lengthen '
    'the warm-up, or clip gradients (optim_wrapper.clip_grad.max_norm=1.0)'
)


def _not_finite(history: History) -> list[Finding]:
    loss = all_values(history, 'loss')
    held_out = all_values(history, 'reconstruction/loss')
    finite = np.isfinite(loss)
    after = int(finite.nonzero()[0].max(initial=-1)) + 1
    if after and finite[-2:].any() and np.isfinite(held_out[-1:]).all():
        return []
    step = history['loss'][min(after, len(loss) - 1)][0]
    return [
        Finding(
            'not-finite',
            'error',
            'Loss is not finite',
            f'The loss is NaN or infinite since {when(history, step)}.',
            f'The weights are lost: stop. {_LOWER}, then start from a checkpoint of '
            'before it. With mixed precision, also try bfloat16.',
        )
    ]


def _loss_level(
    history: History, mean_loss: float | None, pretraining: bool
) -> list[Finding]:
    """Judge the training loss: diverged, flat, or too good to be true."""
    loss = finite_values(history, 'loss')
    if len(loss) < 6:
        return []
    if found := _diverged(loss, mean_loss if past_warmup(history) else None):
        return found
    if pretraining and (found := _near_zero(loss, mean_loss)):
        return found
    if mean_loss is None or not _is_flat(history, loss, 0.85 * mean_loss):
        return []
    if found := _high_rate(history, loss, mean_loss):
        return found
    measured = measured_mean_loss(history, None) is not None
    if measured and not _is_flat(history, loss, _NO_BETTER * mean_loss):
        return []
    return _nothing_learned(history, loss, mean_loss) if _is_late(history) else []


def _diverged(loss: np.ndarray, mean_loss: float | None) -> list[Finding]:
    last, best = last_level(loss), lowest_level(loss)
    much = 0.25 * abs(best)
    if mean_loss is not None and best < _NO_BETTER * mean_loss:
        much = min(much, 0.5 * (mean_loss - best))
    if last - best <= max(much, 6 * lowest_level_noise(loss)):
        return []
    return [
        Finding(
            'diverged',
            'error',
            'Loss diverged',
            f'The training loss fell to {best:.3g} and is at {last:.3g} now.',
            f'The learning rate is probably too high. {_LOWER}.',
        )
    ]


def _is_flat(history: History, loss: np.ndarray, least: float) -> bool:
    """Whether the loss stays where it is, above a level."""
    half = len(loss) // 2
    flat = lowest_level(loss[half:]) > 0.98 * lowest_level(loss[:half])
    warm = past_warmup(history) and len(loss) >= 20
    held_out = finite_values(history, 'reconstruction/loss')
    lowest = _to_compare(history, lowest_level(loss), held_out)
    return lowest >= least and flat and warm


def _to_compare(history: History, level: float, held_out: np.ndarray) -> float:
    """Lowest loss to compare with that of predicting the mean.

    Where that was measured, of the same held-out images alone: crops of the training
    may have more or fewer blank cells.
    """
    measured = measured_mean_loss(history, None) is not None and len(held_out)
    return float(min(held_out if measured else [level, *held_out]))


def _is_late(history: History) -> bool:
    """Whether the learning rate is constant, or a quarter below its peak."""
    rates = finite_values(history, 'lr')
    return not len(rates) or not 0.75 < rates[-1] / rates.max() < 0.999


def _high_rate(history: History, loss: np.ndarray, mean_loss: float) -> list[Finding]:
    """Say why a loss is flat, if it rose or the features collapsed."""
    rise = largest_rise(loss)
    if rise > 1.15:
        seen = f'rose to {rise:.3g} times an earlier value'
    elif _collapse(history):
        seen = 'fell while the features collapsed'
    else:
        return []
    return [
        Finding(
            'high-rate',
            'error',
            'Learning rate too high',
            f'The training loss {seen} and {_stays(history, loss, mean_loss)}.',
            f'{_LOWER}, and start again: such weights rarely recover.',
        )
    ]


def _nothing_learned(
    history: History, loss: np.ndarray, mean_loss: float
) -> list[Finding]:
    """Say that a loss is flat."""
    return [
        Finding(
            'nothing-learned',
            'error',
            'Nothing learned',
            f'The training loss {_stays(history, loss, mean_loss)}, so the model '
            'predicts little else.',
            'Look at the pictures: are the images what you expect? Then try another '
            'learning rate (a tenth and ten times of it).',
        )
    ]


def _stays(history: History, loss: np.ndarray, mean_loss: float) -> str:
    seen = f'stays at {last_level(loss):.3g}'
    where = 'or less where images of one channel have blank cells'
    if measured_mean_loss(history, None) is not None:
        where = 'on held-out images'
        held_out = finite_values(history, 'reconstruction/loss')
        if len(held_out):
            seen += f', the held-out loss at {held_out[-1]:.3g}'
    return f'{seen}. Predicting the mean of each cell costs {mean_loss:.3g} {where}'


def _near_zero(loss: np.ndarray, mean_loss: float | None) -> list[Finding]:
    last = last_level(loss)
    zero = 0.005 * loss[0]
    if mean_loss is not None:
        zero = 0.02 * (mean_loss if mean_loss >= 0.01 else 1.0)
    if abs(last) >= abs(zero):
        return []
    return [
        Finding(
            'near-zero',
            'error',
            'Loss near zero',
            f'The training loss is {last:.2g}, after {loss[0]:.3g} at first: real '
            'images are never predicted so well.',
            'The target carries no information: look at the images that the model '
            'gets (blank or constant? mean and std of the data preprocessor?) and '
            'at the target of the head.',
        )
    ]


def _collapse(history: History) -> list[Finding]:
    stages = measured_stages(history)
    findings = []
    for stage in stages:
        seen = []
        rank, std, dead = (
            finite_values(history, f'features/{name}_stage{stage}')
            for name in ('rank', 'std', 'dead')
        )
        if stage == stages[-1]:
            if len(rank) and rank[-1] < 2:
                seen.append(f'their effective rank is {rank[-1]:.2f}')
            if len(std) and std[-1] < 0.005:
                seen.append(f'their standard deviation is {std[-1]:.2g}')
            if len(dead) and dead[-1] > 0.9:
                seen.append(f'{dead[-1]:.0%} of the channels are dead')
        if seen:
            findings.append(
                Finding(
                    'collapsed',
                    'error',
                    'Features collapsed',
                    f'Stage {stage} gives nearly the same features for all images: '
                    f'{", ".join(seen)}.',
                    'Stop. Check the target and the images, then lower the learning '
                    f'rate. {_STILL}',
                )
            )
            continue
        if len(rank) and rank[-1] < rank.max() / 4:
            seen.append(
                f'the effective rank fell from {rank.max():.1f} to {rank[-1]:.1f}'
            )
        if len(dead) and dead[-1] > 0.5:
            seen.append(f'{dead[-1]:.0%} of the channels are dead')
        if seen:
            findings.append(
                Finding(
                    'shrinks',
                    'warning',
                    f'Features of stage {stage} shrink',
                    f'At stage {stage}, {", ".join(seen)}.',
                    'Watch it. If it goes on, lower the learning rate or the weight '
                    'decay.',
                )
            )
    return findings


def _held_out_rise(history: History) -> list[Finding]:
    points = [
        (step, value)
        for step, value in history.get('reconstruction/loss', [])
        if np.isfinite(value)
    ]
    values = np.array([value for _, value in points])
    if len(values) < 4:
        return []
    at = int(values.argmin())
    best, last = values[at], last_level(values[-3:])
    much = 0.02 if at <= len(values) - 4 else 0.1
    if at > len(values) - 3 or last - best < much * abs(best):
        return []
    step = points[at][0]
    train = history['loss']
    before = finite_values({'loss': [p for p in train if p[0] <= step]}, 'loss')
    now = finite_values(history, 'loss')
    if not len(before) or last_level(now) >= last_level(before):
        return []
    return [
        Finding(
            'held-out-rises',
            'warning',
            'Held-out loss rises',
            f'The loss on held-out images was lowest around '
            f'{when(history, step)} ({best:.3g}) and is {last:.3g} now, while the '
            f'training loss fell from {last_level(before):.3g} to '
            f'{last_level(now):.3g}: the model begins to memorise its images. There '
            'are too few of them for so long a training.',
            'More images help most. Published: on 10 % of ImageNet the held-out loss '
            'rises with longer training although fine-tuning stays about the same, so '
            'the features need not get worse, but training on gains little. You can '
            'stop, or compare a checkpoint of about that time.',
        )
    ]


def _mask_ratio(mask_ratio: float | None) -> list[Finding]:
    if mask_ratio is None or mask_ratio <= 0.8:
        return []
    return [
        Finding(
            'mask-ratio',
            'warning',
            'Most of each image is hidden',
            f'With mask_ratio {mask_ratio:g}, the encoder sees {1 - mask_ratio:.0%} of '
            f'an image: little to tell the rest from.',
            'MixMAE hides 50 % of an image, SimMIM 60 % and MAE 75 %. Set '
            'model.mask_ratio=0.5, unless you have measured that more helps your task.',
        )
    ]


def _healthy(history: History, mean_loss: float | None, pretraining: bool) -> Finding:
    loss = finite_values(history, 'loss')
    if len(loss) < 6 or not past_warmup(history):
        return Finding(
            'early',
            'info',
            'Too early to say',
            f'The log has {len(loss)} values of the training loss, ten iterations '
            f'apart or more; the last one is {loss[-1]:.3g}.',
            'A verdict takes at least 6.'
            if past_warmup(history)
            else 'Wait until the warm-up of the learning rate is over.',
        )
    held_out = finite_values(history, 'reconstruction/loss')
    first, last = first_level(loss), last_level(loss)
    seen = f'The training loss went from {first:.3g} to {last:.3g}'
    if len(held_out) > 1:
        seen += f', the held-out loss from {held_out[0]:.3g} to {held_out[-1]:.3g}'
    lowest = _to_compare(history, last, held_out[-1:])
    if pretraining and mean_loss is not None and lowest > _NO_BETTER * mean_loss:
        return Finding(
            'plateau',
            'info',
            'Not learned yet',
            f'{seen}. A loss of {lowest:.3g} is still about that of predicting the '
            f'mean of each cell ({mean_loss:.3g}).',
            'Wait, or train longer: a loss may stay there for many epochs before it '
            'falls.',
        )
    if not pretraining:
        advice = 'Judge the run by its scores on validation images.'
    elif not len(held_out):
        advice = (
            'No images are held out, so whether the features are healthy is not '
            'known: set train_dataloader.dataset.held_out, or try the encoder.'
        )
    elif held_out[-1] == held_out.min() and _falls(
        held_out[(len(held_out) - 1) * 3 // 4], held_out[-1], 0.01
    ):
        advice = 'The held-out loss still falls, so longer training may help.'
    else:
        advice = (
            'The loss does not tell how good the features are: try the encoder on '
            'your task.'
        )
    if _falls(first, last, 0.02):
        return Finding('healthy', 'info', 'Healthy', f'{seen}.', advice)
    return Finding('unclear', 'info', 'Nothing wrong seen', f'{seen}.', advice)


def _falls(before: float, after: float, share: float) -> bool:
    """Whether a loss, which may be negative, falls by more than a share."""
    return before - after > share * abs(before)
