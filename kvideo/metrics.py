"""What a classifier got right: top-k, mean class accuracy, confusion, average precision.

Plain functions on NumPy arrays. N is the number of videos, C of classes. Nothing here averages
over views (`kvideo.scores.average_views` does) and nothing rounds.

Ties: where two classes have the same probability, the one with the lower index comes first, as
in `np.argmax`. So top-1 accuracy always agrees with the confusion matrix, and a model that says
the same for every class scores chance, not 1.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.errors import UsageError

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


def top_k_accuracy(probabilities: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Share of the videos whose true class is among the k most probable ones.

    Args:
        probabilities: (N, C); any scores will do, only their order counts.
        labels: (N,) class indices.
        k: at least 1; from C on the result is 1.

    Raises:
        UsageError: no videos, NaN, shapes that do not fit, or a label that is no class index.
    """
    scores, truth = _scores_and_labels(probabilities, labels)
    return float(np.mean(_ranks(scores, truth) < _check_k(k)))


def hit_at_k(probabilities: ArrayLike, targets: ArrayLike, k: int = 1) -> float:
    """Share of the videos with at least one true class among the k most probable (Hit@k).

    The figure for several labels a video that Karpathy et al. 2014 give for Sports-1M. Videos
    without any label are left out.

    Args:
        probabilities: (N, C).
        targets: (N, C), true or 1 where the video has the label.
        k: at least 1.

    Raises:
        UsageError: as in `top_k_accuracy`, or no video has a label.
    """
    scores, truth = _scores_and_targets(probabilities, targets)
    labelled = truth.any(axis=1)
    if not labelled.any():
        raise UsageError("hit_at_k needs at least one video that has a label.")
    order = np.argsort(-scores[labelled], axis=1, kind="stable")[:, : _check_k(k)]
    return float(np.mean(np.take_along_axis(truth[labelled], order, axis=1).any(axis=1)))


