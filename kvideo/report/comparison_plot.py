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


def comparison_png(result: Comparison) -> bytes:
    """Three plots side by side: the score against multiply-adds, parameters and speed.

    Returns:
        A PNG file, 1,800 pixels wide.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (cost, words) in zip(figure.subplots(1, 3, sharey=True), _COSTS.items(), strict=True):
        for number, model in enumerate(result.models):
            x, y, error = getattr(model, cost), model.score, None
            if y is None or not x:
                continue
            if model.low is not None and model.high is not None:
                error = [[max(0.0, y - model.low)], [max(0.0, model.high - y)]]
            axes.errorbar(x, y, error, fmt="o", color=f"C{number}", capsize=3)
            axes.annotate(
                drawable(model.name), (x, y), textcoords="offset points", xytext=(6, 6), fontsize=8
            )
        axes.set_xscale("log")
        axes.set_xlabel(words)
        axes.grid(True, alpha=0.3)
        axes.margins(x=0.25)
        axes.set_ylim(0, 1.05)
        if cost == "macs":
            axes.set_ylabel(result.title)
    return png_bytes(figure)
