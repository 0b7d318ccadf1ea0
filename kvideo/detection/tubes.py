"""Boxes of one actor over time: how they are linked, and how well tubes are found. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvideo.detection.metrics import Floats, box_iou, paired_iou
from kvideo.errors import UsageError
from kvideo.metrics import average_precision

COCO_IOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
TUBE_IOUS: tuple[float | tuple[float, ...], ...] = (0.2, 0.5, COCO_IOUS)
_SAME_TIME = 1e-3  # seconds
_MOST_OF_ITS_TIME = 0.7
_UNEVEN = 1.1  # how much longer than usual the way from moment to moment may be


@dataclasses.dataclass(frozen=True, eq=False)
class Tube:
    """The boxes of one actor.

    Args:
        times: (K,) seconds, rising.
        boxes: (K, 4) x1, y1, x2, y2.
        scores: (K,) how sure it is that somebody is there; 0 where a gap was bridged.
        actions: (K, C) probabilities of the actions; None where there are none.
    """

    times: Floats
    boxes: Floats
    scores: Floats
    actions: Floats | None = None

    def __len__(self) -> int:
        return len(self.times)

    @property
    def score(self) -> float:
        """The mean over its boxes."""
        return float(self.scores.mean())


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledTube:
    """A tube with one action, for video-mAP.

    Args:
        video: its name.
        times: (K,) seconds, rising.
        boxes: (K, 4).
        label: class index.
        score: of a prediction.
    """

    video: str
    times: Floats
    boxes: Floats
    label: int
    score: float = 1.0


@dataclasses.dataclass(frozen=True)
class LinkSettings:
    """How boxes become tubes.

    Args:
        iou: least overlap of a box with the last one of its tube.
        gap: most frames without a box that a tube outlasts; in time, where frames are uneven.
        shortest: tubes of fewer boxes are dropped, unless there are fewer frames.
        smoothing: frames over which actions are averaged, an odd number.
        same: overlap from which on a tube shows the same actor as a surer and longer one that is
            there for most of its time, and is dropped; None: all tubes stay.

    Raises:
        UsageError: a value is out of its range.
    """

    iou: float = 0.3
    gap: int = 2
    shortest: int = 2
    smoothing: int = 3
    same: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise UsageError(f"the overlap of links must be above 0 and up to 1, not {self.iou}.")
        if self.gap < 0:
            raise UsageError(f"gap must be at least 0, not {self.gap}.")
        if self.same is not None and not 0 < self.same <= 1:
            raise UsageError(f"same must be above 0 and up to 1, not {self.same}.")
        if self.shortest < 1:
            raise UsageError(f"shortest must be at least 1, not {self.shortest}.")
        if self.smoothing < 1 or self.smoothing % 2 == 0:
            raise UsageError(f"smoothing must be an odd number of frames, not {self.smoothing}.")


@dataclasses.dataclass
class _Open:
    """A tube that may go on."""

    places: list[int]  # numbers of frames
    boxes: list[Floats]
    scores: list[float]
    actions: list[Floats]
    total: float = 0.0  # of the scores

    @property
    def mean(self) -> float:
        return self.total / len(self.scores)


def link(
    times: Floats,
    boxes: Sequence[Floats],
    scores: Sequence[Floats],
    actions: Sequence[Floats] | None = None,
    settings: LinkSettings | None = None,
) -> list[Tube]:
    """Joins the boxes of frames that follow each other to tubes, the surest first.

    At each frame the tubes, by falling score, each take the box that has not been taken and is the
    surest of those that overlap enough with their last one. What is left begins new tubes. Gaps are
    bridged by boxes in between (score 0), and actions are averaged over neighbouring frames.

    Args:
        times: (F,) seconds, rising.
        boxes: of each frame (N_f, 4).
        scores: of each frame (N_f,).
        actions: of each frame (N_f, C).
        settings: see there.
    """
    how = settings or LinkSettings()
    # Moments may be missing, so that a gap is measured in seconds.
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    longest = (how.gap + 1) * usual * _UNEVEN
    shortest = min(how.shortest, len(times))
    running: list[_Open] = []
    ended: list[_Open] = []
    for place in range(len(times)):
        free = np.ones(len(boxes[place]), bool)
        since = [float(times[place] - times[tube.places[-1]]) for tube in running]
        ended += [tube for tube, gap in zip(running, since, strict=True) if gap > longest]
        running = [tube for tube, gap in zip(running, since, strict=True) if gap <= longest]
        running.sort(key=lambda tube: -tube.mean)
        for tube in running:
            own = _next_box(tube.boxes[-1], boxes[place], scores[place], free, how.iou)
            if own is not None:
                free[own] = False
                _append(tube, place, own, boxes, scores, actions)
        for left in np.flatnonzero(free).tolist():
            running.append(_Open([], [], [], []))
            _append(running[-1], place, left, boxes, scores, actions)
    tubes = [_closed(tube, times, how) for tube in ended + running if len(tube.places) >= shortest]
    if how.same is not None:
        tubes = _distinct(tubes, how.same)
    return sorted(tubes, key=lambda tube: -tube.score)


def _distinct(tubes: Sequence[Tube], iou: float) -> list[Tube]:
    """Without those that follow a surer and longer one: second boxes of one actor."""
    kept: list[Tube] = []
    for tube in sorted(tubes, key=lambda tube: -float(tube.scores.sum())):
        if not any(_follows(tube, other, iou) for other in kept):
            kept.append(tube)
    return kept


def _follows(tube: Tube, other: Tube, iou: float) -> bool:
    place = np.clip(np.searchsorted(other.times, tube.times - _SAME_TIME), 0, len(other) - 1)
    common = np.abs(other.times[place] - tube.times) <= _SAME_TIME
    if common.mean() < _MOST_OF_ITS_TIME:
        return False
    return float(paired_iou(tube.boxes[common], other.boxes[place[common]]).mean()) >= iou


def tube_iou(one: LabelledTube, two: LabelledTube) -> float:
    """Overlap of two tubes: that in time, times the mean IoU of the boxes at common times.

    Times count as moments, so both should be sampled alike.

    References:
        Kalogeiton et al. 2017, "Action Tubelet Detector for Spatio-Temporal Action Localization".
    """
    place = np.searchsorted(two.times, one.times - _SAME_TIME)
    inside = place < len(two.times)
    common = np.zeros(len(one.times), bool)
    common[inside] = np.abs(two.times[place[inside]] - one.times[inside]) <= _SAME_TIME
    shared = int(common.sum())
    if not shared:
        return 0.0
    union = len(one.times) + len(two.times) - shared
    return shared / union * float(paired_iou(one.boxes[common], two.boxes[place[common]]).mean())


def video_scores(
    truth: Sequence[LabelledTube],
    predictions: Sequence[LabelledTube],
    num_classes: int,
    iou: float | Sequence[float],
) -> Floats:
    """Average precision of every class over tubes, (C,); NaN for classes without a true tube.

    The predictions of a class, of all videos, are taken by falling score. Each is right if the
    overlap with that tube which it overlaps with most, of those of its class and video that have
    not been found yet, reaches the threshold.

    Args:
        truth: true tubes.
        predictions: tubes with scores.
        num_classes: C.
        iou: from which on a tube is found; of several the mean is given.

    Raises:
        UsageError: a threshold is not above 0.
    """
    limits = np.atleast_1d(np.asarray(iou, np.float64))
    if not len(limits) or not ((limits > 0) & (limits <= 1)).all():
        raise UsageError(f"iou must be above 0 and up to 1, not {iou}.")
    result = np.full((len(limits), num_classes), np.nan)
    for label in range(num_classes):
        known = [tube for tube in truth if tube.label == label]
        if not known:
            continue
        said = sorted((t for t in predictions if t.label == label), key=lambda t: -t.score)
        groups: dict[str, list[LabelledTube]] = {}
        for tube in known:
            groups.setdefault(tube.video, []).append(tube)
        overlaps = [
            np.array([tube_iou(tube, other) for other in groups.get(tube.video, [])])
            for tube in said
        ]
        scores = np.array([tube.score for tube in said])
        for row, limit in enumerate(limits):
            right = _found(said, overlaps, groups, float(limit))
            result[row, label] = average_precision(
                scores, right, interpolated=True, num_positives=len(known)
            )
    return result.mean(axis=0)


def _found(
    said: Sequence[LabelledTube],
    overlaps: Sequence[Floats],
    groups: dict[str, list[LabelledTube]],
    limit: float,
) -> NDArray[np.bool_]:
    left = {video: np.ones(len(tubes), bool) for video, tubes in groups.items()}
    right = np.zeros(len(said), bool)
    for number, (tube, own) in enumerate(zip(said, overlaps, strict=True)):
        if not len(own):
            continue
        values = np.where(left[tube.video], own, -1.0)
        best = int(values.argmax())
        if values[best] >= limit:
            right[number], left[tube.video][best] = True, False
    return right


def _next_box(
    last: Floats, boxes: Floats, scores: Floats, free: NDArray[np.bool_], iou: float
) -> int | None:
    if not free.any():
        return None
    near = free & (box_iou(last, boxes)[0] >= iou)
    return int(np.where(near, scores, -np.inf).argmax()) if near.any() else None


def _append(
    tube: _Open,
    place: int,
    own: int,
    boxes: Sequence[Floats],
    scores: Sequence[Floats],
    actions: Sequence[Floats] | None,
) -> None:
    tube.places.append(place)
    tube.boxes.append(np.asarray(boxes[place][own], np.float64))
    tube.scores.append(float(scores[place][own]))
    tube.total += tube.scores[-1]
    if actions is not None:
        tube.actions.append(np.asarray(actions[place][own], np.float64))


def _closed(tube: _Open, times: Floats, how: LinkSettings) -> Tube:
    """With boxes in the gaps, and smooth actions."""
    places = np.arange(tube.places[0], tube.places[-1] + 1)
    when = np.asarray(times, np.float64)
    known, wanted = when[tube.places], when[places]
    boxes = np.stack([np.interp(wanted, known, side) for side in np.array(tube.boxes).T], axis=1)
    scores = np.zeros(len(places))
    scores[np.array(tube.places) - places[0]] = tube.scores
    actions = None
    if tube.actions:
        rows = np.stack(
            [np.interp(wanted, known, each) for each in np.array(tube.actions).T], axis=1
        )
        actions = _smooth(rows, how.smoothing)
    return Tube(wanted, boxes, scores, actions)


def _smooth(rows: Floats, frames: int) -> Floats:
    """The mean over so many neighbouring rows, fewer at the ends."""
    half = frames // 2
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    first = np.maximum(np.arange(len(rows)) - half, 0)
    last = np.minimum(np.arange(len(rows)) + half + 1, len(rows))
    return (sums[last] - sums[first]) / (last - first)[:, np.newaxis]
