"""Single pictures as a model takes them: resized, then cut or given bars, as clips are in tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvideo.clip_spec import ClipSpec
from kvideo.data.clip_reader import GREY
from kvideo.data.picture import Orientation, PictureMaker, display_size
from kvideo.data.sampling import Window, view_windows
from kvideo.errors import UsageError


class Placer:
    """Brings pictures to a clip's size, by the centre crop or the bars of a test-time view.

    The pictures' size may change from one to the next.

    Args:
        spec: what a clip is.

    Raises:
        UsageError: the clip is not of RGB pictures.
    """

    def __init__(self, spec: ClipSpec) -> None:
        if spec.modality != "rgb":
            raise UsageError(f"the model takes {spec.modality}, and a stream gives RGB pictures.")
        self._spec = spec
        self._known: tuple[Any, ...] = ()
        self._window: Window | None = None
        self._maker: PictureMaker | None = None

    def from_array(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size, as (height, width, 3) uint8.

        Raises:
            UsageError: the frame is no such array.
        """
        import av

        frame = np.asarray(frame)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise UsageError(
                f"a frame must be (H, W, 3) uint8 RGB, not {frame.shape} {frame.dtype}."
            )
        if frame.shape[:2] == self._spec.size and self._spec.framing != "crop":
            return np.array(frame)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        return self._place(picture, 1.0, Orientation())

    def from_frame(self, frame: Any, aspect: float = 1.0) -> np.ndarray:
        """A decoded frame, as (height, width, 3) uint8.

        Args:
            frame: an `av.VideoFrame`.
            aspect: width of its pixels over their height.
        """
        return self._place(frame, aspect, Orientation.of(frame))

    def _place(self, frame: Any, aspect: float, orientation: Orientation) -> np.ndarray:
        known = (frame.width, frame.height, aspect, orientation)
        if self._window is None or self._maker is None or known != self._known:
            size = display_size(frame.width, frame.height, aspect, orientation)
            self._window = view_windows(size, self._spec, 1)[0]
            self._maker, self._known = PictureMaker(orientation, size), known
        _, _, height, width = self._window.crop
        picture = np.empty((height, width, 3), np.uint8)
        self._maker.make(frame, picture, self._window.size, self._window.crop)
        return self.framed(picture, self._window)

    def framed(self, picture: np.ndarray, window: Window) -> np.ndarray:
        """What was cut out by a window, inside the clip's frame; what is left free is grey."""
        height, width = picture.shape[:2]
        if (height, width) == self._spec.size:
            return picture
        canvas = np.full((*self._spec.size, 3), GREY, np.uint8)
        top, left = window.place
        canvas[top : top + height, left : left + width] = picture
        return canvas
