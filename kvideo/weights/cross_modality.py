"""Networks for optical flow that begin with the weights of networks for pictures."""

from __future__ import annotations

import numpy as np

RGB_CHANNELS = 3


def cross_modality_kernel(kernel: np.ndarray, channels: int, axis: int = -2) -> np.ndarray:
    """A first kernel for other channels than colours: the mean over RGB, repeated.

    Args:
        kernel: with 3 input channels.
        channels: input channels of the new kernel, such as 2 for each flow.
        axis: of the input channels.

    References:
        Wang et al. 2016, "Temporal Segment Networks", section 3.2, cross-modality pre-training.
    """
    return kernel.mean(axis=axis, keepdims=True).repeat(channels, axis=axis)


def is_cross_modality(old: tuple[int, ...], new: tuple[int, ...], axis: int = -2) -> bool:
    """Whether a kernel of RGB of shape `old` can become one of shape `new` for other channels."""
    if len(old) != len(new) or len(old) < 4 or old[axis] != RGB_CHANNELS or old == new:
        return False
    old_rest, new_rest = list(old), list(new)
    old_rest[axis] = new_rest[axis] = 0
    return old_rest == new_rest
