"""How well actors are found in single frames: frame-mAP as the official AVA evaluation has it.

The figures are those of ActivityNet's `get_ava_performance.py`, to the last digits. Boxes are
(x1, y1, x2, y2), in whatever unit; a frame is a video and a time in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.errors import UsageError
from kvideo.metrics import average_precision

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

AVA_BOXES = 50  # of a frame that count
_PAIRS = 2_000_000  # of boxes that are compared at once


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Labelled boxes, a column each; N is their number. A box with two actions is two rows.

    Args:
        videos: (N,) names of the videos.
        times: (N,) seconds.
        boxes: (N, 4) x1, y1, x2, y2.
        labels: (N,) class indices.
        scores: (N,) higher is more certain; None: these are the truth.

    Raises:
        UsageError: columns of different lengths, or a number that is not finite.
    """

    videos: NDArray
    times: Floats
    boxes: Floats
    labels: Ints
    scores: Floats | None = None

    def __post_init__(self) -> None:
        kinds = {"videos": None, "labels": np.int64}
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is None:
                continue
            values = np.asarray(values, kinds.get(field.name, np.float64))
            if field.name == "boxes":
                values = values.reshape(-1, 4)
            if field.name != "videos" and not np.isfinite(values).all():
                raise UsageError(f"{field.name} of boxes must be finite numbers.")
            if len(values) != len(self.videos):
                raise UsageError(f"{len(values)} {field.name} came for {len(self.videos)} boxes.")
            object.__setattr__(self, field.name, values)

    def __len__(self) -> int:
        return len(self.videos)

    def select(self, rows: NDArray) -> Boxes:
        """Only some of the rows."""
        scores = None if self.scores is None else self.scores[rows]
        return Boxes(
            self.videos[rows], self.times[rows], self.boxes[rows], self.labels[rows], scores
        )


@dataclasses.dataclass(frozen=True)
class FrameScores:
    """Average precisions of C classes.

    Args:
        average_precisions: (C,); NaN for classes without a true box.
    """

    average_precisions: Floats

    @property
    def mean(self) -> float:
        """The mean over the classes that have a true box; NaN without any."""
        known = self.average_precisions[~np.isnan(self.average_precisions)]
        return float(known.mean()) if len(known) else float("nan")


def box_iou(one: ArrayLike, two: ArrayLike) -> Floats:
    """The IoU of every pair of boxes; 0 for two without area.

    Args:
        one: (N, 4).
        two: (M, 4).

    Returns:
        (N, M) from 0 to 1.
    """
    a = np.asarray(one, np.float64).reshape(-1, 1, 4)
    b = np.asarray(two, np.float64).reshape(1, -1, 4)
    return _iou(a, b)


def paired_iou(one: ArrayLike, two: ArrayLike) -> Floats:
    """The IoU of boxes (N, 4) with boxes (N, 4), one by one, (N,)."""
    return _iou(np.asarray(one, np.float64), np.asarray(two, np.float64))


def frame_scores(
    truth: Boxes,
    predictions: Boxes,
    num_classes: int,
    *,
    iou: float = 0.5,
    most: int | None = AVA_BOXES,
    empty: Iterable[tuple[str, float]] = (),
    excluded: Iterable[tuple[str, float]] = (),
) -> FrameScores:
    """Average precision of every class over frames.

    Of each frame the `most` predictions with the highest scores count, all classes together, and
    of these the ones with an area. They are taken by falling score. Each looks only at the true box
    of its class in its frame that it overlaps with most, and is right if the overlap is large
    enough and no prediction before it was right with that box. Predictions in frames without a true
    box are passed over, since such frames are not annotated, unless they are `empty` ones.

    Args:
        truth: boxes.
        predictions: boxes with scores.
        num_classes: C.
        iou: from which on a box counts as found.
        most: predictions of a frame; None: all.
        empty: frames, (video, seconds), that are annotated and have no box.
        excluded: frames that do not count, on either side.

    Raises:
        UsageError: predictions without scores, or a label outside the classes.

    References:
        Gu et al. 2018, "AVA"; ActivityNet, `Evaluation/get_ava_performance.py`.
    """
    if predictions.scores is None:
        raise UsageError("frame-mAP needs the scores of the predictions.")
    for boxes in (truth, predictions):
        if len(boxes) and not 0 <= boxes.labels.min() <= boxes.labels.max() < num_classes:
            raise UsageError(f"labels of boxes must be from 0 to {num_classes - 1}.")
    true_frames, said_frames, numbers = _frames(truth, predictions)
    dropped = _numbers(numbers, excluded)
    known = np.setdiff1d(np.union1d(np.unique(true_frames), _numbers(numbers, empty)), dropped)
    kept = np.isin(true_frames, known)
    truth, true_frames = truth.select(kept), true_frames[kept]
    kept = np.isin(said_frames, known)
    predictions, said_frames = predictions.select(kept), said_frames[kept]
    rows = _best_of_frames(predictions, said_frames, most)
    predictions, said_frames = predictions.select(rows), said_frames[rows]
    right = _matched(truth, true_frames, predictions, said_frames, num_classes, iou)
    positives = np.bincount(truth.labels, minlength=num_classes)
    result = np.full(num_classes, np.nan)
    scores = predictions.scores
    for label in np.flatnonzero(positives):
        own = predictions.labels == label
        result[label] = average_precision(
            np.asarray(scores)[own], right[own], interpolated=True,
            num_positives=int(positives[label]),
        )  # fmt: skip
    return FrameScores(result)


