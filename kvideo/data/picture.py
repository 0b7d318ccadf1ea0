"""From a decoded frame to the picture that a viewer sees: colours, shape, size and cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Pixel aspect ratios outside of this range are mistakes of the file, not shapes of pixels.
_MAX_ASPECT = 16.0


@dataclass(frozen=True)
class Orientation:
    """How the stored picture is turned for display.

    Attributes:
        quarter_turns: clockwise, 0 to 3.
        mirrored: swap left and right before turning.
    """

    quarter_turns: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, frame: Any) -> Orientation:
        """Reads the display matrix of a frame (ISO/IEC 14496-12, 8.3.2), to the nearest 90°."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        return cls(round(math.atan2(b, a) / (math.pi / 2)) % 4, mirrored)

    @property
    def lying(self) -> bool:
        """Whether width and height change places."""
        return self.quarter_turns % 2 == 1

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Turns `(height, width, channels)`; gives a view."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, -self.quarter_turns) if self.quarter_turns else picture


def pixel_aspect(stream: Any) -> float:
    """Width of a stored pixel over its height; 1 where the file says nothing or nonsense."""
    aspect = float(stream.sample_aspect_ratio or 0)
    return aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else 1.0


def display_size(
    width: int, height: int, aspect: float, orientation: Orientation
) -> tuple[int, int]:
    """(height, width) in square pixels, upright: the stored width is stretched by `aspect`."""
    width = max(1, round(width * aspect))
    return (width, height) if orientation.lying else (height, width)


class PictureMaker:
    """Converts frames of one video to RGB.

    swscale converts, with the colour matrix and range that the frame names (BT.601 where it names
    none), and resizes in the same pass. Its bilinear filter, when it shrinks, is a triangle as
    wide as two output pixels, so it does not alias; it is the filter of Pillow's and
    torchvision's antialiased resizing, with which most image models were trained.
    """

    def __init__(self, orientation: Orientation, size: tuple[int, int]) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._orientation = orientation
        self._size = size
        self._filter = Interpolation.BILINEAR
        self._reformatter = VideoReformatter()  # keeps its tables as long as the sizes stay

    def another(self) -> PictureMaker:
        """A like one, for pictures of another size in turn with these."""
        return type(self)(self._orientation, self._size)

    def make(
        self,
        frame: Any,
        out: np.ndarray,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int, int, int] | None = None,
    ) -> None:
        """Writes one picture.

        Args:
            frame: an `av.VideoFrame`.
            out: `(height, width, 3)` uint8, filled with RGB.
            size: (height, width) of the whole picture; None: its display size.
            crop: (top, left, height, width) of the part that `out` takes; None: the whole.
        """
        height, width = size or self._size
        if self._orientation.lying:
            height, width = width, height
        rgb = self._reformatter.reformat(
            frame, width, height, format="rgb24", interpolation=self._filter, threads=1
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        picture = self._orientation.apply(rows.reshape(height, width, 3))
        if crop is not None:
            top, left, height, width = crop
            picture = picture[top : top + height, left : left + width]
        out[...] = picture
