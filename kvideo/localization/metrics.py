"""How well segments are found: mAP at overlaps, and recall against the number of proposals.

The figures are those of the official evaluation of ActivityNet (`eval_detection.py` and
`eval_proposal.py` of its repository), to the last digits. Times are seconds; the overlap of two
segments, tIoU, is the length of their intersection over that of their union.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.errors import UsageError
from kvideo.metrics import average_precision

Floats = NDArray[np.floating]

ACTIVITYNET_TIOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
_POINTS = 100  # of a recall curve


@dataclasses.dataclass(frozen=True)
class Segments:
    """Parts of videos, a column each; N is their number.

    Args:
        videos: (N,) names of the videos.
        starts: (N,) seconds.
        ends: (N,) seconds.
        labels: (N,) names or numbers of classes; None: proposals, which have none.
        scores: (N,) higher is more certain; None: these are the truth.

    Raises:
        UsageError: columns of different lengths, or a number that is not finite.
    """

    videos: NDArray
    starts: Floats
    ends: Floats
    labels: NDArray | None = None
    scores: Floats | None = None

    def __post_init__(self) -> None:
        shapes = {}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            numbers = field.name in ("starts", "ends", "scores")
            values = np.asarray(values, np.float64 if numbers else None)
            if numbers and not np.isfinite(values).all():
                raise UsageError(f"{field.name} of segments must be finite numbers.")
            object.__setattr__(self, field.name, values)
            shapes[field.name] = values.shape
        if set(shapes.values()) != {(len(self),)}:
            raise UsageError(f"segments need columns of one length, not {shapes}.")

    def __len__(self) -> int:
        return len(self.videos)

    @functools.cached_property
    def spans(self) -> Floats:
        """(N, 2) beginnings and ends."""
        return np.stack([self.starts, self.ends], axis=1)


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """Average precisions of T overlaps and C classes.

    Args:
        tious: (T,) the overlaps from which on a segment counts as found.
        classes: the C classes that the truth has, sorted.
        average_precisions: (T, C).
    """

    tious: tuple[float, ...]
    classes: tuple
    average_precisions: Floats

    @property
    def mean(self) -> Floats:
        """(T,) mAP: the mean over the classes."""
        return self.average_precisions.mean(axis=1)

    @property
    def average(self) -> float:
        """The mean of mAP over the overlaps; for `ACTIVITYNET_TIOUS` ActivityNet's average mAP."""
        return float(self.mean.mean())


@dataclasses.dataclass(frozen=True)
class RecallCurve:
    """Recall for a growing number of proposals; P points (100).

    Args:
        tious: (T,) the overlaps from which on a segment counts as found.
        proposals: (P,) proposals of a video, on average (AN).
        recalls: (T, P) share of the true segments that are found.
    """

    tious: tuple[float, ...]
    proposals: Floats
    recalls: Floats

    @property
    def average(self) -> Floats:
        """(P,) mean over the overlaps (AR)."""
        return self.recalls.mean(axis=0)

    @property
    def area(self) -> float:
        """Area under AR over AN, over the largest AN: 0 to 1 (the official one is in percent)."""
        widths, average = np.diff(self.proposals), self.average
        return float((widths * (average[1:] + average[:-1]) / 2).sum() / self.proposals[-1])

    def at(self, number: float) -> float:
        """AR at so many proposals a video (AR@AN): that of the last point with at most as many."""
        inside = np.flatnonzero(self.proposals <= number * (1 + 1e-9))
        return float(self.average[inside[-1]]) if len(inside) else 0.0


def temporal_iou(one: ArrayLike, two: ArrayLike) -> Floats:
    """The tIoU of every pair of segments; 0 for two of length zero.

    Args:
        one: (N, 2) beginnings and ends.
        two: (M, 2).

    Returns:
        (N, M) from 0 to 1.
    """
    a = np.asarray(one, np.float64).reshape(-1, 1, 2)
    b = np.asarray(two, np.float64).reshape(1, -1, 2)
    shared = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    shared = np.maximum(shared, 0.0)
    # In the order of the official code, so that the last digit is the same.
    union = (b[..., 1] - b[..., 0]) + (a[..., 1] - a[..., 0]) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union != 0)


