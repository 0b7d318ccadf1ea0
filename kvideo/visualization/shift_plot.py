"""Accuracy against shift, as a picture. Matplotlib is imported when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvideo.report.plots import drawable, png_bytes
from kvideo.report.timeline_plot import class_colours

if TYPE_CHECKING:
    from kvideo.visualization.shift import ShiftTest


def shift_png(tests: Sequence[ShiftTest]) -> bytes:
    """A line for each model, as a PNG of about 1,100 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 4), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for test, colour in zip(tests, class_colours([t.name for t in tests]), strict=True):
        axes.plot(
            test.shifts, test.accuracy, color=colour, lw=1.8, marker="o", markersize=3.5,
            label=drawable(test.name, limit=40),
        )  # fmt: skip
    axes.set_ylim(-0.02, 1.03)
    axes.set_xlabel("frames by which the clip is moved (below 0: to what is earlier)", fontsize=9)
    axes.set_ylabel(f"accuracy ({tests[0].num_videos} videos, one clip each)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e3e6ea", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower center")
    return png_bytes(figure)
