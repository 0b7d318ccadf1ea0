"""The mean clip of Sports-1M, which C3D's published weights want subtracted from their input."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kvideo.errors import ModelFileError, UsageError

_CHANNELS = 3


def load_mean_cube(path: str | os.PathLike[str], clip_shape: Sequence[int]) -> np.ndarray:
    """The part of a published mean cube that is under a centred clip.

    The cube was taken over clips of 16×128×171; a model that takes 112×112 sees the middle, which
    begins at row 8 and column 30.

    Args:
        path: a `.npy` file with the axes (C, T, H, W) or (T, H, W, C), perhaps with a first axis of
            length 1; BGR, 0..255.
        clip_shape: (T, H, W, C) of the model's clips.

    Returns:
        float32 array of `clip_shape`, BGR.

    Raises:
        ModelFileError: no such file, or no array of that kind.
        UsageError: the clips are larger than the cube.
    """
    try:
        cube = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ModelFileError(f"there is no mean cube {os.fspath(path)}.") from None
    except (OSError, ValueError, EOFError) as cause:
        raise ModelFileError(f"{os.fspath(path)} is not a .npy file: {cause}.") from cause
    if not isinstance(cube, np.ndarray):
        raise ModelFileError(f"{os.fspath(path)} is not a .npy file of one array.")
    if cube.ndim == 5 and cube.shape[0] == 1:
        cube = cube[0]
    if cube.ndim == 4 and cube.shape[0] == _CHANNELS:
        cube = np.moveaxis(cube, 0, -1)
    if cube.ndim != 4 or cube.shape[-1] != _CHANNELS or cube.dtype.kind not in "fiu":
        raise ModelFileError(
            f"{os.fspath(path)} holds an array of shape {cube.shape} and type {cube.dtype}; a "
            "mean cube is (3, T, H, W) or (T, H, W, 3)."
        )
    frames, height, width = (int(length) for length in clip_shape[:3])
    if any(a > b for a, b in zip((frames, height, width), cube.shape, strict=False)):
        raise UsageError(
            f"clips of {frames}×{height}×{width} are larger than the mean cube, "
            f"{'×'.join(str(length) for length in cube.shape[:3])}."
        )
    top, left = (cube.shape[1] - height + 1) // 2, (cube.shape[2] - width + 1) // 2
    part = cube[:frames, top : top + height, left : left + width]
    return np.ascontiguousarray(part, "float32")
