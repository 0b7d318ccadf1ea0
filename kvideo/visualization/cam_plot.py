"""When something speaks for a class, as a picture. Matplotlib is imported when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvideo.report.plots import drawable, png_bytes

if TYPE_CHECKING:
    from kvideo.visualization.cam import Activation


def activation_png(activation: Activation) -> bytes:
    """The class's probability and what speaks for it over time, as a PNG of about 1,650 pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    times, strength, probabilities = activation.curve()
    end = max(activation.end, float(times[-1]), 0.1)
    # The first and the last map stand for what lies before and behind their middles, too.
    times = np.concatenate([[0.0], times, [end]])
    strength, probabilities = (np.pad(row, 1, mode="edge") for row in (strength, probabilities))
    axes.fill_between(
        times, strength / max(float(strength.max()), 1e-12), color="#e0822b", alpha=0.55, lw=0,
        label="what speaks for it (mean over the picture; its highest is 1)",
    )  # fmt: skip
    axes.plot(times, probabilities, color="#3b76c4", lw=1.8, label="its probability")
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("seconds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="both", color="#e3e6ea", linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        drawable(activation.label, activation.number, limit=90), fontsize=10, fontweight="bold",
        loc="left", parse_math=False,
    )  # fmt: skip
    axes.legend(
        fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2,
        borderaxespad=0.2,
    )  # fmt: skip
    return png_bytes(figure)