def detection_scores(
    truth: Segments, predictions: Segments, tious: Sequence[float] = ACTIVITYNET_TIOUS
) -> DetectionScores:
    """Average precision of every class at every overlap.

    The predictions of a class, of all videos, are taken by falling score. Each is right if a true
    segment of its class and video has at least the overlap with it and has not been found yet;
    among several it finds the one with the largest overlap. Average precision is the area under
    the interpolated curve (`kvideo.metrics.average_precision`, equal scores being one step); a
    class without predictions has 0. Predictions of classes that the truth does not have are left
    out.

    Args:
        truth: with labels.
        predictions: with labels and scores.
        tious: above 0.

    Raises:
        UsageError: there is no truth, or labels or scores are missing.

    References:
        ActivityNet, `Evaluation/eval_detection.py`.
    """
    limits = _limits(tious)
    if truth.labels is None or predictions.labels is None or predictions.scores is None:
        raise UsageError("mAP needs labels on both sides, and scores of the predictions.")
    if not len(truth):
        raise UsageError("mAP needs at least one true segment.")
    classes, number = np.unique(truth.labels, return_inverse=True)
    positives = np.bincount(number)
    order = np.argsort(-predictions.scores, kind="stable")
    order = order[np.isin(predictions.labels[order], classes)]
    scores, videos = predictions.scores[order], predictions.videos[order]
    said_number = np.searchsorted(classes, predictions.labels[order])
    spans, true_spans = predictions.spans[order], truth.spans
    right = np.zeros((len(order), len(limits)), bool)
    true_groups = _groups(truth.videos, number)
    for key, rows in _groups(videos, said_number).items():
        if key in true_groups:
            overlaps = temporal_iou(spans[rows], true_spans[true_groups[key]])
            right[rows] = _matched(overlaps, limits)
    result = np.zeros((len(limits), len(classes)))
    of_class = np.argsort(said_number, kind="stable")
    borders = np.searchsorted(said_number[of_class], np.arange(len(classes) + 1))
    for column in range(len(classes)):
        rows = of_class[borders[column] : borders[column + 1]]
        for row in range(len(limits)):
            result[row, column] = average_precision(
                scores[rows],
                right[rows, row],
                interpolated=True,
                num_positives=int(positives[column]),
            )
    return DetectionScores(tuple(map(float, limits)), tuple(classes.tolist()), result)


def average_recall(
    truth: Segments,
    proposals: Segments,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
    *,
    most: float | None = None,
) -> RecallCurve:
    """Recall of the true segments by the best proposals of each video, against their number.

    Videos are of different lengths, so of each video the same share of its proposals is taken,
    which grows from a hundredth to all of them. Several true segments may be found by one proposal.
    Labels do not count.

    Args:
        truth: the videos that it names count.
        proposals: with scores.
        tious: above 0.
        most: the average number of proposals of a video at the end of the curve; by default all.

    Raises:
        UsageError: there is no truth or no proposal, or the scores are missing.

    References:
        ActivityNet, `Evaluation/eval_proposal.py`.
    """
    limits = _limits(tious)
    if not len(truth) or not len(proposals):
        raise UsageError("recall needs at least one true segment and one proposal.")
    if proposals.scores is None:
        raise UsageError("recall needs the scores of the proposals.")
    if most is not None and not most > 0:
        raise UsageError(f"most must be above 0, not {most}.")
    true_groups, said_groups = _groups(truth.videos), _groups(proposals.videos)
    videos = len(true_groups)
    wanted = len(proposals) / videos if most is None else float(most)
    ratio = wanted * videos / len(proposals)
    first, counts, total = [], [], 0  # of each video: ranks of the first hits, proposals
    for key, own in true_groups.items():
        rows = said_groups.get(key, np.zeros(0, int))
        rows = rows[np.argsort(-proposals.scores[rows], kind="stable")]
        kept = rows[: min(int(len(rows) * ratio), len(rows))]
        total += len(kept)
        overlaps = temporal_iou(truth.spans[own], proposals.spans[kept])
        hits = overlaps >= limits[:, np.newaxis, np.newaxis]  # (T, true segments, proposals)
        never = np.full((*hits.shape[:2], 1), True)
        first.append(np.argmax(np.concatenate([hits, never], axis=2), axis=2))
        counts.append(len(kept))
    if total == 0:
        raise UsageError("there are no proposals for the videos of the truth, or too few of them.")
    shares = np.arange(1, _POINTS + 1) / 100.0 * (wanted * float(videos) / total)
    found = np.zeros((len(limits), _POINTS))
    for ranks, count in zip(first, counts, strict=True):
        taken = np.minimum((count * shares).astype(int), count)
        found += (ranks[:, :, np.newaxis] < taken).sum(axis=1)
    return RecallCurve(
        tuple(map(float, limits)), shares * (float(total) / videos), found / len(truth)
    )


def _matched(overlaps: Floats, limits: Floats) -> NDArray[np.bool_]:
    """(P, T) whether each of P predictions, by falling score, finds one of G true segments."""
    taken = np.zeros((len(limits), overlaps.shape[1]), bool)
    right = np.zeros((len(overlaps), len(limits)), bool)
    for row, own in enumerate(overlaps):
        for column in np.argsort(own, kind="stable")[::-1]:
            if own[column] < limits.min():
                break
            finds = (own[column] >= limits) & ~taken[:, column] & ~right[row]
            taken[finds, column] = True
            right[row] |= finds
    return right


def _limits(tious: Sequence[float]) -> Floats:
    limits = np.asarray(tious, np.float64)
    if limits.ndim != 1 or not len(limits) or not ((limits > 0) & (limits <= 1)).all():
        raise UsageError(f"tious must be a list of numbers above 0 and up to 1, not {tious}.")
    return limits


def _groups(*columns: NDArray) -> dict[tuple, NDArray[np.intp]]:
    """Rows by the values of their columns, in their order."""
    found: dict[tuple, list[int]] = {}
    for row, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        found.setdefault(key, []).append(row)
    return {key: np.array(rows) for key, rows in found.items()}
