"""How well labels over time were found: frame accuracy, edit score, F1 of segments.

The figures of temporal action segmentation, as Lea et al. 2016 (edit score) and Lea et al. 2017,
Farha & Gall 2019 (F1) define them. Plain functions on NumPy arrays; N is the number of frames of a
video, as many as the clips sample, S of segments: runs of equal labels.

Frames whose true label is -1 (unlabelled, padding) are left out beforehand, on both sides; what
lies before and after them then touches. Accuracy lies in 0..1, the segmental figures in 0..100, as
in the literature. A figure with nothing to count is NaN.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.errors import UsageError

Ints = NDArray[np.integer]

UNLABELLED = -1
F1_OVERLAPS = (0.10, 0.25, 0.50)


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Runs of equal labels.

    Attributes:
        labels: (S,).
        starts: (S,) first frames.
        ends: (S,) the frames after the last ones.
    """

    labels: Ints
    starts: Ints
    ends: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, classes: Sequence[int]) -> Runs:
        """The runs of other classes."""
        kept = ~np.isin(self.labels, classes)
        return Runs(self.labels[kept], self.starts[kept], self.ends[kept])


def find_runs(labels: ArrayLike) -> Runs:
    """The runs of equal labels in (N,) labels, in order; none if N is 0.

    Raises:
        UsageError: not one row of labels.
    """
    row = np.asarray(labels)
    if row.ndim != 1:
        raise UsageError(f"labels over time must be of the shape (frames,), not {row.shape}.")
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]][: len(row)])
    return Runs(row[starts], starts, np.r_[starts[1:], len(row)][: len(starts)])


def frame_accuracy(truth: ArrayLike, predicted: ArrayLike, *, exclude: Sequence[int] = ()) -> float:
    """Share of the frames whose label was found.

    Args:
        truth: (N,) class indices, -1 where nothing is known.
        predicted: (N,) class indices.
        exclude: classes whose frames do not count, by their true label.

    Raises:
        UsageError: the shapes differ.
    """
    right, count = _frame_counts(*_labelled(truth, predicted), exclude)
    return right / count if count else math.nan


def edit_score(truth: ArrayLike, predicted: ArrayLike, *, exclude: Sequence[int] = ()) -> float:
    """Are the right segments there in the right order? 0..100, whatever their length.

    100 · (1 − d / max(S, S')), where d is the Levenshtein distance of the sequences of segment
    labels (Lea et al. 2016).

    Args:
        truth: (N,) class indices, -1 where nothing is known.
        predicted: (N,) class indices.
        exclude: classes whose segments are dropped from both sequences, such as background.

    Raises:
        UsageError: the shapes differ.
    """
    return _edit(*_both_runs(truth, predicted, exclude))


def segment_counts(
    truth: ArrayLike, predicted: ArrayLike, overlap: float, *, exclude: Sequence[int] = ()
) -> tuple[int, int, int]:
    """True positives, false positives, false negatives among the segments of one video.

    A predicted segment goes to the true one of its class with the largest IoU, and is right if
    that is at least `overlap` and no other has been right for it (Lea et al. 2017).

    Args:
        truth: (N,) class indices, -1 where nothing is known.
        predicted: (N,) class indices.
        overlap: the least IoU, above 0.
        exclude: classes whose segments do not count, such as background.

    Raises:
        UsageError: the shapes differ.
    """
    true, said = _both_runs(truth, predicted, exclude)
    return _counts(_best_matches(true, said), len(true), len(said), overlap)


