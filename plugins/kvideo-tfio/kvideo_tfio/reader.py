"""Videos whose frames tensorflow-io decodes, or PyAV where it would not decode them rightly."""

from __future__ import annotations

import os
import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from kvideo.data.decode import VideoInfo, VideoReader
from kvideo.data.frames import FrameSource
from kvideo.data.picture import Orientation, PictureMaker
from kvideo.errors import UsageError
from kvideo_tfio.pictures import (
    Picture,
    Pictures,
    TfioPictureMaker,
    first_picture_differs,
    luma,
)
from kvideo_tfio.suitability import (
    DAMAGED,
    TIMELESS,
    PacketSurvey,
    UnsuitableError,
    check_stream,
)

# Where a first picture differs by more, the decoder does not give PyAV's pictures.
TOLERANCE = 2

_warned: set[str] = set()
_warning = threading.Lock()


def warn_once(kind: str, path: str) -> None:
    """Says that such videos are read with PyAV, the first time for each kind."""
    with _warning:
        if kind in _warned:
            return
        _warned.add(kind)
    warnings.warn(f"{path} is read with PyAV, not tensorflow-io, as are all {kind}.", stacklevel=2)


class TfioVideoReader(VideoReader):
    """As `kvideo.data.decode.VideoReader`, with frames from tensorflow-io where it is fit for it.

    Files are opened, described and timed by PyAV; so errors and times are the same.
    """

    def _new_source(self, threads: int) -> FrameSource:
        return TfioSource(self._open_stream, threads, self._path, self._reason_to_refuse)

    def _describe(self, source: FrameSource) -> tuple[VideoInfo, PictureMaker]:
        info, _ = super()._describe(source)
        orientation = Orientation(info.rotation // 90, info.mirrored)
        return info, TfioPictureMaker(orientation, (info.height, info.width))

    def _reason_to_refuse(self) -> str:
        if "://" in self._path or not os.path.exists(self._path):
            return "files that are not local"
        return "files that are cut off" if self._cut_off else ""


class TfioSource(FrameSource):
    """The frames of a video stream, decoded by tensorflow-io from the first on.

    Args:
        open_stream: see `FrameSource`.
        threads: for PyAV's decoding.
        path: the file.
        refusal: gives a reason against this decoder, or "".
    """

    def __init__(
        self,
        open_stream: Callable[[], tuple[Any, Any]],
        threads: int,
        path: str,
        refusal: Callable[[], str],
    ) -> None:
        self._path, self._refusal = path, refusal
        self._stamps: list[int] | None = None  # None: not looked at, or PyAV reads
        self._judged = False
        self._pictures: Pictures | None = None
        self._lift: int | None = None
        self._last: tuple[int, Picture | None] = (-1, None)
        self._pass: object = None
        super().__init__(open_stream, threads)

    def close(self) -> None:
        """Frees both decoders and the container."""
        self._drop_pictures()
        super().close()

    def at(self, limits: Sequence[float]) -> Iterator[Any]:
        """See `FrameSource.at`."""
        served = 0
        if self._suits():
            self._pass = None
            try:
                for limit in limits:
                    yield self._frame(max(0, bisect_right(self._known(), limit) - 1))
                    served += 1
                return
            except UnsuitableError as error:
                self._refuse(error)
        yield from super().at(limits[served:])

    def in_order(self) -> Iterator[tuple[int, Any]]:
        """See `FrameSource.in_order`."""
        served = 0
        if self._suits():
            self._pass = current = object()
            try:
                for index, stamp in enumerate(self._known()):
                    yield stamp, self._frame(index)
                    served += 1
                    if self._pass is not current:
                        raise UsageError(
                            "the reader was used for something else before frames() had ended; "
                            "open the file a second time"
                        )
                return
            except UnsuitableError as error:
                self._refuse(error)
        yield from islice(super().in_order(), served, None)

    def _known(self) -> list[int]:
        return self._stamps or []

    def _suits(self) -> bool:
        """Whether tensorflow-io decodes this video; looked at when the first frame is wanted."""
        if not self._judged:
            self._judged = True
            try:
                self._stamps = self._examine()
            except UnsuitableError as error:
                self._refuse(error)
        return self._stamps is not None

    def _examine(self) -> list[int]:
        from av.error import FFmpegError

        if reason := self._refusal():
            raise UnsuitableError(reason)
        check_stream(self.stream, self.container, self.first)
        if self._sorts or self.first.pts is None:
            raise UnsuitableError(TIMELESS)
        # The packets are read in a pass of their own: what has been read ahead is of no use then.
        self._end_packets()
        self.container.close()
        self._open()
        codec = self.stream.codec_context
        survey = PacketSurvey(codec.codec.canonical_name, codec.extradata)
        try:
            stamps = survey.stamps(self._packets)
        except FFmpegError as error:
            raise UnsuitableError(DAMAGED) from error
        finally:
            self._run = None
        if stamps[:1] != [self.origin]:
            raise UnsuitableError(DAMAGED)
        videos = [stream.index for stream in self.container.streams.video]
        self._pictures = Pictures(self._path, videos.index(self.stream.index), len(stamps))
        self._compare_first(self._pictures.rgb(0))
        return stamps

    def _compare_first(self, rgb: np.ndarray) -> None:
        """Holds the first picture against PyAV's."""
        if first_picture_differs(rgb, self.first, TOLERANCE):
            raise UnsuitableError("videos whose first picture it gives otherwise")
        if self.first.format.name == "yuv420p":
            lacking = luma(self.first).astype(np.int16) - Picture(rgb).brightness()
            self._lift = max(0, round(float(np.median(lacking))))

    def _frame(self, index: int) -> Picture:
        if self._pictures is None:
            raise UsageError(f"{self._path}: the reader is closed; open the video again")
        number, picture = self._last
        if picture is None or number != index:  # the same object again is not made a picture anew
            picture = Picture(self._pictures.rgb(index), self._lift)
            self._last = index, picture
        return picture

    def _refuse(self, error: UnsuitableError) -> None:
        self._stamps, self._run = None, None
        self._drop_pictures()
        warn_once(str(error), self._path)

    def _drop_pictures(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
