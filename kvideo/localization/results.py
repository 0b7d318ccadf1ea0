"""What was found in videos, and how good it is. NumPy only."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvideo import __version__
from kvideo.data.entries import short
from kvideo.data.tracks import Segment
from kvideo.data.untrimmed import UntrimmedSet, UntrimmedVideo
from kvideo.errors import DataError
from kvideo.localization.metrics import (
    DetectionScores,
    RecallCurve,
    Segments,
    average_recall,
    detection_scores,
)
from kvideo.results import plain
from kvideo.text import plural

AVERAGE_NUMBERS = (1, 5, 10, 50, 100)  # of proposals, for AR@AN


@dataclasses.dataclass(frozen=True)
class FoundSegment:
    """Something that a model has found.

    Attributes:
        start: seconds.
        end: seconds.
        label: the class's name.
        score: 0 to 1.
    """

    start: float
    end: float
    label: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Localization:
    """What a model has found in one video.

    Attributes:
        path: the file.
        name: as annotations call it.
        duration: seconds; NaN if the video failed.
        segments: by falling score.
        proposals: (P, 3) start, end, score; none of a model without proposals.
        error: a sentence, if it failed.
    """

    path: str
    name: str
    duration: float = float("nan")
    segments: tuple[FoundSegment, ...] = ()
    proposals: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))
    error: str | None = None

    def above(self, score: float) -> tuple[FoundSegment, ...]:
        """The segments with at least that score, in the order of time."""
        kept = [segment for segment in self.segments if segment.score >= score]
        return tuple(sorted(kept, key=lambda segment: (segment.start, segment.end)))

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        rows = [plain_segment(segment) for segment in self.segments]
        return {"path": self.path, "duration": round(self.duration, 3), "segments": rows}


def plain_segment(segment: FoundSegment) -> dict[str, Any]:
    """As ActivityNet's results have it."""
    return {
        "label": segment.label,
        "score": round(segment.score, 6),
        "segment": [round(segment.start, 3), round(segment.end, 3)],
    }


def results_document(localizations: Sequence[Localization]) -> dict[str, Any]:
    """ActivityNet's form of results: what its evaluation reads. Videos that failed are left out."""
    results = {
        each.name: [plain_segment(segment) for segment in each.segments]
        for each in localizations
        if each.error is None
    }
    return {"version": f"kvideo {__version__}", "results": results, "external_data": {}}


def read_results(path: str | os.PathLike[str]) -> list[Localization]:
    """The segments in a file of ActivityNet's form of results.

    Raises:
        DataError: it is none; the sentence says what is wrong with which video.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}.") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}).") from error
    videos = document.get("results") if isinstance(document, dict) else None
    if not isinstance(videos, dict):
        raise DataError(f"{path} is no file of results: it has no object `results`.")
    found = []
    for name, rows in videos.items():
        if not isinstance(rows, list):
            raise DataError(f"{path}, video {name}: there is no list of segments.")
        segments = tuple(_read_segment(row, f"{path}, video {name}") for row in rows)
        found.append(Localization("", str(name), segments=segments))
    return found


def _read_segment(row: Any, where: str) -> FoundSegment:
    try:
        start, end = (float(time) for time in row["segment"])
        return FoundSegment(start, end, str(row["label"]), float(row["score"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: a segment needs `label`, `score` and `segment` ([start, end] in seconds), "
            f"found {short(json.dumps(row))}."
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class LocalizationResult:
    """How well the segments of a data set were found.

    Attributes:
        class_names: the classes that the truth has, sorted.
        num_videos: that the truth names.
        num_segments: of the truth.
        scores: average precisions at the overlaps.
        recall: of the proposals, over ActivityNet's overlaps (0.5 to 0.95) whatever the others are;
            None without any.
        localizations: of each video, in the data's order, failed ones too.
        truth: what was compared with.
        details: how the figures were made, plain values.
    """

    class_names: tuple[str, ...]
    num_videos: int
    num_segments: int
    scores: DetectionScores
    recall: RecallCurve | None
    localizations: tuple[Localization, ...]
    truth: UntrimmedSet
    details: dict[str, Any]

    @property
    def failures(self) -> tuple[Localization, ...]:
        """The videos that could not be read."""
        return tuple(each for each in self.localizations if each.error is not None)

    @property
    def metrics(self) -> dict[str, float]:
        """`map@0.50` … for each overlap, `average_map`, and `ar@10` … of the proposals."""
        values = {
            f"map@{tiou:.2f}": float(value)
            for tiou, value in zip(self.scores.tious, self.scores.mean, strict=True)
        }
        values["average_map"] = self.scores.average
        if self.recall is not None:
            values |= {f"ar@{number}": self.recall.at(number) for number in AVERAGE_NUMBERS}
            values["auc"] = self.recall.area
        return values

    @property
    def headline(self) -> str:
        """One line, such as `"mAP@0.5 0.412 (16 videos, 56 segments)"`."""
        shown = [
            f"mAP@{tiou:g} {value:.3f}"
            for tiou, value in zip(self.scores.tious, self.scores.mean, strict=True)
        ]
        if len(shown) > 5:
            shown = [shown[0], shown[len(shown) // 2], shown[-1]]
        return (
            f"{', '.join(shown)}; average {self.scores.average:.3f} "
            f"({plural(self.num_videos, 'video')}, {plural(self.num_segments, 'segment')})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON: the document `evaluation.json`."""
        classes = [
            {"class": name, "average_precisions": row}
            for name, row in zip(
                self.class_names, self.scores.average_precisions.T.tolist(), strict=True
            )
        ]
        failed = [{"path": each.path, "error": each.error} for each in self.failures]
        return plain(
            {
                "metrics": self.metrics,
                "tious": [round(tiou, 6) for tiou in self.scores.tious],
                "num_videos": self.num_videos,
                "num_segments": self.num_segments,
                "details": self.details,
                "classes": classes,
                "failures": failed,
            }
        )


