"""Anchors: segments of a few lengths at every step, which the first stage judges and moves.

Times are in steps of the features; step t reaches from t to t + 1. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvideo.errors import DataError
from kvideo.localization.metrics import temporal_iou

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

_RATIO = 1.5  # from one scale to the next: the nearest one overlaps by at least 1 / sqrt(1.5)
_MOST_SCALES = 12
_LONGEST_SHIFT = 4.0  # of a logarithm of lengths; more is a network gone astray
IGNORED = -1


def choose_scales(lengths: Sequence[float]) -> tuple[float, ...]:
    """Anchor scales from the lengths of the training segments, in the unit of these.

    They go in equal steps from the shortest to the longest length (without the outermost
    hundredth), each 1.5 times the one before, so that every segment between overlaps with an anchor
    of the same middle by at least 0.8. Where that would take more than twelve, the steps are
    larger. A scale that no segment is nearest to is left out.

    Args:
        lengths: at least one, above 0.

    Raises:
        DataError: there is none.
    """
    logs = np.log([length for length in lengths if length > 0])
    if not len(logs):
        raise DataError("there is no segment to choose anchor scales from.")
    low, high = np.quantile(logs, [0.01, 0.99])
    count = min(_MOST_SCALES, max(1, math.ceil((high - low) / math.log(_RATIO) + 1e-9)))
    width = (high - low) / count
    centres = low + (np.arange(count) + 0.5) * width  # one segment lies at most half a width off
    nearest = np.abs(logs[:, np.newaxis] - centres).argmin(axis=1)
    return tuple(float(round(math.exp(centres[i]), 4)) for i in np.unique(nearest))


def make_anchors(steps: int, scales: Sequence[float]) -> Floats:
    """(steps · A, 2) beginnings and ends; those of one step are neighbours."""
    middles = np.arange(steps)[:, np.newaxis] + 0.5
    halves = np.asarray(scales, np.float64)[np.newaxis, :] / 2
    return np.stack([middles - halves, middles + halves], axis=-1).reshape(-1, 2)


def encode(segments: Floats, targets: Floats) -> Floats:
    """(N, 2) offsets that move segments to targets: see `kvideo.models.tal_net`."""
    length = segments[:, 1] - segments[:, 0]
    wanted = np.maximum(targets[:, 1] - targets[:, 0], 1e-6)
    shift = (targets.sum(axis=1) - segments.sum(axis=1)) / 2 / length
    return np.stack([shift, np.log(wanted / length)], axis=1)


def decode(segments: Floats, offsets: Floats) -> Floats:
    """(..., 2) the segments that offsets (..., 2) move segments (..., 2) to."""
    length = segments[..., 1] - segments[..., 0]
    middle = segments.mean(axis=-1) + offsets[..., 0] * length
    half = length * np.exp(np.clip(offsets[..., 1], -_LONGEST_SHIFT, _LONGEST_SHIFT)) / 2
    return np.stack([middle - half, middle + half], axis=-1)


def match(
    segments: Floats, truth: Floats, *, positive: float, negative: float, best: bool
) -> tuple[Ints, Ints]:
    """Which true segment each segment stands for, and whether it is an example of one.

    Args:
        segments: (N, 2).
        truth: (M, 2); may be none.
        positive: from this tIoU on it is.
        negative: below this it is none; between the two it does not count.
        best: whether the segments with the highest tIoU of each true one are positive in any case,
            so that none is without.

    Returns:
        (N,) the true segment with the highest tIoU; and (N,) 1, 0 or -1 (does not count).
    """
    if not len(truth):
        return np.zeros(len(segments), int), np.zeros(len(segments), int)
    overlaps = temporal_iou(segments, truth)
    nearest = overlaps.argmax(axis=1)
    highest = overlaps[np.arange(len(segments)), nearest]
    state = np.where(highest >= positive, 1, np.where(highest < negative, 0, IGNORED))
    if best and len(segments):
        top = overlaps.max(axis=0)
        rows, columns = np.nonzero((overlaps >= top - 1e-9) & (top > 0))
        state[rows], nearest[rows] = 1, columns
    return nearest, state


def sample(state: Ints, count: int, positives: float, rng: np.random.Generator) -> Ints:
    """Indices of at most `count` examples, at most that share of them positive.

    Where there are too few positives, negatives fill up; where there are none of either kind, the
    other one stands alone.
    """
    good, bad = np.flatnonzero(state == 1), np.flatnonzero(state == 0)
    most = max(1, round(count * positives))
    good = rng.permutation(good)[:most]
    return np.concatenate([good, rng.permutation(bad)[: count - len(good)]])