def _frames(truth: Boxes, said: Boxes) -> tuple[Ints, Ints, dict[tuple[str, float], int]]:
    """The number of each row's frame, and the numbers by video and time."""
    keys: dict[tuple[str, float], int] = {}
    rows = []
    for boxes in (truth, said):
        pairs = zip(boxes.videos.tolist(), boxes.times.tolist(), strict=True)
        rows.append(np.fromiter((keys.setdefault(pair, len(keys)) for pair in pairs), np.int64))
    return rows[0], rows[1], keys


def _numbers(keys: dict[tuple[str, float], int], frames: Iterable[tuple[str, float]]) -> Ints:
    pairs = ((str(video), float(time)) for video, time in frames)
    return np.array([keys.setdefault(pair, len(keys)) for pair in pairs], np.int64)


def _best_of_frames(said: Boxes, frames: Ints, most: int | None) -> Ints:
    """Rows by falling score: the best of each frame, and of these those with an area."""
    scores = np.asarray(said.scores)
    order = np.argsort(-scores, kind="stable")
    if most is not None and len(order):
        by_frame = order[np.argsort(frames[order], kind="stable")]
        sorted_frames = frames[by_frame]
        starts = np.flatnonzero(np.r_[True, sorted_frames[1:] != sorted_frames[:-1]])
        ranks = np.arange(len(by_frame)) - np.repeat(starts, np.diff(np.r_[starts, len(by_frame)]))
        chosen = np.zeros(len(order), bool)
        chosen[by_frame[ranks < most]] = True
        order = order[chosen[order]]
    boxes = said.boxes[order]
    return order[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _matched(
    truth: Boxes, true_frames: Ints, said: Boxes, said_frames: Ints, num_classes: int, iou: float
) -> NDArray[np.bool_]:
    """(P,) whether predictions, by falling score, find a true box."""
    right = np.zeros(len(said), bool)
    if not len(truth) or not len(said):
        return right
    true_keys = true_frames * num_classes + truth.labels
    order = np.argsort(true_keys, kind="stable")
    sorted_keys, boxes = true_keys[order], truth.boxes[order]
    keys = said_frames * num_classes + said.labels
    first = np.searchsorted(sorted_keys, keys, side="left")
    count = np.searchsorted(sorted_keys, keys, side="right") - first
    best, overlap = np.full(len(said), -1), np.zeros(len(said))
    rows = np.flatnonzero(count)
    for part in _parts(rows, count):
        own, starts = count[part], first[part]
        borders = np.r_[0, np.cumsum(own)]
        place = np.arange(borders[-1]) - np.repeat(borders[:-1], own) + np.repeat(starts, own)
        values = _iou(said.boxes[np.repeat(part, own)], boxes[place])
        highest = np.maximum.reduceat(values, borders[:-1])
        # The first of several with the same overlap.
        hits = np.flatnonzero(values == np.repeat(highest, own))
        owner = np.repeat(np.arange(len(part)), own)[hits]
        _, leading = np.unique(owner, return_index=True)
        best[part], overlap[part] = place[hits[leading]], highest
    good = np.flatnonzero(overlap >= iou)
    _, leading = np.unique(best[good], return_index=True)
    right[good[leading]] = True
    return right


def _parts(rows: Ints, count: Ints) -> Sequence[Ints]:
    """Rows in parts of not too many pairs."""
    total = np.cumsum(count[rows])
    return [
        part for part in np.split(rows, np.flatnonzero(np.diff(total // _PAIRS)) + 1) if len(part)
    ]


def _iou(a: Floats, b: Floats) -> Floats:
    left, top = np.maximum(a[..., 0], b[..., 0]), np.maximum(a[..., 1], b[..., 1])
    right, bottom = np.minimum(a[..., 2], b[..., 2]), np.minimum(a[..., 3], b[..., 3])
    shared = np.maximum(right - left, 0.0) * np.maximum(bottom - top, 0.0)
    areas = [(x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
