"""Results over time: of each video, and of an evaluation of labels for each frame. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from kvideo.segmentation import UNLABELLED, find_runs


@dataclasses.dataclass(frozen=True)
class TimeSegment:
    """A part of a video with one label.

    Attributes:
        start: seconds.
        end: seconds.
        label: class index.
        probability: mean over the part of its class's probability; None for a true segment.
    """

    start: float
    end: float
    label: int
    probability: float | None = None


def segments_of(
    labels: np.ndarray, edges: np.ndarray, probabilities: np.ndarray | None = None
) -> list[TimeSegment]:
    """Runs of equal labels as segments in seconds; those of -1 are left out.

    Args:
        labels: (K,) class indices, or -1.
        edges: (K + 1,) seconds; label k holds from edge k to edge k + 1.
        probabilities: (K, C), or None.
    """
    runs = find_runs(labels)
    segments = []
    for label, first, last in zip(runs.labels, runs.starts, runs.ends, strict=True):
        if label != UNLABELLED:
            sure = None if probabilities is None else float(probabilities[first:last, label].mean())
            span = float(edges[first]), float(edges[last])
            segments.append(TimeSegment(*span, int(label), sure))
    return segments


@dataclasses.dataclass(frozen=True, eq=False)
class FrameResult:
    """What a model said of one video over time, or why it could not.

    Args:
        path: as in the annotations.
        times: (K,) sampled times, seconds.
        end: of the video, seconds.
        probabilities: (K, C); None if the video failed.
        truth: (K,) true class indices, -1 where nothing is known; None without annotations.
        error: a sentence, if it failed.
        reason: one word for counting the failures.
    """

    path: str
    times: np.ndarray | None = None
    end: float = 0.0
    probabilities: np.ndarray | None = None
    truth: np.ndarray | None = None
    error: str | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    @property
    def labels(self) -> tuple[int, ...]:
        """The true classes that occur."""
        if self.truth is None:
            return ()
        return tuple(int(label) for label in np.unique(self.truth) if label != UNLABELLED)

    @property
    def predicted(self) -> np.ndarray | None:
        """(K,) most probable classes."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=1)

    @property
    def edges(self) -> np.ndarray:
        """(K + 1,) seconds between which the labels hold."""
        if self.times is None:
            return np.zeros(1)
        return np.append(self.times, max(self.end, self.times[-1]))

    def segments(self) -> list[TimeSegment]:
        """What the model said, as segments; none if the video failed."""
        if self.probabilities is None or self.predicted is None:
            return []
        return segments_of(self.predicted, self.edges, self.probabilities)

    def true_segments(self) -> list[TimeSegment]:
        """The annotations at the sampled times, as segments."""
        return [] if self.truth is None else segments_of(self.truth, self.edges)


def exclude_background(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """The classes that do not count as segments: one that is called background."""
    return tuple(i for i, name in enumerate(class_names) if name.lower() == "background")


def frame_losses(result: FrameResult) -> np.ndarray:
    """Cross-entropy at each sampled time that has a true label; empty without any."""
    if result.probabilities is None or result.truth is None:
        return np.zeros(0)
    known = np.flatnonzero(result.truth != UNLABELLED)
    chosen = result.probabilities[known, result.truth[known]]
    return -np.log(np.maximum(chosen, np.finfo(np.float32).tiny))


def label_pairs(results: Iterable[FrameResult]) -> list[tuple[np.ndarray, np.ndarray]]:
    """True and predicted labels, (K,) each, of the videos that have both."""
    pairs = ((result.truth, result.predicted) for result in results)
    return [(truth, said) for truth, said in pairs if truth is not None and said is not None]


def plain_segments(segments: list[TimeSegment], class_names: tuple[str, ...]) -> list[Any]:
    """For JSON: [start, end, label] or [start, end, label, probability]."""
    rows = []
    for segment in segments:
        row: list[Any] = [round(segment.start, 3), round(segment.end, 3)]
        row.append(class_names[segment.label])
        if segment.probability is not None:
            row.append(round(segment.probability, 6))
        rows.append(row)
    return rows
