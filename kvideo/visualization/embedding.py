"""A map of a data set: videos whose features are alike lie beside each other; as an HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import resources

import numpy as np

from kvideo.errors import DataError
from kvideo.report.page import POLICY
from kvideo.report.tables import data_url, escape
from kvideo.report.timeline_plot import class_colours
from kvideo.text import plural

_NEAREST = 30  # neighbours that t-SNE keeps together (its perplexity), at most
_COMPONENTS = 50  # of PCA, before t-SNE
_LEAST = 6  # videos below which t-SNE makes no sense
_WIDTH, _HEIGHT = 1200, 800  # units of the map
_TILES = 0.35  # share of the map that thumbnails may cover
_LARGEST = 72
_GROWN = 2.4  # times as large under the pointer: see map.css


@dataclasses.dataclass(frozen=True)
class Placed:
    """A video on the map.

    Attributes:
        path: the file.
        label: index of its class; None where nobody knows.
        x: from 0 to 1.
        y: from 0 to 1.
        thumbnail: a JPEG file, or None.
    """

    path: str
    label: int | None
    x: float
    y: float
    thumbnail: bytes | None = None


def coordinates(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features (N, C) as places (N, 2) from 0 to 1: t-SNE on principal components.

    The same features and seed give the same map. Of fewer than six videos the first two principal
    components are taken.

    Raises:
        DataError: there is no video, or features are no finite numbers.

    References:
        van der Maaten & Hinton 2008, "Visualizing Data using t-SNE".
    """
    if not len(features) or not np.isfinite(features).all():
        raise DataError("a map needs at least one video, and features that are finite numbers.")
    values = features - features.mean(axis=0)
    values = values / max(float(values.std()), 1e-12)
    axes = np.linalg.svd(values, full_matrices=False)[2]
    reduced = values @ axes[:_COMPONENTS].T
    if len(values) < _LEAST:
        places = np.zeros((len(values), 2))
        places[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    else:
        from sklearn.manifold import TSNE

        places = TSNE(
            perplexity=min(_NEAREST, (len(values) - 1) / 3), init="pca", random_state=seed
        ).fit_transform(reduced)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - low) / np.maximum(high - low, 1e-12), np.float64)


def map_html(
    videos: Sequence[Placed], class_names: Sequence[str], *, title: str, note: str = ""
) -> str:
    """The map as a page that needs no network and no script.

    Each video is a thumbnail with a frame in its class's colour; under the pointer (or a finger)
    it grows and tells its name.

    Args:
        videos: on the map.
        class_names: which labels are indices of.
        title: of the page.
        note: how it was made, below the title.
    """
    known = sorted({video.label for video in videos if video.label is not None})
    colours = dict(zip(known, class_colours([class_names[i] for i in known]), strict=True))
    room = (_WIDTH * _HEIGHT * _TILES / max(1, len(videos))) ** 0.5
    tile = min(_LARGEST, max(10.0, room))
    counts = {label: sum(video.label == label for video in videos) for label in known}
    legend = "".join(
        f'<li><i style="background:{colours[label]}"></i>'
        f"{escape(class_names[label])} <span>{counts[label]}</span></li>"
        for label in known
    )
    edge = round(tile * (_GROWN - 1) / 2) + 4  # room for those at the border to grow
    width, height = _WIDTH + 2 * edge, _HEIGHT + 2 * edge
    marks = "\n".join(_mark(video, tile, colours, class_names) for video in videos)
    style = resources.files("kvideo.visualization").joinpath("map.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{plural(len(videos), 'video')}. {escape(note)}</p>\n"
        f"<ul>{legend}</ul>\n"
        '<p class="wide">The map is wider than the screen: move it sideways.</p>\n'
        f'<div tabindex="0"><svg viewBox="{-edge} {-edge} {width} {height}" role="img" '
        f'aria-label="{escape(title)}">\n'
        f"{marks}\n</svg></div>\n</body>\n</html>\n"
    )


def _mark(video: Placed, tile: float, colours: dict[int, str], class_names: Sequence[str]) -> str:
    x = tile / 2 + video.x * (_WIDTH - tile)
    y = tile / 2 + (1 - video.y) * (_HEIGHT - tile)
    name = "no label" if video.label is None else class_names[video.label]
    colour = "#888888" if video.label is None else colours[video.label]
    half, inside = tile / 2, tile * 0.86
    picture = ""
    if video.thumbnail is not None:
        picture = (
            f'<image x="{-inside / 2:.1f}" y="{-inside / 2:.1f}" width="{inside:.1f}" '
            f'height="{inside:.1f}" preserveAspectRatio="xMidYMid slice" '
            f'href="{data_url("jpeg", video.thumbnail)}"/>'
        )
    return (
        f'<g transform="translate({x:.1f} {y:.1f})"><g class="v" tabindex="0">'
        f"<title>{escape(name)}: {escape(video.path)}</title>"
        f'<rect x="{-half:.1f}" y="{-half:.1f}" width="{tile:.1f}" height="{tile:.1f}" '
        f'rx="{tile / 12:.1f}" fill="{colour}"/>{picture}</g></g>'
    )
