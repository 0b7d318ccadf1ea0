"""Reading frames out of video files with PyAV.

Frames are chosen by their presentation time. This module imports neither TensorFlow nor, before
the first file is opened, PyAV.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from kvideo.errors import DecodeError


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about its (first) video stream.

    Attributes:
        path: the file, as given.
        width: width in pixels as displayed: turned upright and with square pixels.
        height: height in pixels as displayed.
        frame_rate: average frames per second, as declared.
        duration: seconds, as declared.
        num_frames: as declared; 0 where the file does not say.
        codec: FFmpeg's name, such as "h264".
        pixel_format: FFmpeg's name, such as "yuv420p".
        rotation: degrees by which the stored picture is turned clockwise for display.
        sample_aspect_ratio: width of a stored pixel over its height.
        coded_width: width as stored.
        coded_height: height as stored.
    """

    path: str
    width: int
    height: int
    frame_rate: float
    duration: float
    num_frames: int
    codec: str
    pixel_format: str
    rotation: int
    sample_aspect_ratio: float
    coded_width: int
    coded_height: int


def open_video(
    path: str | os.PathLike[str],
    *,
    opener: Callable[[str], BinaryIO] | None = None,
    threads: int = 1,
) -> VideoReader:
    """Opens a video file.

    Args:
        path: a local path, or whatever `opener` understands.
        opener: gives a seekable binary file for `path`; None opens local files.
        threads: decoding threads for this one file.

    Raises:
        DecodeError: the file is missing, or gives no frames.
    """
    return VideoReader(os.fspath(path), opener, threads)


class VideoReader:
    """An open video file; a context manager."""

    def __init__(
        self, path: str, opener: Callable[[str], BinaryIO] | None = None, threads: int = 1
    ) -> None:
        import av

        self._path = path
        self._file = None
        try:
            if opener is not None:
                self._file = opener(path)
            elif not os.path.exists(path):
                raise DecodeError(path, "missing", "there is no such file")
            elif os.path.isdir(path):
                raise DecodeError(path, "unreadable", "is a folder, not a video file")
            else:
                self._file = open(path, "rb")  # noqa: SIM115 - closed in close()
                if os.path.getsize(path) == 0:
                    raise DecodeError(path, "empty", "the file is empty")
            try:
                self._container = av.open(self._file, "r", metadata_errors="replace")
            except (av.FFmpegError, ValueError) as error:
                raise DecodeError(path, "unreadable", f"cannot be opened ({error})") from error
            streams = [
                stream
                for stream in self._container.streams.video
                if not stream.disposition & av.stream.Disposition.attached_pic
            ]
            if not streams:
                raise DecodeError(path, "no_video", "holds no video stream")
            self._stream = streams[0]
            self._stream.codec_context.thread_count = threads
            try:
                frame, self._first_time = self._first_frame()
            except StopIteration:
                raise DecodeError(path, "no_frames", "no frame could be decoded") from None
        except BaseException:
            self.close()
            raise
        self.info = self._describe(frame)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; harmless when it is closed already."""
        if getattr(self, "_container", None) is not None:
            self._container.close()
        if self._file is not None:
            self._file.close()

    def _first_frame(self) -> tuple[Any, float]:
        for frame in self._container.decode(self._stream):
            return frame, frame.time or 0.0
        raise StopIteration

    def _describe(self, frame: Any) -> VideoInfo:
        stream, codec = self._stream, self._stream.codec_context
        aspect = float(stream.sample_aspect_ratio or 0) or 1.0
        width, height = max(1, round(frame.width * aspect)), frame.height
        rotation = -frame.rotation % 360
        if rotation % 180 == 90:
            width, height = height, width
        if stream.duration:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = (self._container.duration or 0) / 1e6
        return VideoInfo(
            path=self._path,
            width=width,
            height=height,
            frame_rate=float(stream.average_rate or stream.guessed_rate or 0) or 25.0,
            duration=duration,
            num_frames=stream.frames,
            codec=codec.name,
            pixel_format=frame.format.name,
            rotation=rotation,
            sample_aspect_ratio=aspect,
            coded_width=frame.width,
            coded_height=frame.height,
        )

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        self._container.seek(self._stream.start_time or 0, stream=self._stream)
        for frame in self._container.decode(self._stream):
            yield (frame.time or 0.0) - self._first_time, frame

    def _convert(self, frame: Any, size: tuple[int, int] | None) -> np.ndarray:
        height, width = size or (self.info.height, self.info.width)
        if self.info.rotation % 180 == 90:
            height, width = width, height
        image = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
        return np.rot90(image, -(self.info.rotation // 90))

    def read(
        self,
        times: Sequence[float],
        *,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int, int, int] | None = None,
    ) -> np.ndarray:
        """The frames on display at `times`.

        Args:
            times: seconds from the first frame, in any order; repeats allowed. Before the first
                frame gives the first, after the last gives the last.
            size: (height, width) to which the displayed picture is resized; None: as displayed.
            crop: (top, left, height, width) cut out of the resized picture.

        Returns:
            `(len(times), height, width, 3)` uint8 RGB.
        """
        height, width = size or (self.info.height, self.info.width)
        top, left, height, width = crop or (0, 0, height, width)
        clip = np.empty((len(times), height, width, 3), np.uint8)
        tolerance = min(1e-3, 0.25 / self.info.frame_rate)
        order = sorted(range(len(times)), key=lambda i: times[i])
        held = None
        for time, frame in self._decoded():
            while held is not None and order and times[order[0]] + tolerance < time:
                image = self._convert(held, size)[top : top + height, left : left + width]
                clip[order.pop(0)] = image
            held = frame
            if not order:
                break
        for i in order:
            clip[i] = self._convert(held, size)[top : top + height, left : left + width]
        return clip

    def frame_times(self) -> np.ndarray:
        """Presentation times of all frames, seconds from the first frame."""
        return np.array([time for time, _ in self._decoded()])

    def frames(self, *, size: tuple[int, int] | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """All frames in order with their times, in constant memory."""
        for time, frame in self._decoded():
            yield time, self._convert(frame, size)