def summarize_localizations(
    truth: UntrimmedSet,
    localizations: Sequence[Localization],
    tious: Sequence[float],
    *,
    details: Mapping[str, Any] | None = None,
) -> LocalizationResult:
    """All the figures.

    Args:
        truth: the true segments. A video that failed counts as one in which nothing was found.
        localizations: what was found; of videos that the truth does not name it counts as false.
        tious: overlaps from which on a segment counts as found.
        details: how the figures were made.

    Raises:
        DataError: there is no true segment, or one goes to the end of a video of which nobody
            knows how long it is.
    """
    names = truth.class_names
    durations = {each.name: each.duration for each in localizations if each.error is None}
    rows = [
        (video.name, segment.start, _end(segment, video, durations), names[segment.label])
        for video in truth.videos
        for segment in video.segments
    ]
    if not rows:
        raise DataError(f"{truth.source} has no segment to compare with.")
    true = Segments(*_columns(rows))
    said = [
        (each.name, segment.start, segment.end, segment.label, segment.score)
        for each in localizations
        for segment in each.segments
    ]
    proposals = [(each.name, *row) for each in localizations for row in each.proposals.tolist()]
    recall = None
    if proposals:
        videos, starts, ends, chances = _columns(proposals)
        offered = Segments(videos, starts, ends, scores=chances)
        recall = average_recall(true, offered, most=float(max(AVERAGE_NUMBERS)))
    scores = detection_scores(true, Segments(*_columns(said, 5)), tious)
    facts = plain(dict(details or {}))
    return LocalizationResult(
        tuple(map(str, scores.classes)), len(truth), len(rows), scores, recall,
        tuple(localizations), truth, facts,
    )  # fmt: skip


def _end(segment: Segment, video: UntrimmedVideo, durations: Mapping[str, float]) -> float:
    """The segment's end; of one that goes to the video's end, that."""
    if math.isfinite(segment.end):
        return segment.end
    duration = durations.get(video.name, float("nan"))
    if not math.isfinite(duration):
        duration = video.duration if video.duration is not None else duration
    if not math.isfinite(duration):
        raise DataError(
            f"a segment of {video.name} goes to the end of the video, but how long that is is not "
            "known; give it an end."
        )
    return max(duration, segment.start)


def _columns(rows: Sequence[tuple], count: int = 0) -> list[np.ndarray]:
    if not rows:
        return [np.zeros(0, str if place in (0, 3) else float) for place in range(count)]
    return [np.array(column) for column in zip(*rows, strict=True)]
