"""What a classifier confuses, and its worst mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmmixmim.text import plural, summarise_keys
from mmmixmim.validation import UserError

_WORST = 24  # mistakes that are listed


def find_mistakes(
    scores: np.ndarray,
    labels: Sequence[int],
    files: Sequence[str],
    classes: Sequence[str],
) -> dict:
    """Count confusions, and list the wrong answers that were given most confidently.

    Args:
        scores: Probability of each class, (N, classes).
        labels: True class of each image, (N, ).
        files: Path of each image.
        classes: Names of the classes.

    Returns:
        A dict that JSON can hold: ``images``; ``top1`` in percent; ``top1_interval``,
        its :func:`wilson_interval`; ``chance``, the ``top1`` of always answering the
        most frequent true class; ``classes``; ``confusion``, the number of images by
        true class (row) and answer (column); ``recall`` of each class in percent, None
        without images; and ``worst``, a list of dicts with ``file``, ``label``,
        ``answer`` and ``confidence``.

    Raises:
        UserError: If a score is not finite.
    """
    check_finite(scores, files)
    labels = np.asarray(labels)
    answers = scores.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (labels, answers), 1)
    right, total = confusion.diagonal(), confusion.sum(axis=1)
    wrong = np.flatnonzero(answers != labels)
    wrong = wrong[np.argsort(-scores[wrong].max(axis=1), kind='stable')][:_WORST]
    return dict(
        images=len(labels),
        top1=round(100 * float(right.sum()) / len(labels), 2),
        top1_interval=wilson_interval(int(right.sum()), len(labels)),
        chance=round(100 * float(total.max()) / len(labels), 2),
        classes=list(classes),
        confusion=confusion.tolist(),
        recall=[
            round(100 * int(r) / int(n), 2) if n else None
            for r, n in zip(right, total, strict=True)
        ],
        worst=[
            dict(
                file=str(files[i]),
                label=classes[labels[i]],
                answer=classes[answers[i]],
                confidence=round(float(scores[i].max()), 4),
            )
            for i in wrong
        ],
    )


def check_finite(values: np.ndarray, files: Sequence[str]) -> None:
    """Raise if features or scores are not finite: ``argmax`` takes NaN for the largest.

    Args:
        values: What the model gives for each image, (N, C).
        files: Path of each image.

    Raises:
        UserError: It names the first of these images.
    """
    odd = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(odd):
        named = summarise_keys([repr(str(files[i])) for i in odd])
        raise UserError(
            f'{len(odd):,} of {plural(len(files), "image")} overflow in the model: '
            f'{named}. Expected values like those of the other images. Say no_data '
            '(--no-data) if they mark pixels without data; else remove these files, '
            'and their lines in val.txt of the run, and give the same command again.'
        )


def wilson_interval(right: int, total: int) -> list[float]:
    """Wilson's 95 % interval of an accuracy, in percent.

    It holds for few images and near 0 and 100 %, too. It assumes independent images.
    """
    share, z = right / total, 1.96
    centre = share + z**2 / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    ends = ((centre + each) / (1 + z**2 / total) for each in (-spread, spread))
    return [max(0.0, round(100 * end, 2)) for end in ends]
