"""Flow in colours: hue is direction, saturation is speed (Baker et al. 2011)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kvideo.errors import UsageError
from kvideo.flow.geometry import check_flow, known_flow

# Hues between one pure colour and the next: from red over yellow, green, cyan, blue and magenta
# back to red. More where the eye tells more apart.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
_BEYOND = 0.75  # darkness of vectors longer than the longest


@lru_cache(1)
def color_wheel() -> np.ndarray:
    """(55, 3) float64 in 0..1: the hues of the Middlebury colour code, once around from red."""
    corners = np.array(_CORNERS, np.float64)
    parts = []
    for steps, here, there in zip(_STEPS, corners, corners[1:], strict=False):
        # Levels are whole numbers of 255, as in the published code.
        level = np.floor(255 * np.arange(steps) / steps)[:, None] / 255
        rising = (there > here) * level
        falling = (there < here) * level
        parts.append(here + rising - falling)
    wheel = np.concatenate(parts)
    wheel.flags.writeable = False
    return wheel


def flow_to_rgb(flow: np.ndarray, longest: float | None = None) -> np.ndarray:
    """A picture of the flow: right is red, down is yellow-green, left is cyan-blue, still is white.

    Args:
        flow: (H, W, 2), pixels per frame.
        longest: length of a vector in full colour, pixels; longer ones are darker. None: of the
            longest known one.

    Returns:
        (H, W, 3) uint8 RGB; black where the flow is unknown.

    Raises:
        UsageError: `longest` is not positive.

    References:
        Baker et al. 2011, "A Database and Evaluation Methodology for Optical Flow".
    """
    known = known_flow(flow)
    flow = np.where(known[..., None], check_flow(flow), 0).astype(np.float64)
    length = np.hypot(flow[..., 0], flow[..., 1])
    if longest is None:
        longest = float(length.max()) or 1.0
    if not longest > 0:
        raise UsageError(f"longest must be positive, not {longest!r}.")
    length /= longest
    wheel = color_wheel()
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi  # -1..1
    place = (angle + 1) / 2 * (len(wheel) - 1)
    low = np.floor(place).astype(int)
    share = (place - low)[..., None]
    hue = (1 - share) * wheel[low] + share * wheel[(low + 1) % len(wheel)]
    inside = (length <= 1)[..., None]
    color = np.where(inside, 1 - length[..., None] * (1 - hue), hue * _BEYOND)
    return np.floor(255 * color * known[..., None]).astype(np.uint8)
