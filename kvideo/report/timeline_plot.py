"""Labels over time as a picture: a strip of the truth, one of the prediction, and its curves.

Matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.report.plots import drawable, png_bytes
from kvideo.segmentation.results import TimeSegment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ten colours that are told apart well, also by the colour-blind as far as ten can be.
_COLOURS = (
    "#3b76c4", "#e0822b", "#3f9c55", "#c8443f", "#8a63b8",
    "#8c6b4f", "#d977b0", "#9a9f2f", "#2fa5b5", "#b08a00",
)  # fmt: skip
_BACKGROUND = "#c9ced6"
_CURVES = 8  # more curves than that nobody can follow
_LEGEND_ROWS = 24


def class_colours(class_names: Sequence[str]) -> list[str]:
    """A colour for each class, `#rrggbb`; grey for one that is called background."""
    colours, number = [], 0
    for name in class_names:
        if name.lower() == "background":
            colours.append(_BACKGROUND)
            continue
        if number < len(_COLOURS):
            colours.append(_COLOURS[number])
        else:  # steps of the golden angle never come close to each other for long
            lightness = (0.38, 0.52, 0.66)[number % 3]
            red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, lightness, 0.6)
            colours.append(
                f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
            )
        number += 1
    return colours


def timeline_png(
    times: np.ndarray,
    probabilities: np.ndarray,
    segments: Sequence[TimeSegment],
    class_names: Sequence[str],
    *,
    end: float,
    truth: Sequence[TimeSegment] | None = None,
    title: str = "",
) -> bytes:
    """A prediction over time as a PNG file, about 1,650 pixels wide.

    Args:
        times: (K,) seconds.
        probabilities: (K, C) at these times.
        segments: the prediction.
        class_names: C names.
        end: of the video, seconds.
        truth: is drawn above the prediction, if given.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = class_colours(class_names)
    strips = [("truth", truth)] if truth is not None else []
    strips.append(("prediction", segments))
    heights = [0.42] * len(strips) + [2.2]
    figure = Figure(figsize=(11, 1.35 + sum(heights)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": heights, "hspace": 0.16 if len(strips) > 1 else 0.1},
    )[:, 0]  # fmt: skip
    figure.subplots_adjust(
        left=0.085, right=0.81, top=1 - 0.45 / (1.35 + sum(heights)), bottom=0.17
    )
    for axes, (name, parts) in zip(rows, strips, strict=False):
        _strip(axes, parts or (), colours, name)
    shown = _curves(rows[-1], times, probabilities, colours)
    rows[-1].set_xlim(0, max(end, 1e-3))
    shares = dict.fromkeys(shown, 0.0)
    for part in (part for _, parts in strips for part in parts or ()):
        shares[part.label] = shares.get(part.label, 0.0) + part.end - part.start
    _legend(figure, rows[0], shares, class_names, colours)
    if title:
        rows[0].set_title(
            drawable(title, limit=90), fontsize=10, fontweight="bold", loc="left", parse_math=False
        )
    return png_bytes(figure)


def _strip(axes: Axes, segments: Sequence[TimeSegment], colours: list[str], name: str) -> None:
    for segment in segments:
        width = segment.end - segment.start
        axes.broken_barh([(segment.start, width)], (0, 1), facecolors=colours[segment.label])
    for segment in segments if len(segments) < 80 else ():  # thin lines part neighbours
        axes.axvline(segment.start, color="white", linewidth=0.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], [name], fontsize=9)
    axes.tick_params(length=0, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _curves(
    axes: Axes, times: np.ndarray, probabilities: np.ndarray, colours: list[str]
) -> list[int]:
    """Draws the probabilities of the classes that win most often; gives their numbers."""
    wins = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    shown = sorted(np.argsort(-wins - probabilities.max(axis=0), kind="stable")[:_CURVES].tolist())
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if len(times) < 40 else {}
    for label in shown:
        axes.plot(times, probabilities[:, label], color=colours[label], linewidth=1.5, **marker)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("probability", fontsize=9)
    axes.set_xlabel("seconds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="both", color="#e3e6ea", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return shown


def _legend(
    figure: Any,
    axes: Axes,
    shares: dict[int, float],
    class_names: Sequence[str],
    colours: list[str],
) -> None:
    """The classes to be seen, or those with the longest parts, in their order."""
    from matplotlib.patches import Patch

    longest = sorted(shares, key=lambda label: -shares[label])[:_LEGEND_ROWS]
    handles = [
        Patch(color=colours[label], label=drawable(class_names[label], label, limit=28))
        for label in sorted(longest)
    ]
    if len(shares) > len(longest):
        handles.append(Patch(color="none", label=f"and {len(shares) - len(longest)} more"))
    many = len(handles) > 12
    legend = figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.82, axes.get_position().y1),
        fontsize=7 if many else 8, frameon=False, handlelength=1.1, borderaxespad=0.0,
        labelspacing=0.2 if many else 0.45,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
