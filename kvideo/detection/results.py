"""What a detector says of videos: actors at moments, and tubes. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kvideo.detection.metrics import Boxes, Floats
from kvideo.detection.tubes import LabelledTube, LinkSettings, Tube, link

_WHOLE_STEP = 1.01
_LEAST = 0.001  # scores of actions below are not written


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """Who is seen at one moment of a video; N actors, C classes.

    Attributes:
        time: seconds.
        boxes: (N, 4) x1, y1, x2, y2 as fractions of the picture's width and height.
        scores: (N,) how sure it is that somebody is there.
        actions: (N, C) probabilities of each action.
    """

    time: float
    boxes: Floats
    scores: Floats
    actions: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class VideoActors:
    """What is seen in one video.

    Attributes:
        path: the file.
        name: the video's, in annotations.
        duration: seconds.
        moments: by time.
        error: a sentence, if the video could not be read.
    """

    path: str
    name: str
    duration: float = 0.0
    moments: tuple[Moment, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        moments = [
            [moment.time, moment.boxes.tolist(), moment.scores.tolist(), moment.actions.tolist()]
            for moment in self.moments
        ]
        return {**vars(self), "moments": moments}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> VideoActors:
        """The inverse of `to_json`."""
        moments = tuple(
            Moment(time, np.array(boxes).reshape(-1, 4), np.array(scores), np.array(actions))
            for time, boxes, scores, actions in values["moments"]
        )
        return cls(**{**values, "moments": moments})

    def tubes(self, settings: LinkSettings | None = None) -> list[Tube]:
        """Its actors over time, the surest first; see `link`."""
        return link(
            np.array([moment.time for moment in self.moments]),
            [moment.boxes for moment in self.moments],
            [moment.scores for moment in self.moments],
            [moment.actions for moment in self.moments],
            settings,
        )


def action_boxes(videos: Iterable[VideoActors]) -> Boxes:
    """A row for each action of each actor, its score that of the actor times the action's."""
    names, times, boxes, labels, scores = [], [], [], [], []
    for video in videos:
        for moment in video.moments:
            joint = moment.scores[:, None] * moment.actions
            rows, classes = np.nonzero(joint >= _LEAST)
            names += [video.name] * len(rows)
            times += [moment.time] * len(rows)
            boxes.append(moment.boxes[rows])
            labels.append(classes)
            scores.append(joint[rows, classes])
    return Boxes(
        np.array(names, str),
        np.array(times, np.float64),
        np.concatenate(boxes or [np.zeros((0, 4))]),
        np.concatenate(labels or [np.zeros(0, np.int64)]),
        np.concatenate(scores or [np.zeros(0)]),
    )


def actor_boxes(videos: Iterable[VideoActors]) -> Boxes:
    """A row for each actor, all of one class."""
    rows = [
        (video.name, moment.time, box, score)
        for video in videos
        for moment in video.moments
        for box, score in zip(moment.boxes, moment.scores, strict=True)
    ]
    return Boxes(
        np.array([row[0] for row in rows], str),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.zeros(len(rows), np.int64),
        np.array([row[3] for row in rows], np.float64),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ActionSpan:
    """A part of a tube in which one action goes on.

    Attributes:
        label: class index.
        start: seconds.
        end: seconds.
        probability: of the action, its mean over the part.
        score: the same times the tube's.
    """

    label: int
    start: float
    end: float
    probability: float
    score: float


def extent(video: VideoActors, tube: Tube, step: float) -> tuple[float, float]:
    """From when until when a tube is there, seconds.

    Each moment stands for half a step on either side; the first and the last one that were looked
    at for all that is before and after, if that is no more than a step.
    """
    start, end = float(tube.times[0]) - step / 2, float(tube.times[-1]) + step / 2
    if tube.times[0] == video.moments[0].time <= step:
        start = 0.0
    last = video.moments[-1].time
    if tube.times[-1] == last and last <= video.duration <= last + step * _WHOLE_STEP:
        end = video.duration
    return max(0.0, start), end


def action_spans(
    tube: Tube,
    threshold: float,
    step: float,
    *,
    until: float | None = None,
    unlikely: bool = False,
) -> list[ActionSpan]:
    """When an actor does what: for each class the runs of moments at which it is likely.

    Args:
        tube: with actions.
        threshold: least probability of an action.
        step: seconds from one moment to the next; a moment stands for half of it on either side.
        until: when the tube ends, see `extent`.
        unlikely: whether a class that is nowhere so probable has parts as well: where it is at
            least half as probable as at its best moment.
    """
    spans: list[ActionSpan] = []
    if tube.actions is None:
        return spans
    for label, row in enumerate(tube.actions.T):
        least = threshold
        if unlikely:
            least = max(_LEAST, min(threshold, float(row.max()) / 2))
        on = np.concatenate([[False], row >= least, [False]])
        changes = np.flatnonzero(on[1:] != on[:-1]).reshape(-1, 2)
        for first, last in changes:
            start = max(0.0, float(tube.times[first]) - step / 2)
            end = float(tube.times[last - 1]) + step / 2
            if until is not None and last == len(row):
                end = until
            probability = float(row[first:last].mean())
            spans.append(ActionSpan(label, start, end, probability, probability * tube.score))
    return sorted(spans, key=lambda span: (span.start, -span.score))


def labelled_tubes(
    name: str, tubes: Sequence[Tube], threshold: float, step: float
) -> list[LabelledTube]:
    """A tube for each span of each action, also of unlikely ones, for video-mAP."""
    found = []
    for tube in tubes:
        for span in action_spans(tube, threshold, step, unlikely=True):
            inside = (tube.times >= span.start) & (tube.times <= span.end)
            found.append(
                LabelledTube(name, tube.times[inside], tube.boxes[inside], span.label, span.score)
            )
    return found


def tubes_json(
    video: VideoActors, tubes: Sequence[Tube], class_names: Sequence[str], threshold: float,
    step: float,
) -> dict[str, Any]:  # fmt: skip
    """The tubes of a video as plain values."""
    return {
        "video": video.name,
        "path": video.path,
        "duration": video.duration,
        "error": video.error,
        "tubes": [_tube_json(video, tube, class_names, threshold, step) for tube in tubes],
    }


def _tube_json(
    video: VideoActors, tube: Tube, class_names: Sequence[str], threshold: float, step: float
) -> dict[str, Any]:
    start, end = extent(video, tube, step)
    return {
        "start": start,
        "end": end,
        "score": tube.score,
        "times": tube.times.tolist(),
        "boxes": tube.boxes.tolist(),
        "actions": [
            {**vars(span), "label": class_names[span.label]}
            for span in action_spans(tube, threshold, step, until=end)
        ],
    }
