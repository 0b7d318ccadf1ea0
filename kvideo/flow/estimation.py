"""From frames to optical flow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvideo.errors import KVideoError, UsageError, check_choice
from kvideo.flow.geometry import subtract_camera_motion
from kvideo.flow_settings import ESTIMATORS, PRESETS

# Of the presets of DIS, the smallest side in pixels that is safe: below, OpenCV chooses scales by
# the width alone, and flat pictures make it crash.
_LEAST_SIDES = {"ultrafast": 32, "fast": 32, "medium": 16}
_LUMA = np.array([[9797, 19234, 3737]], np.float32) / 2**15  # as libpng rounds 0.299, 0.587, 0.114
_FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 5,
    "winsize": 15,
    "iterations": 5,
    "poly_n": 7,
    "poly_sigma": 1.5,
    "flags": 0,
}


class FlowEstimator:
    """Estimates the optical flow between frames. May be called by several threads at once.

    Args:
        method: `"dis"` (dense inverse search, Kroeger et al. 2016; fast and good), `"farneback"`
            (Farnebäck 2003), or `"tvl1"` (Zach et al. 2007, as the two-stream paper's successors
            use it; some hundred times slower, wants scikit-image).
        preset: of `"dis"`: `"ultrafast"`, `"fast"` or `"medium"`.
        size: (H, W) to which frames are resized before; the flow is then that of the resized
            frames, in their pixels. None: as they come.
        compensate: whether the mean displacement of each frame, mostly the camera's, is subtracted.

    Raises:
        UsageError: an argument is out of its range.
        KVideoError: scikit-image is not installed.
    """

    def __init__(
        self,
        method: str = "dis",
        *,
        preset: str = "medium",
        size: Sequence[int] | None = None,
        compensate: bool = False,
    ) -> None:
        check_choice("method", method, ESTIMATORS)
        check_choice("preset", preset, PRESETS)
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UsageError(f"size must be (height, width) in pixels, not {size!r}.")
        if method == "tvl1":
            _optical_flow_tvl1()  # now rather than at the first frame
        self.method, self.preset, self.compensate = method, preset, compensate
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self._local = threading.local()

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The flow from one frame to another.

        Args:
            first: (H, W, 3) uint8 RGB, or (H, W) uint8 grey.
            second: the same shape.

        Returns:
            (H, W, 2) float32, or of `size`: pixels per frame.

        Raises:
            UsageError: the frames differ in shape, or are no pictures.
        """
        if np.shape(first)[:2] != np.shape(second)[:2]:  # whatever `size` makes of them
            raise UsageError(
                f"the frames must be of one size, not {np.shape(first)} and {np.shape(second)}."
            )
        return self.between(self.prepare(first), self.prepare(second))

    def sequence(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """The flow from each frame to the next.

        Args:
            frames: T of them, (H, W, 3) or (H, W) uint8, all of one size.

        Returns:
            (T - 1, H, W, 2) float32, or of `size`.

        Raises:
            UsageError: fewer than two frames, or frames of several sizes.
        """
        if len(frames) < 2:
            raise UsageError("optical flow needs at least two frames.")
        grey = [self.prepare(frame) for frame in frames]
        return np.stack([self.between(a, b) for a, b in zip(grey, grey[1:], strict=False)])

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """A frame as `between` takes it: grey, and of the working size.

        Args:
            frame: (H, W, 3) or (H, W) uint8.

        Raises:
            UsageError: it is no such picture.
        """
        import cv2

        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or not (frame.ndim == 2 or frame.shape[2:] == (3,)):
            raise UsageError(
                f"a frame must be (H, W, 3) or (H, W) uint8, not {frame.shape} {frame.dtype}."
            )
        if frame.ndim == 3:
            # Rounded down, as where a PNG file is read in grey: published errors come from that.
            # The sums are exact: whole numbers below 2^23, in units of 2^-15.
            frame = cv2.transform(frame.astype(np.float32), _LUMA).astype(np.uint8)
        if self.size is not None and frame.shape != self.size:
            shrinks = self.size[0] < frame.shape[0] or self.size[1] < frame.shape[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            frame = cv2.resize(frame, self.size[::-1], interpolation=method)
        return frame

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(H, W, 2) float32 from one prepared frame to another.

        Raises:
            UsageError: they differ in size.
        """
        if first.shape != second.shape:
            raise UsageError(
                f"the frames must be of one size, not {first.shape} and {second.shape}."
            )
        least = _LEAST_SIDES[self.preset] if self.method == "dis" else 1
        height, width = first.shape
        if min(height, width) < least:  # a wider border, which moves like the edge
            pads = [(0, max(0, least - height)), (0, max(0, least - width))]
            first, second = (np.pad(frame, pads, mode="edge") for frame in (first, second))
        flow = self._estimate(first, second)[:height, :width]
        return subtract_camera_motion(flow) if self.compensate else flow

    def _estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        import cv2

        if self.method == "farneback":
            return cv2.calcOpticalFlowFarneback(first, second, None, **_FARNEBACK)
        if self.method == "tvl1":
            rows, columns = _optical_flow_tvl1()(first, second, dtype=np.float32)
            return np.stack([columns, rows], axis=-1)
        if not hasattr(self._local, "dis"):  # has buffers of its own: one for each thread
            preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}")
            self._local.dis = cv2.DISOpticalFlow_create(preset)
        return self._local.dis.calc(first, second, None)


def _optical_flow_tvl1() -> Callable[..., Any]:
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError as cause:
        raise KVideoError(
            'the flow method "tvl1" needs scikit-image: pip install "kvideo[flow]".'
        ) from cause
    return optical_flow_tvl1
