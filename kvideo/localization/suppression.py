"""Overlapping predictions of one thing: the best is kept, or the others count less."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.errors import UsageError, check_choice
from kvideo.localization.metrics import temporal_iou

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

DECAYS = ("gaussian", "linear")


def nms(spans: ArrayLike, scores: ArrayLike, tiou: float, most: int | None = None) -> Indices:
    """Non-maximum suppression: leaves out what overlaps with something of a higher score.

    Args:
        spans: (N, 2) beginnings and ends.
        scores: (N,); of equal ones the first comes first.
        tiou: segments that overlap by more are taken for the same.
        most: at most so many are kept.

    Returns:
        (M,) indices of what is kept, by falling score.

    Raises:
        UsageError: shapes that do not fit, or numbers that are not finite.
    """
    segments, rest = _checked(spans, scores)
    left = np.argsort(-rest, kind="stable")
    kept: list[int] = []
    while len(left) and (most is None or len(kept) < most):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[temporal_iou(segments[best], segments[left])[0] <= tiou]
    return np.array(kept, np.intp)


def soft_nms(
    spans: ArrayLike,
    scores: ArrayLike,
    *,
    decay: str = "gaussian",
    sigma: float = 0.5,
    tiou: float = 0.3,
    lowest: float = 0.001,
    most: int | None = None,
) -> tuple[Indices, Floats]:
    """Soft-NMS: the score of what overlaps with something better falls with the overlap.

    Args:
        spans: (N, 2) beginnings and ends.
        scores: (N,) from 0 on.
        decay: `"gaussian"`: times exp(−tIoU²/sigma); `"linear"`: times 1 − tIoU where that is
            more than `tiou`.
        sigma: see `decay`.
        tiou: see `decay`.
        lowest: what falls below this score is left out.
        most: at most so many are kept.

    Returns:
        (M,) indices by falling new score, and these scores.

    Raises:
        UsageError: as in `nms`, or an unknown decay.

    References:
        Bodla et al. 2017, "Soft-NMS: Improving Object Detection With One Line of Code".
    """
    check_choice("decay", decay, DECAYS)
    segments, left_scores = _checked(spans, scores)
    left = np.flatnonzero(left_scores >= lowest)
    kept: list[int] = []
    kept_scores: list[float] = []
    while len(left) and (most is None or len(kept) < most):
        place = int(np.argmax(left_scores[left]))
        best = left[place]
        left = np.delete(left, place)
        kept.append(int(best))
        kept_scores.append(float(left_scores[best]))
        overlaps = temporal_iou(segments[best], segments[left])[0]
        if decay == "gaussian":
            left_scores[left] *= np.exp(-(overlaps**2) / sigma)
        else:
            left_scores[left] *= np.where(overlaps > tiou, 1 - overlaps, 1.0)
        left = left[left_scores[left] >= lowest]
    return np.array(kept, np.intp), np.array(kept_scores)


def _checked(spans: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    segments = np.asarray(spans, np.float64).reshape(-1, 2)
    values = np.array(scores, np.float64)
    if values.shape != segments.shape[:1]:
        raise UsageError(f"{len(segments)} segments need as many scores, not {values.shape}.")
    if not (np.isfinite(segments).all() and np.isfinite(values).all()):
        raise UsageError("segments and scores must be finite numbers.")
    return segments, values
