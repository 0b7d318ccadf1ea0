"""A video with actors' boxes, names and scores drawn in."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvideo.data.encoding import write_drawn_film
from kvideo.detection.metrics import Floats
from kvideo.detection.results import VideoActors, action_spans, extent
from kvideo.detection.tubes import Tube
from kvideo.report.drawing import Colour, draw_box, draw_label, rgb
from kvideo.report.plots import drawable
from kvideo.report.timeline_plot import class_colours

_SHORTEST_SIDE = 360  # pixels; smaller pictures are enlarged, or no label would be readable
_TEXT = 0.035  # of the picture's height
_LINE = 0.006
_MOST_LABELS = 3
_COLOURS = 12  # of actors, then they repeat


class _Shown:
    """A tube as it is drawn."""

    def __init__(
        self,
        found: VideoActors,
        tube: Tube,
        number: int,
        class_names: Sequence[str],
        threshold: float,
        step: float,
    ) -> None:
        colours = class_colours([str(each) for each in range(_COLOURS)])
        self.colour: Colour = rgb(colours[number % _COLOURS])
        self.first, self.last = extent(found, tube, step)
        if self.last == found.duration:  # the last frame is shown, too
            self.last = math.inf
        self.tube, self._names = tube, class_names
        self._spans = action_spans(tube, threshold, step, until=self.last)

    def box(self, seconds: float) -> Floats:
        """Where the actor is: between two moments, in between."""
        return np.array([np.interp(seconds, self.tube.times, s) for s in self.tube.boxes.T])

    def labels(self, seconds: float) -> list[str]:
        """What the actor is doing, the surest first."""
        now = [span for span in self._spans if span.start <= seconds < span.end]
        nearest = int(np.abs(self.tube.times - seconds).argmin())
        actions = self.tube.actions
        scored = [
            (0.0 if actions is None else float(actions[nearest, span.label]), span.label)
            for span in now
        ]
        best = sorted(scored, reverse=True)[:_MOST_LABELS]
        return [f"{drawable(self._names[c], c, limit=40)}  {score:.0%}" for score, c in best]


def write_actors_video(
    path: str | os.PathLike[str],
    video: VideoActors,
    tubes: Sequence[Tube],
    class_names: Sequence[str],
    *,
    threshold: float,
    step: float,
    open_video: Callable[..., Any],
) -> None:
    """Writes a video anew, H.264 in MP4 without sound, with boxes and what their actors do.

    Frames pass one by one.

    Args:
        path: ends in `.mp4`.
        video: what was seen in it.
        tubes: the actors.
        class_names: all classes.
        threshold: least probability of an action that is named.
        step: seconds from one moment of a tube to the next.
        open_video: a decoder.

    Raises:
        UsageError: another ending, or the video itself.
        DecodeError: the video gives no frames.
        KVideoError: it cannot be written.
    """
    shown = [_Shown(video, tube, i, class_names, threshold, step) for i, tube in enumerate(tubes)]

    def draw(frame: np.ndarray, seconds: float) -> None:
        _draw(frame, [s for s in shown if s.first <= seconds < s.last], seconds)

    write_drawn_film(
        path, video.path, open_video, lambda size, duration: draw, shortest_side=_SHORTEST_SIDE
    )


def _draw(frame: np.ndarray, shown: Sequence[_Shown], seconds: float) -> None:
    """Boxes, and labels over all of them."""
    height, width = frame.shape[:2]
    letters = max(11, round(height * _TEXT))
    room = round(1.45 * letters)
    corners = [
        np.round(each.box(seconds) * np.array([width, height, width, height])).astype(int).tolist()
        for each in shown
    ]
    for each, box in zip(shown, corners, strict=True):
        draw_box(frame, tuple(box), each.colour, max(2, round(height * _LINE)))
    for each, (left, top, _, _) in zip(shown, corners, strict=True):
        labels = each.labels(seconds)
        # Above the box, or inside of it where there is no room.
        place = top - room * len(labels)
        place = place if place >= 0 else max(0, top + 1)
        for text in labels:
            place += draw_label(frame, text, (place, max(0, left)), letters, each.colour)
