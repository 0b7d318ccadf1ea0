"""Pictures beside each other, as PNG; and clips as MP4."""

from __future__ import annotations

import os

import numpy as np

from kvideo.data.encoding import FilmWriter
from kvideo.files import atomic_path
from kvideo.visualization.heat import heat_colours

_STRONGEST = 0.65  # of the colours, over the picture


def png_of(picture: np.ndarray) -> bytes:
    """A PNG file of (H, W, 3) uint8."""
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    return data.tobytes()


def row_of_frames(clip: np.ndarray, most: int = 8, height: int = 160, gap: int = 4) -> np.ndarray:
    """Frames from over a clip (T, H, W, 3) uint8 beside each other, on white, (h, w, 3)."""
    import cv2

    chosen = clip[
        np.unique(np.linspace(0, len(clip) - 1, min(most, len(clip))).round().astype(int))
    ]
    width = max(1, round(height * clip.shape[2] / clip.shape[1]))
    enlarging = height > clip.shape[1]
    way = cv2.INTER_NEAREST if enlarging and height >= 2 * clip.shape[1] else cv2.INTER_AREA
    tiles = [cv2.resize(frame, (width, height), interpolation=way) for frame in chosen]
    pad = ((0, 0), (0, gap), (0, 0))
    joined = [np.pad(tile, pad, constant_values=255) for tile in tiles[:-1]] + tiles[-1:]
    return np.concatenate(joined, axis=1)


def under_heat(clip: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Frames with colours over them.

    Args:
        clip: (T, H, W, 3) uint8.
        heat: (T', H', W') from 0 to 1, whose places cover the clip evenly.

    Returns:
        (T, H, W, 3) uint8.
    """
    import cv2

    frames, height, width, _ = clip.shape
    numbers = np.minimum((np.arange(frames) + 0.5) / frames * len(heat), len(heat) - 1).astype(int)
    painted = []
    for frame, number in zip(clip, numbers, strict=True):
        spread = cv2.resize(heat[number].astype(np.float32), (width, height))
        share = _STRONGEST * np.clip(spread, 0, 1)[..., None]
        painted.append(frame * (1 - share) + heat_colours(spread) * share)
    return np.clip(painted, 0, 255).astype(np.uint8)


def write_film(
    path: str | os.PathLike[str], clip: np.ndarray, frame_rate: float, least: int = 240
) -> None:
    """A clip (T, H, W, 3) uint8 as MP4; small ones are enlarged to `least` pixels.

    Raises:
        KVideoError: it cannot be written.
    """
    factor = max(1, -(-least // min(clip.shape[1:3])))
    with atomic_path(path) as temporary, FilmWriter(temporary, frame_rate) as film:
        for frame in clip:
            film.add(frame.repeat(factor, axis=0).repeat(factor, axis=1))
