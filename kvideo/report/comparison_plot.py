"""Accuracy against cost as a picture. Matplotlib is imported when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvideo.report.plots import drawable, png_bytes

if TYPE_CHECKING:
    from kvideo.comparison import Comparison

_COSTS = {
    "macs": "multiply-adds of a clip",
    "parameters": "parameters",
    "clips_per_second": "clips a second, one at a time",
}
_WIDE = 20  # from here on an axis is logarithmic
_LONGEST_NAME = 60  # letters


def comparison_png(result: Comparison) -> bytes:
    """Three plots side by side: the score against multiply-adds, parameters and speed.

    Returns:
        A PNG file, 1,800 pixels wide.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, NullFormatter

    figure = Figure(figsize=(12, 4.6), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    tested = [model for model in result.models if model.score is not None]
    for axes, (cost, words) in zip(figure.subplots(1, 3, sharey=True), _COSTS.items(), strict=True):
        known = [getattr(model, cost) for model in tested if getattr(model, cost)]
        for number, model in enumerate(tested):
            score, error = model.score or 0.0, None
            if model.low is not None and model.high is not None:
                error = [[max(0.0, score - model.low)], [max(0.0, model.high - score)]]
            x = getattr(model, cost) or float("nan")
            name, colour = drawable(model.name, limit=_LONGEST_NAME), f"C{number % 10}"
            axes.errorbar(x, score, error, fmt="o", color=colour, capsize=3, label=name)
        if known and max(known) > _WIDE * min(known):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set_xlabel(words)
        axes.grid(True, alpha=0.3)
        axes.margins(x=0.1)
        axes.set_ylim(0, 1.05)
    figure.axes[0].set_ylabel(result.title)
    if tested:
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=min(4, len(tested)), fontsize=8)
    return png_bytes(figure)
