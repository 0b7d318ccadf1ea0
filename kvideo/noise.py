"""Clips of noise, always the same, to try a model with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvideo.clip_spec import clip_dtype

_PER_LEVEL = 1 / 16  # pixels of flow for a level of grey: at most 8


def noise_clips(shape: Sequence[int], count: int) -> np.ndarray:
    """Clips of the type that models of that shape take.

    Args:
        shape: (T, H, W, C) of a clip.
        count: clips.

    Returns:
        (count, T, H, W, 3) uint8; or float32 of another C, with flow in the last two channels.
    """
    levels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    if clip_dtype(levels.shape) == "uint8":
        return levels
    clips = levels.astype(np.float32)
    clips[..., -2:] = (clips[..., -2:] - 127.5) * _PER_LEVEL
    return clips
