"""A video with the labels of its segments drawn in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvideo.data.encoding import FilmWriter
from kvideo.errors import UsageError
from kvideo.files import atomic_path
from kvideo.localization.results import FoundSegment
from kvideo.report.plots import drawable
from kvideo.report.timeline_plot import class_colours

_SHORTEST_SIDE = 240  # pixels; smaller pictures are enlarged, or no label would be readable
_TEXT = 0.055  # of the picture's height
_BAR = 0.018
_DARK = 0.55  # what is left of the picture's brightness behind a label
_MOST_LABELS = 4

Looks = dict[str, tuple[str, tuple[int, int, int]]]  # of each class: what is written, its colour


def write_labelled_video(
    path: str | os.PathLike[str],
    video: str,
    segments: Sequence[FoundSegment],
    class_names: Sequence[str],
    *,
    open_video: Callable[..., Any],
    on_frame: Callable[[], None] | None = None,
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
        on_frame: is called after each frame.

    Raises:
        UsageError: another ending, or the video itself.
        DecodeError: the video gives no frames.
        KVideoError: it cannot be written.
    """
    check_video_target(path, video)
    looks = {
        name: (drawable(name, index, limit=40), _rgb(colour))
        for index, (name, colour) in enumerate(
            zip(class_names, class_colours(class_names), strict=True)
        )
    }
    with open_video(video) as reader:
        info = reader.info
        scale = max(1, -(-_SHORTEST_SIDE // min(info.height, info.width)))
        size = info.height * scale, info.width * scale
        duration = max(info.duration, 1e-3)
        bar = _time_bar(segments, looks, duration, size)
        with atomic_path(path) as temporary, FilmWriter(temporary, info.frame_rate) as film:
            for seconds, frame in reader.frames(size=size):
                shown = [s for s in segments if s.start <= seconds < s.end]
                _draw(frame, shown, looks)
                _draw_bar(frame, bar, seconds / duration)
                film.add(frame, seconds)
                if on_frame is not None:
                    on_frame()


def check_video_target(path: str | os.PathLike[str], video: str) -> None:
    """Refuses a name that `write_labelled_video` cannot take.

    Raises:
        UsageError: another ending than `.mp4`, or the video itself.
    """
    if not os.fspath(path).lower().endswith(".mp4"):
        raise UsageError(f"a labelled video is written as .mp4, not as {path}.")
    if os.path.realpath(path) == os.path.realpath(video):
        raise UsageError(f"{path} is the video itself; name another file.")


def _draw(frame: np.ndarray, shown: Sequence[FoundSegment], looks: Looks) -> None:
    """Labels in the upper left corner, the surest first."""
    top = margin = max(2, frame.shape[0] // 60)
    best = sorted(shown, key=lambda s: -s.score)[:_MOST_LABELS]
    for segment in best:
        name, colour = looks[segment.label]
        mask = _text_mask(f"{name}  {segment.score:.0%}", max(11, round(frame.shape[0] * _TEXT)))
        height, width = mask.shape
        width = min(width, frame.shape[1] - 2 * margin)
        if top + height > frame.shape[0] - margin or width < 1:
            return
        area = frame[top : top + height, margin : margin + width]
        paint = np.array(colour, np.float32)
        letters = mask[:, :width, np.newaxis]
        dark = area * (1 - _DARK) + 0.35 * paint * _DARK
        area[:] = np.clip(dark * (1 - letters) + 255.0 * letters, 0, 255).astype(np.uint8)
        area[:, : max(2, height // 8)] = np.array(colour, np.uint8)
        top += height + max(1, margin // 2)


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


@functools.lru_cache(maxsize=256)
def _text_mask(text: str, height: int) -> np.ndarray:
    """(h, w) float32, 0 to 1: text with a margin around it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=72)
    canvas = FigureCanvasAgg(figure)
    drawn = figure.text(0, 0, text, fontsize=height * 0.72, color="black", parse_math=False)
    box = drawn.get_window_extent(canvas.get_renderer())
    width = int(np.ceil(box.width)) + round(0.9 * height)
    whole = round(1.45 * height)
    figure.set_size_inches(width / 72, whole / 72)
    drawn.set_position((0.5 * height / width, 0.36))
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., 0]
    return 1 - picture.astype(np.float32) / 255


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
