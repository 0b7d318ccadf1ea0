"""Figures of a detector on validation moments after each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kvideo.cluster import Cluster
from kvideo.data.clip_reader import ClipReader
from kvideo.data.failures import Failures
from kvideo.data.keyframes import Keyframe
from kvideo.data.proposals import Found
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.detection.detector import Detector
from kvideo.detection.metrics import Boxes, frame_scores
from kvideo.detection.results import VideoActors, action_boxes, actor_boxes
from kvideo.detection.running import detect
from kvideo.errors import DataError, DecodeError


class DetectorValidation:
    """Evaluates a detector on keyframes; call it after each epoch.

    Args:
        detector: whose weights change in between. Without a person head it is given the true boxes.
        videos: what `keyframes` gives.
        reader: reads clips.
        workers: decoding threads.
        failures: receives the videos that cannot be read.
        cluster: the processes that share out the videos; all get the same figures.
    """

    def __init__(
        self,
        detector: Detector,
        videos: VideoSet,
        reader: ClipReader,
        workers: int,
        failures: Failures,
        cluster: Cluster | None = None,
    ) -> None:
        self.detector, self.reader, self.workers = detector, reader, workers
        self.failures, self.cluster = failures, cluster or Cluster()
        self.class_names = videos.class_names
        self.by_video: dict[str, list[Keyframe]] = {}
        for record in videos.records:
            if isinstance(record, Keyframe):
                self.by_video.setdefault(str(record.group), []).append(record)

    def __call__(self) -> dict[str, float]:
        """`val_mAP` (frame-mAP at an IoU of 0.5) and, with a person head, `val_actor_AP`.

        Raises:
            DataError: none of the videos can be read.
        """
        names = list(self.by_video)
        own = list(self._found(names[self.cluster.index :: self.cluster.size]))
        rows = [video.to_json() for video in own]
        seen = [VideoActors.from_json(row) for part in self.cluster.gather(rows) for row in part]
        for video in seen:
            if video.error is not None:
                self.failures.add(DecodeError(video.path, "unreadable", video.error))
        read = {video.name for video in seen if video.moments}
        if not read:
            raise DataError(f"no validation video can be read. {self.failures.summary()}")
        truth = truth_of([k for name in sorted(read) for k in self.by_video[name]])
        said = action_boxes(seen)
        figures = {"val_mAP": frame_scores(truth[0], said, len(self.class_names)).mean}
        if self.detector.has_head:
            figures["val_actor_AP"] = frame_scores(truth[1], actor_boxes(seen), 1).mean
        return {name: value if np.isfinite(value) else 0.0 for name, value in figures.items()}

    def _found(self, names: Sequence[str]) -> Iterator[VideoActors]:
        videos = [
            (name, VideoRecord(self.by_video[name][0].path), [k.time for k in self.by_video[name]])
            for name in names
        ]
        boxes = None if self.detector.has_head else self._true_boxes
        return detect(self.detector, videos, self.reader, self.workers, boxes=boxes)

    def _true_boxes(self, path: str, name: str, times: np.ndarray) -> list[Found]:
        known = {k.time: k for k in self.by_video[name]}
        found: list[Found] = []
        for time in times.tolist():
            actors = known[time].actors
            found.append((np.array([a.box for a in actors]).reshape(-1, 4), np.ones(len(actors))))
        return found


def truth_of(moments: Sequence[Keyframe]) -> tuple[Boxes, Boxes]:
    """The true boxes of moments: a row for each action, and a row for each actor."""
    rows = [(k, actor, label) for k in moments for actor in k.actors for label in actor.labels]
    actors = [(k, actor, 0) for k in moments for actor in k.actors]
    return _boxes(rows), _boxes(actors)


def _boxes(rows: Sequence[tuple[Keyframe, Any, int]]) -> Boxes:
    return Boxes(
        np.array([k.group for k, _, _ in rows], str),
        np.array([k.time for k, _, _ in rows], np.float64),
        np.array([actor.box for _, actor, _ in rows], np.float64).reshape(-1, 4),
        np.array([label for _, _, label in rows], np.int64),
    )
