"""A model on files: labels, probabilities, and the probability over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.clip_spec import Views
from kvideo.data.annotations import VideoRecord, VideoSet
from kvideo.data.clip_reader import ClipReader
from kvideo.data.windows import iterate_blocks
from kvideo.errors import DecodeError
from kvideo.evaluation import score_with_members
from kvideo.inference import Predictor
from kvideo.members import fuse_scores, members_of
from kvideo.saving import model_info
from kvideo.segmentation.results import FrameResult, TimeSegment, plain_segments, segments_of
from kvideo.segmentation.scoring import is_per_frame, score_frames

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """Probabilities over time.

    Attributes:
        times: (N,) centres of the clips, seconds from the video's beginning; of a model with a
            label for each frame, the times at which the video is sampled.
        probabilities: (N, num_classes).
        edges: (N + 1,) seconds: what is said at time n holds from edge n to edge n + 1.
    """

    times: np.ndarray
    probabilities: np.ndarray
    edges: np.ndarray

    def segments(self) -> list[TimeSegment]:
        """Parts with the same most probable class, one after the other."""
        return segments_of(self.probabilities.argmax(axis=1), self.edges, self.probabilities)


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one file.

    Attributes:
        path: the file.
        class_names: in the order of the probabilities.
        probabilities: (num_classes,), averaged over the views; None if the file failed.
        timeline: if it was asked for; always, of a model with a label for each frame.
        error: a sentence, if the file failed.
    """

    path: str
    class_names: tuple[str, ...]
    probabilities: np.ndarray | None
    timeline: Timeline | None = None
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return None if self.probabilities is None else self.top(1)[0][0]

    @property
    def probability(self) -> float | None:
        """The most probable class's probability."""
        return None if self.probabilities is None else self.top(1)[0][1]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities, best first."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[index], float(self.probabilities[index])) for index in order]

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """Plain values, for JSON."""
        if self.probabilities is None:
            return {"path": self.path, "error": self.error}
        document: dict[str, Any] = {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": name, "probability": value} for name, value in self.top(count)],
        }
        if self.timeline is not None:
            document["timeline"] = [
                {
                    "time": round(float(time), 3),
                    "label": self.class_names[int(np.argmax(row))],
                    "probability": float(row.max()),
                    "probabilities": [round(float(value), 6) for value in row],
                }
                for time, row in zip(self.timeline.times, self.timeline.probabilities, strict=True)
            ]
            document["class_names"] = list(self.class_names)
            document["segments"] = plain_segments(self.timeline.segments(), self.class_names)
        return document


def predict_files(
    model: keras.Model,
    paths: Sequence[str],
    reader: ClipReader | Sequence[ClipReader],
    *,
    views: Views | Sequence[Views] | None = None,
    timeline_step: float | None = None,
    batch_size: int = 8,
    workers: int = 2,
) -> Iterator[Prediction]:
    """Labels files, one by one, in order. A file that fails gives a prediction with an error.

    Args:
        model: a classifier that carries its `ModelInfo`.
        paths: video files.
        reader: reads clips as the model takes them; of a late fusion one for each member.
        views: how many views a video has; by default what the model recommends. Of a late fusion
            one for each member.
        timeline_step: seconds between clips of a timeline; None for no timeline. With one, the
            probabilities are the mean over the timeline's clips. A model with a label for each
            frame always looks at the whole video, with the steps of its clips, and the
            probabilities are the mean over time.
        batch_size: most clips that are run at once.
        workers: decoding threads.
    """
    info = model_info(model)
    readers = [reader] if isinstance(reader, ClipReader) else reader
    records = tuple(VideoRecord(str(path)) for path in paths)
    if is_per_frame(model):
        predictor = Predictor(model, batch_size)
        blocks = iterate_blocks(records, readers[0], workers)
        for scored in score_frames(predictor, records, blocks):
            yield _over_time(scored, info.class_names)
        return
    if timeline_step is not None:
        predictors = [Predictor(member, batch_size) for member in members_of(model)]
        for record in records:
            yield _with_timeline(model, predictors, record, readers, timeline_step)
        return
    if views is None:
        views = [part.views for part in info.members or (info,)]
    videos = VideoSet(records, info.class_names, info.multi_label)
    results = score_with_members(
        model,
        videos,
        readers,
        [views] if isinstance(views, Views) else views,
        batch_size=batch_size,
        workers=workers,
    )
    for result in results:
        yield Prediction(result.path, info.class_names, result.probabilities, error=result.error)


def _over_time(result: FrameResult, class_names: tuple[str, ...]) -> Prediction:
    rows = result.probabilities
    if rows is None or result.times is None:
        return Prediction(result.path, class_names, None, error=result.error)
    timeline = Timeline(result.times, rows, result.edges)
    return Prediction(result.path, class_names, rows.mean(axis=0), timeline)


def _with_timeline(
    model: keras.Model,
    predictors: Sequence[Predictor],
    record: VideoRecord,
    readers: Sequence[ClipReader],
    step: float,
) -> Prediction:
    """Of a late fusion, the clips of all members have the same middles."""
    names = model_info(model).class_names
    try:
        longest = max(readers, key=lambda reader: reader.spec.span)
        times = longest.timeline(record, step)
        scores = [
            np.concatenate([predictor(block) for block in reader.clips_around(record, times)])
            for predictor, reader in zip(predictors, readers, strict=True)
        ]
        first, last, _ = longest.span(record)
    except DecodeError as error:
        return Prediction(record.path, names, None, error=error.detail)
    rows = fuse_scores(model, scores)
    # A clip speaks for the time that is nearer to its middle than to that of any other.
    edges = np.concatenate([[first], (times[1:] + times[:-1]) / 2, [last]])
    return Prediction(record.path, names, rows.mean(axis=0), Timeline(times, rows, edges))
