"""Boxes that go where the pixels go: resized, cut, mirrored, and back to the picture. NumPy only.

A box is x1, y1, x2, y2 as fractions of width and height; of the displayed picture on the one side,
of the clip's frame on the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvideo.data.sampling import Window

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

LEAST_VISIBLE = 0.25  # of a box's area; of less nobody can tell what the actor does


def boxes_in_clip(
    boxes: ArrayLike,
    window: Window,
    size: tuple[int, int],
    *,
    mirrored: bool = False,
    least: float = LEAST_VISIBLE,
) -> tuple[Floats, Bools]:
    """Where boxes of the picture are in a clip's frame, cut at its borders.

    Args:
        boxes: (N, 4) of the picture.
        window: which part of the picture comes where.
        size: (height, width) of the clip.
        mirrored: whether the clip is mirrored, left to right, afterwards.
        least: share of a box's area that must be seen.

    Returns:
        (N, 4) of the clip's frame; and (N,) which of them are to be seen well enough.
    """
    moved = _scale_and_shift(np.asarray(boxes, np.float64).reshape(-1, 4), *_affine(window, size))
    top, left = window.place
    seen = np.array([left, top, left + window.crop[3], top + window.crop[2]], np.float64)
    seen /= np.array([size[1], size[0]] * 2)
    low, high = np.maximum(seen[:2], 0.0), np.minimum(seen[2:], 1.0)
    cut = np.clip(moved, np.tile(low, 2), np.tile(high, 2))
    share = _areas(cut) / np.maximum(_areas(moved), 1e-12)
    return (mirror_boxes(cut) if mirrored else cut), share >= least


def boxes_in_picture(
    boxes: ArrayLike, window: Window, size: tuple[int, int], *, mirrored: bool = False
) -> Floats:
    """The inverse: where boxes (N, 4) of a clip's frame are in the picture, cut at its borders."""
    rows: Floats = np.asarray(boxes, np.float64).reshape(-1, 4)
    if mirrored:
        rows = mirror_boxes(rows)
    scale, shift = _affine(window, size)
    return np.clip((rows - np.tile(shift, 2)) / np.tile(scale, 2), 0.0, 1.0)


def clipped(boxes: ArrayLike) -> Floats:
    """Boxes (N, 4) cut at the picture's borders."""
    return np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0.0, 1.0)


def mirror_boxes(boxes: Floats) -> Floats:
    """Boxes (N, 4) in the picture mirrored from left to right."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def _affine(window: Window, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """(x, y) factors and shifts from fractions of the picture to those of the clip."""
    height, width = size
    scale = np.array([window.size[1] / width, window.size[0] / height])
    shift = np.array([
        (window.place[1] - window.crop[1]) / width, (window.place[0] - window.crop[0]) / height,
    ])  # fmt: skip
    return scale, shift


def _scale_and_shift(boxes: Floats, scale: Floats, shift: Floats) -> Floats:
    return boxes * np.tile(scale, 2) + np.tile(shift, 2)


def _areas(boxes: Floats) -> Floats:
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