def mean_class_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the classes of the share of a class's videos that were recognized.

    Every class counts the same, however many videos it has (balanced accuracy, macro recall).
    Classes without a video are left out of the mean.

    Args:
        probabilities: (N, C).
        labels: (N,) class indices.

    Raises:
        UsageError: as in `top_k_accuracy`.
    """
    scores, truth = _scores_and_labels(probabilities, labels)
    matrix = confusion_matrix(np.argmax(scores, axis=1), truth, scores.shape[1])
    _, recall, _ = precision_recall_support(matrix)
    return float(np.nanmean(recall))


def confusion_matrix(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> Ints:
    """How often each true class was taken for each class.

    Args:
        predictions: (N,) class indices.
        labels: (N,) class indices.
        num_classes: C.

    Returns:
        (C, C) int64; row = true class, column = predicted class. Sums to N; N may be 0.

    Raises:
        UsageError: shapes that do not fit, or something that is no class index.
    """
    said = _class_indices(predictions, num_classes, "predictions")
    truth = _class_indices(labels, num_classes, "labels")
    if said.shape != truth.shape:
        raise UsageError(f"{len(said)} predictions do not fit {len(truth)} labels.")
    counts = np.bincount(truth * num_classes + said, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def precision_recall_support(confusion: ArrayLike) -> tuple[Floats, Floats, Ints]:
    """Per class, from a confusion matrix: precision, recall and number of videos.

    precision = right / predicted as the class; recall = right / videos of the class. Where the
    denominator is 0 the figure is NaN: not defined, rather than bad.

    Args:
        confusion: (C, C), rows are true classes.

    Returns:
        Three arrays (C,): precision, recall, support.

    Raises:
        UsageError: the matrix is not square.
    """
    matrix = np.asarray(confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UsageError(f"a confusion matrix has the shape (C, C), not {matrix.shape}.")
    right, support = np.diagonal(matrix), matrix.sum(axis=1)
    return _ratio(right, matrix.sum(axis=0)), _ratio(right, support), support


def multi_label_precision_recall(
    probabilities: ArrayLike, targets: ArrayLike, threshold: float = 0.5
) -> tuple[Floats, Floats, Ints]:
    """Per class, where a video may have several: precision, recall and number of videos.

    A class counts as predicted where its probability is at least `threshold`. NaN where a
    denominator is 0.

    Args:
        probabilities: (N, C).
        targets: (N, C), true or 1 where the video has the label.
        threshold: between "no" and "yes".

    Returns:
        Three arrays (C,): precision, recall, support.

    Raises:
        UsageError: as in `mean_average_precision`.
    """
    scores, truth = _scores_and_targets(probabilities, targets)
    said = scores >= threshold
    right, support = (said & truth).sum(axis=0), truth.sum(axis=0)
    return _ratio(right, said.sum(axis=0)), _ratio(right, support), support


def average_precision(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    interpolated: bool = False,
    num_positives: int | None = None,
) -> float:
    """Area under the precision-recall curve of one class.

    The examples are ranked by score; equal scores form one step. With precision P_n and recall
    R_n after step n:

    - `interpolated=False`: Σ (R_n − R_{n−1}) P_n, as in scikit-learn's `average_precision_score`;
      usual for multi-label video classification (Charades, AudioSet, YouTube-8M).
    - `interpolated=True`: the same with P_n replaced by max P_m over m ≥ n: PASCAL VOC from 2010
      on ("all points"; Everingham et al. 2015), usual for detection (AVA, ActivityNet).

    Args:
        scores: (N,), higher is more certain.
        targets: (N,), true or 1 for the positives.
        interpolated: which of the two.
        num_positives: how many there are in all, where some may be missing from the list (boxes
            that no detection found); by default those in the list.

    Returns:
        0 to 1; NaN (not defined) if there are no positives at all; 0 for an empty list.

    Raises:
        UsageError: NaN, shapes that do not fit, or fewer `num_positives` than in the list.
    """
    ranked_by, truth = np.asarray(scores, dtype=np.float64), _as_bools(targets)
    if ranked_by.ndim != 1 or ranked_by.shape != truth.shape:
        raise UsageError(
            f"scores {ranked_by.shape} and targets {truth.shape} must be two lists of one length."
        )
    _refuse_nan(ranked_by, "score")
    found = int(truth.sum())
    positives = found if num_positives is None else num_positives
    if positives < found:
        raise UsageError(f"num_positives is {positives}, but {found} positives are in the list.")
    if positives == 0:
        return math.nan
    return _area(ranked_by, truth, positives, interpolated)


def average_precisions(
    scores: ArrayLike, targets: ArrayLike, *, interpolated: bool = False
) -> Floats:
    """`average_precision` of every class: (C,); NaN for classes without positives.

    Args:
        scores: (N, C).
        targets: (N, C), true or 1 where the video has the label.
        interpolated: see `average_precision`.

    Raises:
        UsageError: no videos, NaN, or shapes that do not fit.
    """
    table, truth = _scores_and_targets(scores, targets)
    positives = truth.sum(axis=0)
    return np.array(
        [
            _area(table[:, c], truth[:, c], int(n), interpolated) if n else math.nan
            for c, n in enumerate(positives)
        ]
    )


def mean_average_precision(
    scores: ArrayLike, targets: ArrayLike, *, interpolated: bool = False
) -> float:
    """mAP: the mean over the classes of `average_precision`.

    Classes without a positive are left out of the mean.

    Args:
        scores: (N, C).
        targets: (N, C), true or 1 where the video has the label.
        interpolated: see `average_precision`.

    Raises:
        UsageError: no videos, NaN, shapes that do not fit, or no positives at all.
    """
    per_class = average_precisions(scores, targets, interpolated=interpolated)
    if np.isnan(per_class).all():
        raise UsageError("mean average precision needs at least one video that has a label.")
    return float(np.nanmean(per_class))


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """How often a model is right when it is so sure.

    Attributes:
        counts: (K,) predictions in each of K equal ranges of the largest probability, from 0 to 1.
        confidence: (K,) mean of that probability; NaN in empty ranges.
        accuracy: (K,) share that is right; NaN in empty ranges.
    """

    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: mean of |accuracy - confidence|, weighted by counts."""
        known = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[known]
        return float((gaps * self.counts[known]).sum() / self.counts.sum())


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Calibration:
    """Compares how sure a model is of its most probable class with how often that is right.

    Args:
        probabilities: (N, C), N at least 1.
        labels: (N,) class indices.
        bins: K, ranges of probability.

    Raises:
        UsageError: `bins` is less than 1, or shapes or labels do not fit.

    References:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    if bins < 1:
        raise UsageError(f"bins must be at least 1, not {bins}.")
    scores, truth = _scores_and_labels(probabilities, labels)
    sure, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    place = np.clip((sure * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place, sure, bins) / counts
        accuracy = np.bincount(place, right, bins) / counts
    return Calibration(counts, confidence, accuracy)


def wilson_interval(right: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Between what bounds a share lies, when `right` of `of` independent trials came out right.

    The score interval of Wilson (1927), which is honest for few trials and near 0 and 1, where
    "± 1.96 standard errors" is not: with p = right/of, n = of and z the normal quantile,
    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).

    Raises:
        UsageError: `of` is 0, `right` is not within 0..of, or `confidence` not between 0 and 1.
    """
    if of < 1 or not 0 <= right <= of:
        raise UsageError(f"an interval needs 0 <= right <= of and of >= 1, not {right} of {of}.")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, not {confidence}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, part = right / of, z * z / of
    middle = share + part / 2
    half = math.sqrt(part * (share * (1 - share) + part / 4))
    # Rounding may leave -1e-18 and 1 + 1e-16, where the bounds are 0 and 1 exactly.
    low, high = (middle - half) / (1 + part), (middle + half) / (1 + part)
    return (0.0 if right == 0 else low), (1.0 if right == of else high)


