"""A video with the labels of its segments drawn in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvideo.data.encoding import Draw, write_drawn_film
from kvideo.localization.results import FoundSegment
from kvideo.report.drawing import Colour, draw_label, rgb
from kvideo.report.plots import drawable
from kvideo.report.timeline_plot import class_colours

_SHORTEST_SIDE = 240  # pixels; smaller pictures are enlarged, or no label would be readable
_TEXT = 0.055  # of the picture's height
_BAR = 0.018
_MOST_LABELS = 4

Looks = dict[str, tuple[str, Colour]]  # of each class: what is written, its colour


def write_labelled_video(
    path: str | os.PathLike[str],
    video: str,
    segments: Sequence[FoundSegment],
    class_names: Sequence[str],
    *,
    open_video: Callable[..., Any],
) -> None:
    """Writes a video anew, H.264 in MP4 without sound, with labels and a bar of time.

    Each label is shown while its segment lasts; the bar at the lower edge shows where in the video
    all segments lie, and where the picture is. Frames pass one by one.

    Args:
        path: ends in `.mp4`.
        video: the file.
        segments: what is to be shown.
        class_names: all classes, which give the colours.
        open_video: a decoder.

    Raises:
        UsageError: another ending, or the video itself.
        DecodeError: the video gives no frames.
        KVideoError: it cannot be written.
    """
    looks = {
        name: (drawable(name, index, limit=40), rgb(colour))
        for index, (name, colour) in enumerate(
            zip(class_names, class_colours(class_names), strict=True)
        )
    }

    def drawing(size: tuple[int, int], duration: float) -> Draw:
        duration = max(duration, 1e-3)
        bar = _time_bar(segments, looks, duration, size)

        def draw(frame: np.ndarray, seconds: float) -> None:
            _draw(frame, [s for s in segments if s.start <= seconds < s.end], looks)
            _draw_bar(frame, bar, seconds / duration)

        return draw

    write_drawn_film(path, video, open_video, drawing, shortest_side=_SHORTEST_SIDE)


def _draw(frame: np.ndarray, shown: Sequence[FoundSegment], looks: Looks) -> None:
    """Labels in the upper left corner, the surest first."""
    top = margin = max(2, frame.shape[0] // 60)
    best = sorted(shown, key=lambda s: -s.score)[:_MOST_LABELS]
    for segment in best:
        name, colour = looks[segment.label]
        text, letters = f"{name}  {segment.score:.0%}", max(11, round(frame.shape[0] * _TEXT))
        rows = draw_label(frame[: frame.shape[0] - margin], text, (top, margin), letters, colour)
        if not rows:
            return
        top += rows + max(1, margin // 2)


def _time_bar(
    segments: Sequence[FoundSegment],
    looks: Looks,
    duration: float,
    size: tuple[int, int],
) -> np.ndarray:
    """(h, W, 3) uint8."""
    height, width = max(4, round(size[0] * _BAR)), size[1]
    bar = np.full((height, width, 3), 40, np.uint8)
    for segment in sorted(segments, key=lambda s: s.score):
        first = int(segment.start / duration * width)
        last = max(first + 1, round(segment.end / duration * width))
        bar[:, first:last] = np.array(looks[segment.label][1], np.uint8)
    return bar


def _draw_bar(frame: np.ndarray, bar: np.ndarray, share: float) -> None:
    height, width = bar.shape[:2]
    frame[-height:] = bar
    place = min(width - 1, int(share * width))
    frame[-height - height // 2 :, max(0, place - 1) : place + 2] = 255
