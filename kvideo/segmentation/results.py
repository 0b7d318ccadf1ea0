"""Results over time: of each video, and of an evaluation of labels for each frame. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kvideo import metrics
from kvideo.results import EvaluationResult, plain
from kvideo.scores import classes_of, refuse_nothing
from kvideo.segmentation import UNLABELLED, find_runs, segmentation_metrics
from kvideo.text import plural


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


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentationResult(EvaluationResult):
    """How a model with a label for each frame did on a data set. Made by `summarize_frames`.

    As `EvaluationResult`, but what counts are frames, as many as the model samples:

    Args:
        class_names: C names.
        multi_label: False.
        videos: all of them, in the data's order, failed ones too.
        metrics: `frame_accuracy` and `mean_class_accuracy` in 0..1; `edit`, `f1@10`, `f1@25` and
            `f1@50` in 0..100, a class called background left out; `num_videos`, `num_failed` and
            `num_frames`.
        intervals: empty: frames of one video are anything but independent.
        classes: one entry per class, of frames.
        confusion: (C, C) frames, row = truth.
        details: how the figures were made, plain values.
    """

    videos: tuple[FrameResult, ...]  # type: ignore[assignment]
    unit: ClassVar[str] = "frame"

    @property
    def headline(self) -> str:
        """One line, such as `"frame accuracy 0.871, edit 80.2, F1@25 78.9 (16 videos)"`."""
        figures = self.metrics
        return (
            f"frame accuracy {figures['frame_accuracy']:.3f}, edit {figures['edit']:.1f}, "
            f"F1@25 {figures['f1@25']:.1f} ({plural(int(figures['num_videos']), 'video')})"
        )

    def worst(self, n: int) -> tuple[Any, ...]:
        """Empty: mistakes are parts of videos, see `worst_videos`."""
        return ()

    def worst_videos(self, n: int | None = None) -> list[tuple[FrameResult, dict[str, float]]]:
        """The videos with the lowest frame accuracy, and their figures, lowest first."""
        scored = [(video, self.figures_of(video)) for video in self.videos if video.error is None]
        return sorted(scored, key=lambda pair: pair[1]["frame_accuracy"])[:n]

    def figures_of(self, video: FrameResult) -> dict[str, float]:
        """`frame_accuracy`, `edit`, `f1@10` … of one video."""
        return segmentation_metrics(
            label_pairs([video]), exclude=exclude_background(self.class_names)
        )

    def _video_json(self, video: Any) -> dict[str, Any]:
        values: dict[str, Any] = {"path": video.path}
        if video.probabilities is None:
            return {**values, "reason": video.reason, "error": video.error}
        figures = {name: round(value, 4) for name, value in self.figures_of(video).items()}
        return {
            **values,
            "seconds": round(video.end, 3),
            **figures,
            "truth": plain_segments(video.true_segments(), self.class_names),
            "predicted": plain_segments(video.segments(), self.class_names),
        }


def summarize_frames(
    videos: Sequence[FrameResult],
    class_names: Sequence[str],
    *,
    details: Mapping[str, Any] | None = None,
) -> SegmentationResult:
    """All the figures for the results of single videos with a label for each frame.

    Args:
        videos: the results, in the data's order; those that failed count in no figure.
        class_names: C names; segments of a class called background do not count.
        details: how the figures were made; `describe_run` collects that.

    Raises:
        DataError: no videos, or all of them failed; the message says why.
    """
    names = tuple(class_names)
    scored = [video for video in videos if video.probabilities is not None]
    refuse_nothing(videos, scored)
    pairs = label_pairs(scored)
    truth = np.concatenate([known for known, _ in pairs])
    said = np.concatenate([found for _, found in pairs])[truth != UNLABELLED]
    truth = truth[truth != UNLABELLED]
    confusion = metrics.confusion_matrix(said, truth, len(names))
    classes = classes_of(confusion, names)
    figures: dict[str, float | int] = {
        **segmentation_metrics(pairs, exclude=exclude_background(names))
    }
    present = [c.recall for c in classes if c.support]
    figures["mean_class_accuracy"] = float(np.mean(present))
    figures |= {"num_videos": len(scored), "num_failed": len(videos) - len(scored)}
    figures["num_frames"] = len(truth)
    facts = plain(dict(details or {}))
    return SegmentationResult(names, False, tuple(videos), figures, {}, classes, confusion, facts)
