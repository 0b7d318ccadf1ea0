"""From the features of a video, however long, to labelled segments in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvideo.errors import UsageError, check_choice
from kvideo.localization import anchors
from kvideo.localization.proposals import Stages, best_proposals
from kvideo.localization.suppression import nms, soft_nms

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SUPPRESSIONS = ("nms", "soft-nms")
_LOWEST = 0.005  # probability of a segment that is worth to be told
_SHORTEST = 1e-3  # seconds
_COUNTED = 500  # steps for which numbers of segments are meant


@dataclasses.dataclass(frozen=True)
class DetectionSettings:
    """How segments are made from what the network says.

    Args:
        proposals: that the second stage looks at, for each 500 steps (begun) of a video.
        suppression: `"nms"` or `"soft-nms"`, of the segments of each class.
        tiou: see `nms`; soft-NMS with a Gaussian has none.
        sigma: see `soft_nms`.
        most: segments that are kept for each 500 steps, all classes together.
        window: steps of a video that are looked at at once.

    Raises:
        UsageError: a value is out of its range.
    """

    proposals: int = 200
    suppression: str = "nms"
    tiou: float = 0.4
    sigma: float = 0.5
    most: int = 100
    window: int = 2048

    def share(self, number: int, steps: int) -> int:
        """So many for each 500 steps, of a video of so many steps."""
        return number * max(1, -(-steps // _COUNTED))

    def __post_init__(self) -> None:
        check_choice("suppression", self.suppression, SUPPRESSIONS)
        if not 0 < self.tiou <= 1:
            raise UsageError(f"tiou must be above 0 and up to 1, not {self.tiou}.")
        if min(self.proposals, self.most, self.window) < 1 or not self.sigma > 0:
            raise UsageError("proposals, most, window and sigma must be above 0.")


@dataclasses.dataclass(frozen=True)
class Detections:
    """Segments of one video, by falling score.

    Args:
        spans: (N, 2) seconds.
        labels: (N,) class indices.
        scores: (N,) probabilities.
        proposals: (P, 2) seconds, by falling probability; none of a model without proposals.
        proposal_scores: (P,).
    """

    spans: Floats
    labels: Ints
    scores: Floats
    proposals: Floats = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))
    proposal_scores: Floats = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        """How many segments."""
        return len(self.spans)

    @property
    def proposal_rows(self) -> Floats:
        """(P, 3) start, end, probability of the proposals."""
        return np.concatenate([self.proposals, self.proposal_scores[:, np.newaxis]], axis=1)


def detect(
    streams: Sequence[Stages],
    features: Sequence[Floats],
    scales: Sequence[float],
    stride: float,
    duration: float,
    settings: DetectionSettings,
) -> Detections:
    """The segments of a video.

    Args:
        streams: the networks, one for each stream.
        features: of each stream (T, D), with the same T; may be memory maps.
        scales: of the anchors, in steps.
        stride: seconds from step to step.
        duration: of the video, seconds.
        settings: see there.
    """
    steps = min(map(len, features))
    parts = [
        _of_window(streams, [each[first:last] for each in features], scales, first, core, settings)
        for first, last, core in windows(steps, settings.window, max(scales))
    ]
    spans, labels, scores, proposals, chances = (
        np.concatenate(x) for x in zip(*parts, strict=True)
    )
    spans, proposals = (np.clip(x * stride, 0, duration) for x in (spans, proposals))
    kept = spans[:, 1] - spans[:, 0] >= _SHORTEST
    most = settings.share(settings.most, steps)
    spans, labels, scores = suppressed(spans[kept], labels[kept], scores[kept], settings, most)
    order = np.argsort(-chances, kind="stable")
    return Detections(spans, labels, scores, proposals[order], chances[order])


def windows(steps: int, window: int, longest: float) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Parts of a long video: first step, the one after the last, and the part's own steps.

    A part sees, beside its own steps, twice the longest anchor on either side.
    """
    margin = int(np.ceil(2 * longest))
    if steps <= window:
        yield 0, steps, (0, steps)
        return
    own = max(window - 2 * margin, margin, 1)
    for first in range(0, steps, own):
        last = min(first + own, steps)
        yield max(0, first - margin), min(steps, last + margin), (first, last)


def _of_window(
    streams: Sequence[Stages],
    features: Sequence[Floats],
    scales: Sequence[float],
    first: int,
    core: tuple[int, int],
    settings: DetectionSettings,
) -> tuple[Any, ...]:
    """Spans, labels, scores, proposals, their scores; in steps of the whole video."""
    rows = [np.ascontiguousarray(each, np.float32) for each in features]
    said = [stage.propose(each) for stage, each in zip(streams, rows, strict=True)]
    proposals, chances = best_proposals(
        said, scales, settings.share(settings.proposals, len(rows[0]))
    )
    middles = proposals.mean(axis=1) + first
    own = (middles >= core[0]) & (middles < core[1])
    proposals, chances = proposals[own], chances[own]
    if not len(proposals):
        return np.zeros((0, 2)), np.zeros(0, int), np.zeros(0), proposals + first, chances
    judged = [stage.classify(each, proposals) for stage, each in zip(streams, rows, strict=True)]
    scores = np.mean([each for each, _ in judged], axis=0)[:, 1:]  # (P, C)
    offsets = np.mean([each for _, each in judged], axis=0)  # (P, C, 2)
    row, label = np.nonzero(scores >= _LOWEST)
    spans = anchors.decode(proposals[row], offsets[row, label]) + first
    return spans, label, scores[row, label], proposals + first, chances


def suppressed(
    spans: Floats, labels: Ints, scores: Floats, settings: DetectionSettings, most: int
) -> tuple[Floats, Ints, Floats]:
    """What is left of segments after suppression within each class, by falling score."""
    kept: list[Ints] = [np.zeros(0, int)]
    left: list[Floats] = [np.zeros(0)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if settings.suppression == "nms":
            best = nms(spans[rows], scores[rows], settings.tiou, most)
            left.append(scores[rows][best])
        else:
            best, changed = soft_nms(
                spans[rows], scores[rows], sigma=settings.sigma, lowest=_LOWEST, most=most
            )
            left.append(changed)
        kept.append(rows[best])
    rows, values = np.concatenate(kept), np.concatenate(left)
    order = np.argsort(-values, kind="stable")[:most]
    return spans[rows[order]], labels[rows[order]], values[order]
