"""Segments of a video as a picture: a row for each class, truth over prediction.

Matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvideo.report.plots import drawable, png_bytes
from kvideo.report.timeline_plot import class_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 20
_ROW = 0.42  # inches
_THINNEST = 0.001  # of the video's duration
_FAINTEST = 0.25  # opacity of a segment with score 0

Drawn = tuple[float, float, str, float | None]


def segments_png(
    found: Sequence[Drawn],
    class_names: Sequence[str],
    *,
    duration: float,
    truth: Sequence[Drawn] | None = None,
    title: str = "",
) -> bytes:
    """What was found in a video as a PNG file, about 1,650 pixels wide.

    Args:
        found: (start, end, class, score); seconds. The surer, the less transparent.
        class_names: all classes, which give the colours; those that occur get a row.
        duration: of the video, seconds.
        truth: likewise, without scores; is drawn above what was found, if given.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = dict(zip(class_names, class_colours(class_names), strict=True))
    rows, hidden = _rows([*(truth or ()), *found], class_names)
    height = 1.35 + _ROW * max(1, len(rows)) * (1 if truth is None else 1.5)
    figure = Figure(figsize=(11, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.14, 0.62 / height, 0.83, 1 - 1.15 / height))
    place = {name: number for number, name in enumerate(rows)}
    for start, end, name, score in sorted(found, key=lambda drawn: drawn[3] or 0.0):
        if name in place:
            top = place[name] + (0.05 if truth is None else 0.5)
            depth = 0.9 if truth is None else 0.4
            alpha = 1.0 if score is None else _FAINTEST + (1 - _FAINTEST) * min(1.0, score)
            _bar(axes, start, end, top, depth, colours[name], alpha, duration)
            if _has_room((start, end, name, score), found, duration):
                axes.text(
                    (start + end) / 2, top + depth / 2, f"{score:.2f}",
                    ha="center", va="center", fontsize=7, color="#1a1a1a",
                )  # fmt: skip
    for start, end, name, _ in truth or ():
        if name in place:
            _bar(axes, start, end, place[name] + 0.08, 0.36, "#3c4450", 1.0, duration)
    _finish(axes, rows, duration)
    if truth is not None:
        legend = "dark: truth. coloured: prediction, with its score"
        axes.set_title(legend, fontsize=8, loc="right", color="#5b6470")
    if hidden:
        axes.set_xlabel(f"seconds   ({hidden} more classes are not shown)", fontsize=9)
    axes.set_title(
        drawable(title, limit=70), fontsize=10, fontweight="bold", loc="left", parse_math=False
    )
    return png_bytes(figure)


def _has_room(drawn: Drawn, found: Sequence[Drawn], duration: float) -> bool:
    """Whether a score can be read: a bar long enough, and no surer one over its middle."""
    start, end, name, score = drawn
    if score is None or end - start <= 0.035 * duration:
        return False
    edge, middle = 0.02 * duration, (start + end) / 2
    return not any(
        other[2] == name
        and (other[3] or 0.0) > score
        and other[0] - edge < middle < other[1] + edge
        for other in found
    )


def _rows(drawn: Sequence[Drawn], class_names: Sequence[str]) -> tuple[list[str], int]:
    """The classes with the longest segments, in their order, and how many others there are."""
    seconds: dict[str, float] = {}
    for start, end, name, score in drawn:
        seconds[name] = seconds.get(name, 0.0) + (end - start) * (1.0 if score is None else score)
    longest = sorted(seconds, key=lambda name: -seconds[name])[:_MOST_ROWS]
    return [name for name in class_names if name in longest], len(seconds) - len(longest)


def _bar(
    axes: Axes,
    start: float,
    end: float,
    top: float,
    depth: float,
    colour: str,
    alpha: float,
    duration: float,
) -> None:
    """In a long video a bar is at least a line, and has no border that would cover it."""
    width = max(end - start, _THINNEST * duration)
    border = 0.6 if width > 10 * _THINNEST * duration else 0.0
    axes.broken_barh(
        [(start, width)], (top, depth), facecolors=colour, alpha=alpha,
        edgecolor="white", linewidth=border,
    )  # fmt: skip


def _finish(axes: Axes, rows: Sequence[str], duration: float) -> None:
    names = [drawable(name, index, limit=18) for index, name in enumerate(rows)]
    axes.set_ylim(max(1, len(rows)), 0)
    axes.set_yticks([index + 0.5 for index in range(len(rows))], names, fontsize=8.5)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    for line in range(1, len(rows)):
        axes.axhline(line, color="#e3e6ea", linewidth=0.7, zorder=0)
    axes.set_xlim(0, max(duration, 1e-3))
    axes.set_xlabel("seconds", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    if not rows:
        axes.text(0.5, 0.5, "nothing found", transform=axes.transAxes, ha="center", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
