"""The results of an evaluation: of each video, of each class, and of all together.

`kvideo.scores.summarize` makes them, `kvideo.report` shows them to people, and
`EvaluationResult.save` writes them for programs. NumPy only.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from kvideo.errors import DecodeError
from kvideo.files import write_text_atomic
from kvideo.text import plural

FORMAT = 1  # of evaluation.json
_TOP = 5


@dataclasses.dataclass(frozen=True, eq=False)
class VideoResult:
    """What the model said of one video, or why it could not.

    Args:
        path: as in the annotations.
        labels: the true class indices; one, or several or none for a multi-label set.
        probabilities: (C,), averaged over the views; None if the video failed.
        error: a sentence, if it failed.
        reason: one word for counting the failures (`DecodeError.REASONS`, `"not_finite"`).
        start: seconds, where the record is a part of the video.
        end: seconds, likewise.
    """

    path: str
    labels: tuple[int, ...]
    probabilities: np.ndarray | None
    error: str | None = None
    reason: str | None = None
    start: float | None = None
    end: float | None = None

    @classmethod
    def failed(
        cls,
        path: str,
        labels: Sequence[int],
        error: Exception,
        *,
        start: float | None = None,
        end: float | None = None,
    ) -> VideoResult:
        """The result of a video that gave none."""
        if isinstance(error, DecodeError):
            reason, sentence = error.reason, error.detail
        else:
            reason, sentence = type(error).__name__, str(error)
        return cls(path, tuple(labels), None, sentence, reason, start, end)

    @property
    def predicted(self) -> int | None:
        """The most probable class; None if the video failed."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def name(self) -> str:
        """The path, with the times where the record is a part of the video."""
        if self.start is None and self.end is None:
            return self.path
        end = "" if self.end is None else f"{self.end:g}"
        return f"{self.path} [{self.start or 0:g}–{end} s]"


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """The figures of one class; NaN where one is not defined (nothing to divide by).

    Args:
        index: into the class names.
        name: of the class.
        support: videos that have the label.
        predicted: videos that were said to have it (multi-label: with a probability >= 0.5).
        right: videos of which both are true.
        precision: right / predicted.
        recall: right / support.
        average_precision: area under the precision-recall curve; multi-label only.
        taken_for: (other class index, videos), most frequent first, at most three; one label only.
    """

    index: int
    name: str
    support: int
    predicted: int
    right: int
    precision: float
    recall: float
    average_precision: float | None = None
    taken_for: tuple[tuple[int, int], ...] = ()

    @property
    def score(self) -> float:
        """What classes are ranked by: average precision, or recall where a video has one label."""
        return self.recall if self.average_precision is None else self.average_precision


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A video whose most probable class is not among its labels.

    Args:
        video: the result.
        predicted: the most probable class.
        probability: of that class.
        truth: the true class; of several, the most probable.
        truth_probability: of that class.
    """

    video: VideoResult
    predicted: int
    probability: float
    truth: int
    truth_probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationResult:
    """How a model did on a data set. Made by `summarize`.

    Args:
        class_names: C names.
        multi_label: whether videos may have several labels.
        videos: all of them, in the data's order, failed ones too.
        metrics: by name: `top1`, `top5` (only with more than five classes) and
            `mean_class_accuracy`; or, multi-label, `mAP`, `hit1` and `hit5`; always `num_videos`
            (that count in the figures), `num_failed` (that do not), and `views` per video if known.
        intervals: by metric: the bounds of its 95 % confidence interval (Wilson).
        classes: one entry per class.
        confusion: (C, C) int64, row = truth; None for multi-label.
        details: how the figures were made (see `describe_run`), plain values.
    """

    class_names: tuple[str, ...]
    multi_label: bool
    videos: tuple[VideoResult, ...]
    metrics: dict[str, float | int]
    intervals: dict[str, tuple[float, float]]
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray | None
    details: dict[str, Any]

    unit: ClassVar[str] = "video"  # what the matrix and the classes count

    @property
    def failures(self) -> dict[str, tuple[VideoResult, ...]]:
        """Videos without a result by reason, the most frequent reason first."""
        by_reason: dict[str, list[VideoResult]] = {}
        for video in self.videos:
            if video.probabilities is None:
                by_reason.setdefault(video.reason or "failed", []).append(video)
        ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
        return {reason: tuple(videos) for reason, videos in ordered}

    @property
    def headline(self) -> str:
        """One line, such as `"top-1 0.774 (0.602–0.886, 31 videos)"`."""
        name = "mAP" if self.multi_label else "top1"
        videos = plural(int(self.metrics["num_videos"]), "video")
        label = "mAP" if self.multi_label else "top-1"
        if name not in self.intervals:
            return f"{label} {self.metrics[name]:.3f} ({videos})"
        low, high = self.intervals[name]
        return f"{label} {self.metrics[name]:.3f} ({low:.3f}–{high:.3f}, {videos})"

    @property
    def baseline(self) -> float | None:
        """What always saying the most frequent class would give; None for multi-label."""
        if self.confusion is None:
            return None
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())

    def worst(self, n: int) -> tuple[Mistake, ...]:
        """The n worst mistakes: those of which the model was surest.

        A video is a mistake if its most probable class is not among its labels. They come by the
        probability of that wrong class, highest first; of equal ones by the probability of the
        truth, lowest first. Videos without a label are no mistakes.
        """
        mistakes = []
        for video in self.videos:
            if video.probabilities is None or not video.labels or video.predicted in video.labels:
                continue
            p, said = video.probabilities, int(np.argmax(video.probabilities))
            truth = max(video.labels, key=lambda label: float(p[label]))
            mistakes.append(Mistake(video, said, float(p[said]), truth, float(p[truth])))
        mistakes.sort(key=lambda m: (-m.probability, m.truth_probability))
        return tuple(mistakes[:n])

    def worst_classes(self, n: int | None = None) -> tuple[ClassResult, ...]:
        """Classes by recall (multi-label: average precision), lowest first.

        Of equal ones that with more videos comes first. Classes without a video are left out.
        """
        present = [c for c in self.classes if c.support]
        return tuple(sorted(present, key=lambda c: (c.score, -c.support))[:n])

    def confusions(self, n: int) -> tuple[tuple[int, int, int], ...]:
        """The n most frequent confusions: (true class, predicted class, videos)."""
        if self.confusion is None:
            return ()
        wrong = self.confusion * ~np.eye(len(self.confusion), dtype=bool)
        order = np.argsort(-wrong, axis=None, kind="stable")[:n]
        pairs = (divmod(int(flat), len(wrong)) for flat in order)
        return tuple((t, p, int(wrong[t, p])) for t, p in pairs if wrong[t, p])

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: the document `evaluation.json`.

        `format` rises when the meaning of something changes. Classes are given by name;
        probabilities have six decimals, and a video lists its five most probable classes. What is
        not defined is null.
        """
        document = {
            "format": FORMAT,
            "multi_label": self.multi_label,
            "metrics": self.metrics,
            "intervals": self.intervals,
            "details": self.details,
            "class_names": self.class_names,
            "classes": [self._class_json(result) for result in self.classes],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "failures": [
                {"path": video.path, "reason": reason, "error": video.error}
                for reason, videos in self.failures.items()
                for video in videos
            ],
            "videos": [self._video_json(video) for video in self.videos],
        }
        return plain(document)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json()` to a file, one video, class or row of the matrix per line.

        Raises:
            KVideoError: it cannot be written.
        """
        write_text_atomic(path, json_text(self.to_json()))

    def _class_json(self, result: ClassResult) -> dict[str, Any]:
        values = dataclasses.asdict(result)
        values["taken_for"] = [[self.class_names[c], n] for c, n in result.taken_for]
        if self.multi_label:
            del values["taken_for"]
        else:
            del values["average_precision"]
        return values

    def _video_json(self, video: VideoResult) -> dict[str, Any]:
        values: dict[str, Any] = {"path": video.path}
        if video.start is not None or video.end is not None:
            values |= {"start": video.start, "end": video.end}
        values["labels"] = [self.class_names[label] for label in video.labels]
        if video.probabilities is None:
            return {**values, "reason": video.reason, "error": video.error}
        p = video.probabilities
        top = np.argsort(-p, kind="stable")[:_TOP]
        values["predicted"] = self.class_names[top[0]]
        values["top"] = [[self.class_names[c], round(float(p[c]), 6)] for c in top]
        values["label_probabilities"] = [round(float(p[label]), 6) for label in video.labels]
        return values


def plain(value: Any) -> Any:
    """The value in what JSON knows: dict, list, str, int, float, bool, None (also for NaN)."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def json_text(document: Mapping[str, Any]) -> str:
    """JSON with one item per line of each list of lists or objects, so that `grep` finds it."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    entries = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], (list, dict)):
            lines = ",\n  ".join(text(item) for item in value)
            entries.append(f"{text(key)}: [\n  {lines}\n ]")
        else:
            entries.append(f"{text(key)}: {text(value)}")
    return "{\n " + ",\n ".join(entries) + "\n}\n"
