"""Pictures of results, as PNG bytes. Matplotlib is imported when a picture is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.errors import UsageError
from kvideo.metrics import precision_recall_support
from kvideo.text import cut, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS_UP_TO = 25  # classes: more numbers than 25 × 25 nobody reads
_LONGEST_NAME = 24  # letters
_TITLE: dict[str, Any] = {"fontsize": 10, "fontweight": "bold"}


def resolution(num_classes: int) -> int:
    """Dots per inch of `confusion_png`: fine where the picture is small."""
    return 150 if num_classes <= 60 else 100


def confusion_png(confusion: np.ndarray, class_names: Sequence[str]) -> bytes:
    """The confusion matrix as a picture: one row per true class, one column per predicted class.

    Colours are shares of the row, white for none and dark blue for all; up to 25 classes with the
    counts, beyond with a scale that brings out small shares. Rows without a video are grey. Long
    names are cut.

    Args:
        confusion: (C, C) counts, rows are true classes.
        class_names: C names; any text.

    Returns:
        A PNG file. About 600 to 5,000 pixels wide, growing with C so that names can be read.

    Raises:
        UsageError: the names do not fit the matrix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize, PowerNorm
    from matplotlib.figure import Figure

    _, shares, support = precision_recall_support(confusion)
    count = len(class_names)
    if len(support) != count:
        raise UsageError(f"{count} class names do not fit a matrix of {len(support)} classes.")
    shares = np.full(np.shape(confusion), np.nan)
    np.divide(confusion, support[:, None], out=shares, where=support[:, None] > 0)

    names = [drawable(name, index) for index, name in enumerate(class_names)]
    font = 9.0 if count <= COUNTS_UP_TO else 7.5 if count <= 60 else 6.0
    cell = 0.5 if count <= 12 else 0.36 if count <= COUNTS_UP_TO else 0.019 * font
    margin = 0.35 + 0.0081 * font * max(len(name) for name in names)  # inches for the names
    side = max(1.6, cell * count)
    width, height = side + margin + 1.1, side + margin + 0.55
    figure = Figure(figsize=(width, height), dpi=resolution(count), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        ((margin + 0.2) / width, 0.15 / height, side / width, side / height), facecolor="#d9d9d9"
    )
    # White lines part the cells, as long as these are large enough.
    lines = {"edgecolors": "white", "linewidth": 0.8} if count <= 60 else {}
    centres = np.arange(count)
    # Without counts, the rare confusions must show by their colour.
    norm = Normalize(0, 1) if count <= COUNTS_UP_TO else PowerNorm(0.5, 0, 1)
    image = axes.pcolormesh(centres, centres, shares, cmap="Blues", norm=norm, **lines)
    axes.invert_yaxis()
    _label(axes, names, font, 72 * side / count)
    middle = 0.15 + side / 2
    figure.text(0.08 / width, middle / height, "true", rotation=90, va="center", **_TITLE)
    figure.text(
        (margin + 0.2 + side / 2) / width,
        1 - 0.08 / height,
        "predicted",
        ha="center",
        va="top",
        **_TITLE,
    )
    if count <= COUNTS_UP_TO:
        _print_counts(axes, confusion, shares, font)
    tall = min(side, 4)
    bar = figure.add_axes(
        (
            (margin + 0.35 + side) / width,
            (0.15 + side - tall) / height,
            0.12 / width,
            tall / height,
        )
    )
    figure.colorbar(image, cax=bar, format=lambda share, _: f"{100 * share:.0f} %")
    bar.tick_params(labelsize=min(font, 8), length=2)
    bar.set_title("of the row", fontsize=min(font, 8), loc="left", pad=9)
    return png_bytes(figure)


def _label(axes: Axes, names: Sequence[str], font: float, points_per_cell: float) -> None:
    """Names beside and above the cells; as plain text, for 800 ticks take Matplotlib 13 s."""
    axes.set_xticks([])
    axes.set_yticks([])
    edge = -0.5 - 4 / points_per_cell
    style: dict[str, Any] = {"fontsize": font, "parse_math": False, "color": "#1a1a1a"}
    for place, name in enumerate(names):
        axes.text(edge, place, name, ha="right", va="center", **style)
        axes.text(place, edge, name, ha="center", va="bottom", rotation=90, **style)
    for spine in axes.spines.values():
        spine.set_color("#999999")


def _print_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray, font: float) -> None:
    longest = len(str(int(np.max(confusion))))
    size = font if longest <= 3 else font * 3 / longest
    for row, column in np.argwhere(np.asarray(confusion) > 0):
        axes.text(
            column,
            row,
            str(int(confusion[row, column])),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if shares[row, column] > 0.55 else "#1a1a1a",
        )


def png_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters without a glyph are replaced beforehand; control pictures may still be missing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def drawable(name: str, index: int | None = None, *, limit: int = _LONGEST_NAME) -> str:
    """The name, cut; a name in a script that the font lacks becomes its class number, or empty."""
    name = printable(name)
    if any(ord(letter) not in _letters() for letter in name):
        return "" if index is None else f"class {index}"
    return cut(name, limit)


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    """What the font that Matplotlib ships can draw."""
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())
