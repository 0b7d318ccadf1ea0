"""Values between 0 and 1 as colours, and maps of a clip laid over the picture it was cut from."""

from __future__ import annotations

import functools

import numpy as np

from kvideo.data.sampling import Window


@functools.lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """(256, 3) float32: matplotlib's inferno, without its darkest part."""
    from matplotlib import colormaps

    return (255 * colormaps["inferno"](np.linspace(0.25, 0.95, 256))[:, :3]).astype(np.float32)


def heat_picture(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a map (H, W) of values from 0 to 1; quicker than `heat_colours`."""
    import cv2

    steps = np.clip(values * 255, 0, 255).astype(np.uint8)
    return cv2.LUT(cv2.merge([steps] * 3), _table().astype(np.uint8)[None])


def heat_colours(values: np.ndarray) -> np.ndarray:
    """(..., 3) float32, 0 to 255, of values from 0 to 1."""
    return _table()[np.clip(values * 255, 0, 255).astype(np.int64)]


def over_picture(
    heat: np.ndarray, window: Window, clip: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """A clip's map, as it lies over the picture that the clip was cut from.

    Args:
        heat: (H', W'), whose places cover the clip's pixels evenly.
        window: how the picture lies in the clip.
        clip: (H, W) of the clip.
        size: (H, W) of the picture.

    Returns:
        (H, W) float32; NaN where the clip shows nothing of the picture.
    """
    import cv2

    top, left, height, width = window.crop
    row, column = window.place
    # Where each pixel of the picture lies in the clip, then in the map.
    ys = (np.arange(size[0]) + 0.5) / size[0] * window.size[0] - top + row
    xs = (np.arange(size[1]) + 0.5) / size[1] * window.size[1] - left + column
    inside = np.ix_((ys >= row) & (ys <= row + height), (xs >= column) & (xs <= column + width))
    map_x = np.broadcast_to(xs / clip[1] * heat.shape[1] - 0.5, size).astype(np.float32)
    map_y = np.broadcast_to((ys / clip[0] * heat.shape[0] - 0.5)[:, None], size).astype(np.float32)
    spread = cv2.remap(
        np.ascontiguousarray(heat, np.float32), map_x, map_y, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    found = np.full(size, np.nan, np.float32)
    found[inside] = spread[inside]
    return found
