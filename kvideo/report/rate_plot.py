"""The curve of a learning-rate finder as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvideo.report.plots import png_bytes

if TYPE_CHECKING:
    from kvideo.training.rate_finder import RateSearch


def rate_png(search: RateSearch) -> bytes:
    """Loss against learning rate, and the suggested rate, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(search.rates, search.losses, color="#bbbbbb", linewidth=1, label="each batch")
    axes.plot(search.rates, search.smoothed, color="#1f5fa8", linewidth=2, label="running mean")
    if search.suggestion is not None:
        axes.axvline(search.suggestion, color="#c44e52", linestyle="--", linewidth=1.5)
        axes.annotate(
            f"{search.suggestion:.2g}",
            (search.suggestion, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -14),
            textcoords="offset points",
            color="#c44e52",
        )
    axes.set_xscale("log")
    finite = [x for x in search.smoothed if math.isfinite(x)]
    if finite:  # what has exploded would flatten the rest
        axes.set_ylim(0, 2.2 * max(finite[0], min(finite)))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    return png_bytes(figure)