def f1_score(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """2 TP / (2 TP + FP + FN) in 0..100; NaN without any segment."""
    total = 2 * true_positives + false_positives + false_negatives
    return 200.0 * true_positives / total if total else math.nan


def segmentation_metrics(
    pairs: Iterable[tuple[ArrayLike, ArrayLike]],
    *,
    exclude: Sequence[int] = (),
    overlaps: Sequence[float] = F1_OVERLAPS,
) -> dict[str, float]:
    """All figures over several videos.

    Args:
        pairs: (true labels, predicted labels) of each video, both (N_i,).
        exclude: classes that are left out of the segmental figures, such as background; in
            `frame_accuracy` their frames count as all others do.
        overlaps: the thresholds of F1.

    Returns:
        `frame_accuracy` over the frames of all videos; `edit`, the mean over the videos; `f1@10`
        and so on, with true and false positives summed over all videos first.

    Raises:
        UsageError: the shapes of a pair differ.
    """
    right = frames = 0
    edits: list[float] = []
    counts = np.zeros((len(overlaps), 3), int)
    for truth, predicted in pairs:
        known, found = _labelled(truth, predicted)
        hits, number = _frame_counts(known, found, ())
        right, frames = right + hits, frames + number
        true, said = (find_runs(row).without(exclude) for row in (known, found))
        edits.append(_edit(true, said))
        best = _best_matches(true, said)
        counts += [_counts(best, len(true), len(said), overlap) for overlap in overlaps]
    defined = [edit for edit in edits if not math.isnan(edit)]
    figures = {"frame_accuracy": right / frames if frames else math.nan}
    figures["edit"] = float(np.mean(defined)) if defined else math.nan
    for overlap, (hits, wrong, missed) in zip(overlaps, counts.tolist(), strict=True):
        figures[f"f1@{round(100 * overlap)}"] = f1_score(hits, wrong, missed)
    return figures


def _labelled(truth: ArrayLike, predicted: ArrayLike) -> tuple[Ints, Ints]:
    """Both rows without the frames that have no true label."""
    known, found = np.asarray(truth), np.asarray(predicted)
    if known.ndim != 1 or known.shape != found.shape:
        raise UsageError(
            "true and predicted labels over time must both be of the shape (frames,); came "
            f"{known.shape} and {found.shape}."
        )
    kept = known != UNLABELLED
    return known[kept], found[kept]


def _frame_counts(truth: Ints, predicted: Ints, exclude: Sequence[int]) -> tuple[int, int]:
    kept = ~np.isin(truth, exclude)
    return int(np.count_nonzero((truth == predicted) & kept)), int(np.count_nonzero(kept))


def _both_runs(truth: ArrayLike, predicted: ArrayLike, exclude: Sequence[int]) -> tuple[Runs, Runs]:
    known, found = _labelled(truth, predicted)
    return find_runs(known).without(exclude), find_runs(found).without(exclude)


def _edit(true: Runs, said: Runs) -> float:
    longest = max(len(true), len(said))
    if not longest:
        return math.nan
    return 100.0 * (1.0 - _levenshtein(true.labels, said.labels) / longest)


def _levenshtein(one: Ints, two: Ints) -> int:
    """Fewest insertions, deletions and replacements; a row of the table at a time."""
    places = np.arange(len(two) + 1)
    row = places
    for number, label in enumerate(one, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (two != label))
        # row[j] = min(best[j], row[j - 1] + 1), from left to right.
        row = np.minimum.accumulate(np.r_[number, best] - places) + places
    return int(row[-1])


def _best_matches(true: Runs, said: Runs) -> tuple[Ints, NDArray[np.floating]]:
    """For each predicted segment the true one of its class with the largest IoU, and that IoU."""
    if not len(true) or not len(said):
        return np.zeros(len(said), int), np.zeros(len(said))
    starts, ends = said.starts[:, None], said.ends[:, None]
    shared = np.minimum(ends, true.ends) - np.maximum(starts, true.starts)
    joined = np.maximum(ends, true.ends) - np.minimum(starts, true.starts)
    overlaps = np.maximum(shared, 0) / joined * (said.labels[:, None] == true.labels)
    best = overlaps.argmax(axis=1)
    return best, overlaps[np.arange(len(said)), best]


def _counts(
    matches: tuple[Ints, NDArray[np.floating]], num_true: int, num_said: int, overlap: float
) -> tuple[int, int, int]:
    best, overlaps = matches
    # Of several for the same true segment, one is right and the others are false positives.
    hits = len(np.unique(best[overlaps >= overlap]))
    return hits, num_said - hits, num_true - hits
