"""What happens to a flow when its frames are resized or mirrored; warping; errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvideo.errors import UsageError

UNKNOWN = np.float32(1.6666667e9)
"""What stands in both components where the flow is unknown (Middlebury)."""
_LARGEST_KNOWN = 1e9
_SURE = 1 - 1e-5  # share of known pixels, up to rounding


def check_flow(flow: np.ndarray) -> np.ndarray:
    """The flow as float32.

    Raises:
        UsageError: it is not (..., H, W, 2).
    """
    if np.ndim(flow) < 3 or flow.shape[-1] != 2:
        raise UsageError(f"a flow has the shape (H, W, 2), not {np.shape(flow)}.")
    return np.asarray(flow, np.float32)


def known_flow(flow: np.ndarray) -> np.ndarray:
    """Where the flow is known: both components below 1e9, and numbers.

    Args:
        flow: (..., H, W, 2).

    Returns:
        (..., H, W) bool.
    """
    with np.errstate(invalid="ignore"):
        return (np.abs(check_flow(flow)) < _LARGEST_KNOWN).all(axis=-1)


def end_point_error(flow: np.ndarray, truth: np.ndarray) -> float:
    """Mean end-point error, pixels: the length of the difference, where the truth is known.

    Args:
        flow: (H, W, 2), as estimated.
        truth: (H, W, 2).

    Raises:
        UsageError: the shapes differ, or the truth is known nowhere.

    References:
        Baker et al. 2011, "A Database and Evaluation Methodology for Optical Flow".
    """
    flow, truth = check_flow(flow), check_flow(truth)
    if flow.shape != truth.shape:
        raise UsageError(f"flows of shapes {flow.shape} and {truth.shape} cannot be compared.")
    known = known_flow(truth)
    if not known.any():
        raise UsageError("the true flow is known nowhere.")
    difference = flow[known].astype(np.float64) - truth[known]
    return float(np.hypot(difference[:, 0], difference[:, 1]).mean())


def resize_flow(flow: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The flow of the resized frames: resized itself, and its vectors stretched alike.

    Args:
        flow: (..., H, W, 2).
        size: (H', W').

    Returns:
        (..., H', W', 2) float32; dx is multiplied by W' / W and dy by H' / H. `UNKNOWN` where
        anything unknown would come in.

    Raises:
        UsageError: `size` is not two numbers of pixels.
    """
    flow = check_flow(flow)
    if len(size) != 2 or min(size) < 1:
        raise UsageError(f"size must be (height, width) in pixels, not {size!r}.")
    (old_height, old_width), (height, width) = flow.shape[-3:-1], size
    if (height, width) == (old_height, old_width):
        return flow
    stack = flow.reshape(-1, old_height, old_width, 2)
    scale = np.array([width / old_width, height / old_height], np.float32)
    known = known_flow(stack)
    if not (all_known := known.all()):
        stack = np.where(known[..., None], stack, 0)
    resized = np.stack([_resized(each, height, width) * scale for each in stack])
    if not all_known:
        sure = np.stack([_resized(each.astype(np.float32), height, width) for each in known])
        resized[sure < _SURE] = UNKNOWN
    return resized.reshape(*flow.shape[:-3], height, width, 2)


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    import cv2

    shrinks = height < picture.shape[0] or width < picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=method)


def flip_flow(flow: np.ndarray) -> np.ndarray:
    """The flow of the mirrored frames: mirrored, and dx with the other sign.

    Args:
        flow: (..., H, W, 2).
    """
    mirrored = check_flow(flow)[..., ::-1, :]
    unknown = ~known_flow(mirrored)
    flipped = mirrored * np.array([-1, 1], np.float32)
    flipped[unknown] = mirrored[unknown]
    return flipped


def subtract_camera_motion(flow: np.ndarray) -> np.ndarray:
    """The flow without its mean displacement, which is mostly the camera's.

    Args:
        flow: (..., H, W, 2); what is unknown does not count, and stays so.

    References:
        Simonyan & Zisserman 2014, "Two-Stream Convolutional Networks for Action Recognition in
        Videos", section 3.1, mean flow subtraction.
    """
    flow = check_flow(flow)
    known = known_flow(flow)[..., None]
    counts = np.maximum(known.sum(axis=(-3, -2), keepdims=True), 1)
    clean = np.where(known, flow, 0).astype(np.float64)
    mean = (clean.sum(axis=(-3, -2), keepdims=True) / counts).astype(np.float32)
    return np.where(known, flow - mean, flow)


def warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The second frame pulled back along the flow: what the first one should look like.

    Args:
        frame: (H, W) or (H, W, C), the second frame.
        flow: (H, W, 2), from the first frame to the second.

    Returns:
        As `frame`; each pixel (x, y) is the frame's value at (x + dx, y + dy), between pixels by
        bilinear interpolation, and beyond the border that of the border.

    Raises:
        UsageError: the sizes differ.
    """
    import cv2

    flow = check_flow(flow)
    if frame.shape[:2] != flow.shape[:2]:
        raise UsageError(
            f"frame and flow must be of one size, not {frame.shape[:2]} and {flow.shape[:2]}."
        )
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
