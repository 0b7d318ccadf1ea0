"""The decoder's pictures: by number, and in the form that gives PyAV's when they are resized."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from kvideo.data.picture import Orientation, PictureMaker
from kvideo_tfio.native import Stream
from kvideo_tfio.suitability import UnsuitableError

_RECENT_BYTES = 1 << 25  # of pictures kept, for clips that overlap


class Picture:
    """One RGB picture of the decoder.

    The decoder converts to RGB what PyAV resizes before the conversion. Its conversion is quick:
    a chroma sample is used for four pixels, and all is rounded down. So the samples can be had
    back, but for a step of brightness; resized from there, pictures differ less than half as much.

    Args:
        rgb: (height, width, 3) uint8.
        lift: what the brightness lacks; None where there is a chroma sample for each pixel.
    """

    def __init__(self, rgb: np.ndarray, lift: int | None = None) -> None:
        self.rgb = np.ascontiguousarray(rgb)
        self._lift = lift
        self._frames: dict[str, Any] = {}

    def frame(self, size: tuple[int, int]) -> Any:
        """An `av.VideoFrame` from which a picture of (height, width) is made."""
        exact = size == self.rgb.shape[:2] or self._lift is None
        kind = "rgb24" if exact else "yuv420p"
        if kind not in self._frames:
            import av

            rgb = av.VideoFrame.from_ndarray(self.rgb, format="rgb24")
            self._frames[kind] = rgb if exact else self._samples(rgb)
        return self._frames[kind]

    def brightness(self) -> np.ndarray:
        """(height, width) uint8: the luma samples, as they come back."""
        import av

        frame = _to_samples(av.VideoFrame.from_ndarray(self.rgb, format="rgb24"))
        return luma(frame).copy()

    def _samples(self, rgb: Any) -> Any:
        frame = _to_samples(rgb)
        values, lift = luma(frame), self._lift or 0
        np.add(values, np.uint8(lift), out=values, where=values <= 255 - lift)
        return frame


def luma(frame: Any) -> np.ndarray:
    """(height, width) uint8: the luma samples of a planar frame, a view."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[
        : frame.height, : frame.width
    ]


def _to_samples(rgb: Any) -> Any:
    from av.video.reformatter import Interpolation

    return rgb.reformat(format="yuv420p", interpolation=Interpolation.POINT)


class TfioPictureMaker(PictureMaker):
    """A `PictureMaker` that takes a `Picture`, too."""

    def make(
        self,
        frame: Any,
        out: np.ndarray,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int, int, int] | None = None,
    ) -> None:
        """See `PictureMaker.make`."""
        if isinstance(frame, Picture):
            height, width = size or self._size
            frame = frame.frame((width, height) if self._orientation.lying else (height, width))
        super().make(frame, out, size, crop)


class Pictures:
    """The pictures of a video by number; those before the last ones asked for cost a new start.

    Args:
        path: a local file.
        index: which of its video streams.
        count: how many pictures it has.
    """

    def __init__(self, path: str, index: int, count: int) -> None:
        self._path, self._index, self._count = path, index, count
        self._recent: deque[np.ndarray] = deque()
        self._position = 0  # of the picture after the recent ones
        self._stream: Stream | None = None

    def close(self) -> None:
        """Frees the decoder."""
        self._recent.clear()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def rgb(self, index: int) -> np.ndarray:
        """(height, width, 3) uint8.

        Raises:
            UnsuitableError: the decoder gives fewer or more pictures than there are.
        """
        if self._stream is None or index < self._position - len(self._recent):
            self._start()
        # At the end it is seen whether there are as many pictures as times.
        until = self._count + 1 if index == self._count - 1 else index + 1
        while self._position < until and self._advance(index):
            pass
        if self._position <= index or self._position > self._count:
            raise UnsuitableError("videos of which it gives fewer or more frames than there are")
        return self._recent[index - self._position]

    def _start(self) -> None:
        import tensorflow as tf

        self.close()
        self._position = 0
        try:
            self._stream = Stream(self._path, self._index)
        except tf.errors.OpError as error:
            raise UnsuitableError("videos that it cannot open") from error

    def _advance(self, wanted: int) -> bool:
        """Decodes the next pictures; False at the end."""
        pictures = self._stream.next() if self._stream is not None else ()
        for picture in pictures:
            self._recent.append(picture)
            self._position += 1
        if self._recent:
            room = max(1, _RECENT_BYTES // self._recent[0].nbytes)
            while len(self._recent) > room and self._position - len(self._recent) < wanted:
                self._recent.popleft()
        return len(pictures) > 0


def first_picture_differs(rgb: np.ndarray, frame: Any, tolerance: int) -> bool:
    """Whether the decoder's first picture is not PyAV's.

    Args:
        rgb: (height, width, 3) uint8.
        frame: the `av.VideoFrame`.
        tolerance: what values may differ by.
    """
    shape = frame.height, frame.width, 3
    wanted = np.empty(shape, np.uint8)
    PictureMaker(Orientation(), shape[:2]).make(frame, wanted)
    return rgb.shape != shape or np.abs(rgb.astype(np.int16) - wanted).max() > tolerance
