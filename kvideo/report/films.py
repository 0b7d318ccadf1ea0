"""Clips as moving pictures, GIF and WebP, which browsers show without a player."""

from __future__ import annotations

import io

import numpy as np

_LARGEST = 160  # pixels of the longer side


def gif_bytes(clip: np.ndarray, frame_rate: float, largest: int = _LARGEST) -> bytes:
    """An animated GIF that runs for ever.

    Args:
        clip: (T, H, W, 3) uint8 RGB; (T, H, W, 2) float32 optical flow, shown in colours; or
            (T, H, W, 5) float32 with both, of which the pictures are shown.
        frame_rate: frames per second. GIF rounds to hundredths of a second.
        largest: pixels of the longer side; larger clips are shrunk to it.
    """
    return _animated(clip, frame_rate, largest, "GIF")


def webp_bytes(clip: np.ndarray, frame_rate: float, largest: int = _LARGEST) -> bytes:
    """As `gif_bytes`, an animated WebP: all colours, in a third of the bytes."""
    return _animated(clip, frame_rate, largest, "WEBP", quality=55, method=4)


def _animated(
    clip: np.ndarray, frame_rate: float, largest: int, kind: str, **options: int
) -> bytes:
    import cv2
    from PIL import Image

    if clip.shape[-1] == 2:
        from kvideo.flow.colors import flow_to_rgb

        frames = [flow_to_rgb(flow) for flow in clip]
    else:
        frames = list(np.clip(clip[..., :3], 0, 255).astype(np.uint8))
    height, width = clip.shape[1:3]
    scale = min(1.0, largest / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    first, *others = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    first.save(
        buffer,
        kind,
        save_all=True,
        append_images=others,
        duration=max(20, round(1000 / frame_rate)),  # browsers slow down what is faster
        loop=0,
        **options,
    )
    return buffer.getvalue()


def grid_png(confusion: np.ndarray, side: int = 800) -> bytes:
    """A confusion matrix of many classes without names: white to blue by the share of the row.

    Args:
        confusion: (C, C) counts, rows are true classes.
        side: of the picture in pixels, about.
    """
    import cv2

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # A root, so that rare confusions show.
    strength = np.sqrt(shares)[..., None]
    blue = np.array([107, 48, 8], np.float64)  # BGR, as OpenCV writes
    picture = np.round(255 + (blue - 255) * strength).astype(np.uint8)
    cell = max(1, side // len(confusion))
    picture = picture.repeat(cell, axis=0).repeat(cell, axis=1)
    return cv2.imencode(".png", picture)[1].tobytes()