def _area(scores: Floats, truth: Bools, positives: int, interpolated: bool) -> float:
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(truth[order])[ends]
    precision = hits / (ends + 1)
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * precision) / positives)


def _ranks(scores: Floats, classes: Ints) -> Ints:
    """How many classes come before the given one of each row: (N,)."""
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    before = scores > own
    before |= (scores == own) & (np.arange(scores.shape[1]) < classes[:, None])
    return np.count_nonzero(before, axis=1)


def _ratio(part: Ints, whole: Ints) -> Floats:
    """Part / whole, NaN where the whole is 0."""
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _check_k(k: int) -> int:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}.")
    return k


def _scores_and_labels(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    scores = _score_table(probabilities)
    truth = _class_indices(labels, scores.shape[1], "labels")
    if len(truth) != len(scores):
        raise UsageError(f"{len(scores)} rows of probabilities do not fit {len(truth)} labels.")
    return scores, truth


def _scores_and_targets(probabilities: ArrayLike, targets: ArrayLike) -> tuple[Floats, Bools]:
    scores, truth = _score_table(probabilities), _as_bools(targets)
    if scores.shape != truth.shape:
        raise UsageError(
            f"probabilities {scores.shape} and targets {truth.shape} must have one shape, (N, C)."
        )
    return scores, truth


def _score_table(probabilities: ArrayLike) -> Floats:
    scores = np.asarray(probabilities)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if scores.ndim != 2 or scores.shape[1] < 1:
        raise UsageError(
            f"probabilities must have the shape (videos, classes), not {scores.shape}."
        )
    if not len(scores):
        raise UsageError("there are no videos to score.")
    _refuse_nan(scores, "probability")
    return scores


def _refuse_nan(scores: Floats, what: str) -> None:
    bad = np.isnan(scores)
    if bad.any():
        row = int(np.argwhere(bad)[0, 0])
        raise UsageError(f"the {what} in row {row} is not a number (NaN).")


def _class_indices(values: ArrayLike, num_classes: int, what: str) -> Ints:
    indices = np.asarray(values)
    if indices.ndim != 1:
        raise UsageError(f"{what} must have the shape (videos,), not {indices.shape}.")
    if not len(indices):
        return indices.astype(np.int64)
    if not np.issubdtype(indices.dtype, np.integer):
        raise UsageError(f"{what} must be whole numbers (class indices), not {indices.dtype}.")
    if indices.min() < 0 or indices.max() >= num_classes:
        bad = indices[(indices < 0) | (indices >= num_classes)][0]
        raise UsageError(f"{what}: {bad} is no index of one of {num_classes} classes.")
    return indices.astype(np.int64)


def _as_bools(targets: ArrayLike) -> Bools:
    values = np.asarray(targets)
    if values.dtype == bool:
        return values
    if values.size and not np.isin(values, (0, 1)).all():
        raise UsageError("targets must be 0 or 1 (or False and True).")
    return values.astype(bool)
