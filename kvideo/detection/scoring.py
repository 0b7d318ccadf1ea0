"""How well actors and their actions are found: frame-mAP, actor AP, video-mAP. NumPy only."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvideo.data.actors import Actor, ActorSet
from kvideo.detection.metrics import Boxes, Floats, FrameScores, frame_scores
from kvideo.detection.results import VideoActors, actor_boxes, labelled_tubes
from kvideo.detection.tubes import TUBE_IOUS, LabelledTube, LinkSettings, video_scores
from kvideo.text import plural

_TUBE_NAMES = ("0.2", "0.5", "0.5:0.95")


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionResult:
    """What a test of a detector gave.

    Attributes:
        class_names: C names.
        frames: average precisions of the classes at an IoU of 0.5.
        actor_ap: average precision of the boxes alone; NaN where there are no scores of actors.
        videos: average precisions (C,) of tubes, by the name of the overlap; empty where the truth
            names no persons.
        found: what was seen in each video; empty for results that came from a file.
        num_moments: annotated moments that count.
        details: how it was made.
    """

    class_names: tuple[str, ...]
    frames: FrameScores
    actor_ap: float
    videos: dict[str, Floats]
    found: tuple[VideoActors, ...]
    num_moments: int
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """`frame_map@0.5`, `actor_ap@0.5`, `video_map@…`."""
        values = {"frame_map@0.5": self.frames.mean, "actor_ap@0.5": self.actor_ap}
        for name, each in self.videos.items():
            known = each[~np.isnan(each)]
            values[f"video_map@{name}"] = float(known.mean()) if len(known) else float("nan")
        return {name: value for name, value in values.items() if not np.isnan(value)}

    @property
    def failures(self) -> list[VideoActors]:
        """The videos that could not be read."""
        return [video for video in self.found if video.error is not None]

    @property
    def headline(self) -> str:
        """The main figure in words."""
        videos = f" of {plural(len(self.found), 'video')}" if self.found else ""
        return (
            f"frame-mAP at an IoU of 0.5: {self.frames.mean:.3f} "
            f"({plural(self.num_moments, 'moment')}{videos})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `evaluation.json`."""

        def by_class(values: Floats) -> dict[str, float | None]:
            pairs = zip(self.class_names, values.tolist(), strict=True)
            return {name: None if np.isnan(value) else value for name, value in pairs}

        return {
            **self.details,
            "metrics": self.metrics,
            "moments": self.num_moments,
            "classes": by_class(self.frames.average_precisions),
            "video_classes": {name: by_class(each) for name, each in self.videos.items()},
            "failures": [{"path": v.path, "error": v.error} for v in self.failures],
        }


def score_detections(
    truth: ActorSet,
    said: Boxes,
    found: Sequence[VideoActors] = (),
    *,
    tubes: LinkSettings | None = None,
    threshold: float = 0.3,
    details: dict[str, Any] | None = None,
) -> DetectionResult:
    """Compares what was said with the truth.

    Args:
        truth: what is annotated.
        said: labelled boxes with scores.
        found: what `said` was made of, for actors and tubes.
        tubes: how boxes are linked.
        threshold: least probability of an action in a tube.
        details: for the result.
    """
    names = truth.class_names
    empty = [frame for frame, actors in truth.frames.items() if not actors]
    score = functools.partial(frame_scores, empty=empty, excluded=truth.excluded)
    frames = score(Boxes(*truth.columns()), said, len(names))
    actor_ap, videos = float("nan"), {}
    if found:
        actor_ap = score(_actors(truth), actor_boxes(found), 1).mean
        step = moment_step(truth)
        if (known := true_tubes(truth, step)) is not None:
            lines = [
                tube
                for video in found
                for tube in labelled_tubes(video.name, video.tubes(tubes), threshold, step)
            ]
            for name, iou in zip(_TUBE_NAMES, TUBE_IOUS, strict=True):
                videos[name] = video_scores(known, lines, len(names), iou)
    counted = sum(frame not in truth.excluded for frame in truth.frames)
    return DetectionResult(
        names, frames, actor_ap, videos, tuple(found), counted, dict(details or {})
    )


def _actors(truth: ActorSet) -> Boxes:
    rows = [(v, t, actor.box) for (v, t), actors in truth.frames.items() for actor in actors]
    return Boxes(
        np.array([row[0] for row in rows], str),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.zeros(len(rows), np.int64),
    )


def moment_step(truth: ActorSet) -> float:
    """Seconds from one annotated moment of a video to the next, the median; 1 if there is none."""
    times: dict[str, list[float]] = {}
    for video, time in sorted(truth.frames):
        times.setdefault(video, []).append(time)
    gaps = [gap for own in times.values() for gap in np.diff(own).tolist()]
    return float(np.median(gaps)) if gaps else 1.0


def true_tubes(truth: ActorSet, step: float) -> list[LabelledTube] | None:
    """A tube for each run of moments at which one person does one thing.

    Returns:
        The tubes; None if an actor is no known person.
    """
    lines: dict[tuple[str, str, int], list[tuple[float, Actor]]] = {}
    for (video, time), actors in truth.frames.items():
        for actor in actors:
            if not actor.person:
                return None
            for label in actor.labels:
                lines.setdefault((video, actor.person, label), []).append((time, actor))
    tubes = []
    for (video, _, label), rows in lines.items():
        rows.sort(key=lambda row: row[0])
        times = np.array([time for time, _ in rows])
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(times) > 1.5 * step) + 1):
            boxes = np.array([rows[i][1].box for i in part])
            tubes.append(LabelledTube(video, times[part], boxes, label))
    return tubes
