"""Reading frames out of video files with PyAV.

Frames are chosen by their presentation time, and only those are converted, resized and cut.
Neither TensorFlow nor, before the first file is opened, PyAV is imported here.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kvideo.data.containers import cut_off, file_size
from kvideo.data.shards.layout import is_stored
from kvideo.errors import DecodeError, UsageError

if TYPE_CHECKING:
    from kvideo.data.frames import FrameSource
    from kvideo.data.picture import PictureMaker

# What a container that rounds its stamps may be off by: 1 ms (Matroska).
_TOLERANCE_SECONDS = 1e-3
_FALLBACK_RATE = 25.0
_MAX_RATE = 1000.0  # above it, a declared rate is the container's clock
_BUFFER_BYTES = 1 << 16
# Decoders that draw text: a text file is no video.
_TEXT_CODECS = frozenset({"ansi", "bintext", "xbin", "idf"})


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a file's first video stream without reading all of it.

    Attributes:
        path: the file, as given.
        width: width in pixels as displayed: turned upright and with square pixels.
        height: height in pixels as displayed.
        frame_rate: average frames per second.
        duration: seconds from the first frame to the end of the last one, as declared; where
            nothing is declared or the file is cut off, as counted.
        num_frames: as declared; 0 where the file does not say. It may be wrong.
        codec: FFmpeg's name, such as "h264".
        pixel_format: FFmpeg's name, such as "yuv420p"; "" where FFmpeg has no part in it.
        rotation: degrees by which the stored picture is turned clockwise for display.
        mirrored: the stored picture is mirrored, left to right, before it is turned.
        sample_aspect_ratio: width of a stored pixel over its height.
        coded_width: width as stored; 0: as displayed.
        coded_height: height as stored; 0: as displayed.
        cut_off: why the file must be incomplete ("3000 of 5000 bytes are there"), or "".
    """

    path: str
    width: int
    height: int
    frame_rate: float
    duration: float
    num_frames: int
    codec: str
    pixel_format: str = ""
    rotation: int = 0
    mirrored: bool = False
    sample_aspect_ratio: float = 1.0
    coded_width: int = 0
    coded_height: int = 0
    cut_off: str = ""


@dataclass(frozen=True)
class Pictures:
    """What is wanted of a video, see `VideoReader.read`.

    Attributes:
        times: seconds.
        size: (height, width) of the whole picture.
        crop: (top, left, height, width) of the part that is taken.
    """

    times: Sequence[float] | np.ndarray
    size: tuple[int, int] | None = None
    crop: tuple[int, int, int, int] | None = None


def open_video(
    path: str | os.PathLike[str],
    *,
    opener: Callable[[str], BinaryIO] | None = None,
    threads: int = 1,
) -> VideoReader:
    """Opens a video file and decodes its first frame.

    Args:
        path: a local path, or one that `opener` understands; a video of a shard is
            `FILE.tfrecord#NUMBER`.
        opener: gives a seekable binary file for `path`. It is asked for paths with "://" in them
            and for those that do not exist locally; all others are opened directly.
        threads: decoding threads for this file. One is best where several files are read at the
            same time.

    Raises:
        DecodeError: the file is missing, empty, no video, or gives no frame.
    """
    path = os.fspath(path)
    if is_stored(path):
        from kvideo.data.shards.reading import StoredVideoReader

        return StoredVideoReader(path, opener)
    return VideoReader(path, opener, threads)


class VideoReader:
    """An open video file. Use it as a context manager, or call `close`.

    One reader serves one thread at a time; it holds one open file.

    Attributes:
        info: what is known of the video.
    """

    info: VideoInfo

    def __init__(
        self, path: str, opener: Callable[[str], BinaryIO] | None = None, threads: int = 1
    ) -> None:
        self._path, self._opener = path, opener
        self._file: BinaryIO | None = None
        self._source: FrameSource | None = None
        self._cut_off = ""
        try:
            with self._as_decode_errors():
                self._source = self._new_source(threads)
                if self._source.first is None:
                    raise self._no_frames(self._source.error)
                self.info, self._maker = self._describe(self._source)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and frees the decoder; harmless when done before."""
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(
        self,
        times: Sequence[float] | np.ndarray,
        *,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int, int, int] | None = None,
    ) -> np.ndarray:
        """The frames on display at given times.

        The frame for a time is the last one whose presentation time is not greater, where times
        may be off by 1 ms or a quarter of a frame, whichever is less. Times before the first
        frame give the first one, times after the last frame the last one.

        Args:
            times: seconds from the first frame, in any order; repeats allowed.
            size: (height, width) to which the displayed picture is resized; None: as displayed.
            crop: (top, left, height, width) of the part of the resized picture that is returned.

        Returns:
            `(len(times), height, width, 3)` uint8 RGB.

        Raises:
            DecodeError: the file cannot be read any more, or has an unknown pixel format.
            UsageError: a time is not a number, or `size` or `crop` is impossible.
        """
        return self.read_all([Pictures(times, size, crop)])[0]

    def read_all(self, requests: Sequence[Pictures]) -> list[np.ndarray]:
        """What `read` gives for each of several requests, in one pass over the file.

        Raises:
            DecodeError: the file cannot be read any more, or has an unknown pixel format.
            UsageError: a time is not a number, or a size or crop is impossible.
        """
        source = self._open_source()
        makers = [self._maker, *(self._maker.another() for _ in requests[1:])]
        tasks = [
            _Task(request, self._window(request.size, request.crop), maker)
            for request, maker in zip(requests, makers, strict=True)
        ]
        tolerance = min(_TOLERANCE_SECONDS, 0.25 / self.info.frame_rate)
        seconds = np.concatenate([task.seconds for task in tasks])
        if np.isnan(seconds).any():
            raise UsageError("times must be numbers of seconds; got NaN")
        stamps = source.origin + np.maximum(seconds + tolerance, 0.0) / source.tick
        limits, places = np.unique(stamps, return_inverse=True)
        owners = np.repeat(np.arange(len(tasks)), [len(task.seconds) for task in tasks])
        rows = np.concatenate([np.arange(len(task.seconds)) for task in tasks])
        order = np.argsort(places, kind="stable")
        ends = np.cumsum(np.bincount(places, minlength=len(limits)))
        with self._as_decode_errors():
            for index, frame in enumerate(source.at(limits.tolist())):
                for place in order[ends[index - 1] if index else 0 : ends[index]]:
                    tasks[owners[place]].take(frame, int(rows[place]))
        return [task.clip for task in tasks]

    def frame_times(self) -> np.ndarray:
        """Presentation times of all frames, in seconds from the first; decodes the file."""
        source = self._open_source()
        with self._as_decode_errors():
            return np.array([(s - source.origin) * source.tick for s, _ in source.in_order()])

    def frames(self, *, size: tuple[int, int] | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """All frames in order with their times in seconds, in constant memory.

        Args:
            size: (height, width) of the pictures; None: as displayed.

        Raises:
            UsageError: the reader was used for something else before the end.
        """
        source = self._open_source()
        _, _, height, width = self._window(size, None)
        with self._as_decode_errors():
            for stamp, frame in source.in_order():
                picture = np.empty((height, width, 3), np.uint8)
                self._maker.make(frame, picture, size)
                yield (stamp - source.origin) * source.tick, picture

    def _window(
        self, size: tuple[int, int] | None, crop: tuple[int, int, int, int] | None
    ) -> tuple[int, int, int, int]:
        """The crop, checked; the whole picture where there is none."""
        height, width = size or (self.info.height, self.info.width)
        if height < 1 or width < 1:
            raise UsageError(f"size must be (height, width) of at least one pixel; got {size}")
        if crop is None:
            return 0, 0, height, width
        top, left, rows, columns = crop
        inside = 0 <= top <= height - rows and 0 <= left <= width - columns
        if not inside or rows < 1 or columns < 1:
            raise UsageError(
                f"crop must be (top, left, height, width) inside of the {height}×{width} picture; "
                f"got {crop}"
            )
        return top, left, rows, columns

    def _new_source(self, threads: int) -> FrameSource:
        from kvideo.data.frames import FrameSource

        return FrameSource(self._open_stream, threads)

    def _open_source(self) -> FrameSource:
        if self._source is None:
            raise UsageError(f"{self._path}: the reader is closed; open the video again")
        return self._source

    @contextlib.contextmanager
    def _as_decode_errors(self) -> Iterator[None]:
        """Turns what FFmpeg and the file system raise into DecodeError."""
        from av.error import FFmpegError

        try:
            yield
        except FFmpegError as error:
            raise DecodeError(self._path, "unreadable", _sentence(error)) from error
        except OSError as error:
            raise DecodeError(self._path, "unreadable", _sentence(error)) from error

    def _open_file(self) -> BinaryIO:
        local = os.path.exists(self._path)
        if self._opener is not None and ("://" in self._path or not local):
            try:
                file = self._opener(self._path)
                file.seek(0)
                return file
            except Exception as error:  # of whatever library stands behind the opener
                missing = isinstance(error, FileNotFoundError) or "NotFound" in type(error).__name__
                reason = "missing" if missing else "unreadable"
                raise DecodeError(self._path, reason, _sentence(error)) from error
        if not local:
            raise DecodeError(self._path, "missing", "there is no such file")
        if os.path.isdir(self._path):
            raise DecodeError(self._path, "unreadable", "this is a folder, not a video file")
        return open(self._path, "rb", buffering=0)  # FFmpeg has a buffer of its own

    def _open_stream(self) -> tuple[Any, Any]:
        import av

        if self._file is not None:
            self._file.close()
        self._file = self._open_file()
        size = file_size(self._file)
        if size == 0:
            raise DecodeError(self._path, "empty", "the file is empty")
        self._cut_off = cut_off(self._file, size) or ""
        try:
            container = av.open(
                _NamelessFile(self._file, size),
                "r",
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
            )
        except (av.FFmpegError, ValueError) as error:
            if self._cut_off:
                raise self._no_frames(error) from error
            raise DecodeError(
                self._path,
                "unreadable",
                f"this is no video that FFmpeg can read ({_sentence(error)})",
            ) from error
        try:
            return container, self._choose_stream(container)
        except BaseException:
            container.close()
            raise

    def _choose_stream(self, container: Any) -> Any:
        """The first video stream that is not a cover picture."""
        from av.stream import Disposition

        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise DecodeError(self._path, "no_video", "there is no video in the file")
        if streams[0].codec_context is None:
            raise DecodeError(self._path, "no_frames", "FFmpeg has no decoder for this video")
        if streams[0].codec_context.name in _TEXT_CODECS:
            raise DecodeError(self._path, "unreadable", "this is a text file, not a video")
        return streams[0]

    def _no_frames(self, error: Exception | None) -> DecodeError:
        detail = "no frame could be decoded"
        if self._cut_off:
            detail += f" ({self._cut_off}); the file is probably cut off"
            return DecodeError(self._path, "truncated", detail)
        if error is not None:
            detail += f" ({_sentence(error)})"
        return DecodeError(self._path, "no_frames", detail)

    def _describe(self, source: FrameSource) -> tuple[VideoInfo, PictureMaker]:
        from kvideo.data.picture import Orientation, PictureMaker, display_size, pixel_aspect

        duration = _declared_duration(source)
        if self._cut_off or duration <= 0:
            duration = source.counted_duration()  # may open the file anew
        stream, frame = source.stream, source.first
        aspect, orientation = pixel_aspect(stream), Orientation.of(frame)
        height, width = display_size(frame.width, frame.height, aspect, orientation)
        info = VideoInfo(
            path=self._path,
            width=width,
            height=height,
            frame_rate=_frame_rate(stream, duration),
            duration=duration,
            num_frames=stream.frames,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            rotation=90 * orientation.quarter_turns,
            mirrored=orientation.mirrored,
            sample_aspect_ratio=aspect,
            coded_width=frame.width,
            coded_height=frame.height,
            cut_off=self._cut_off,
        )
        return info, PictureMaker(orientation, (height, width))


class _Task:
    """A request that is being fulfilled."""

    def __init__(
        self, request: Pictures, window: tuple[int, int, int, int], maker: PictureMaker
    ) -> None:
        self.seconds = np.asarray(request.times, np.float64).reshape(-1)
        self.clip = np.empty((len(self.seconds), *window[2:], 3), np.uint8)
        self._size, self._window, self._maker = request.size, window, maker
        self._frame, self._row = None, 0

    def take(self, frame: Any, row: int) -> None:
        """Puts a frame, or the copy of one that was just made, into a row of the clip."""
        if frame is self._frame:
            self.clip[row] = self.clip[self._row]
        else:
            self._maker.make(frame, self.clip[row], self._size, self._window)
        self._frame, self._row = frame, row


class _NamelessFile:
    """What FFmpeg reads from.

    It does not learn the name, so it takes nothing in it for a protocol, a pattern or a type; and
    where a damaged file sends it out of the file, it gets an error code, not an exception.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.read, self.tell, self._seek = file.read, file.tell, file.seek
        self._size = size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int | None:
        inside = whence != os.SEEK_SET or 0 <= offset <= self._size
        return self._seek(offset, whence) if inside else -1


def _sentence(error: Exception) -> str:
    """What an error says, without its number and file name."""
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__


def _frame_rate(stream: Any, duration: float) -> float:
    counted = stream.frames / duration if duration > 0 else 0.0
    for rate in (stream.average_rate, stream.guessed_rate, counted):
        if rate and 0 < float(rate) <= _MAX_RATE:
            return float(rate)
    return _FALLBACK_RATE


def _declared_duration(source: FrameSource) -> float:
    """Seconds from the first frame to the end, as the file says; 0 where it does not."""
    stream = source.stream
    if stream.duration:
        return float(stream.duration) * source.tick
    tag = next((v for k, v in stream.metadata.items() if k.startswith("DURATION")), "")
    first = source.origin * source.tick
    with contextlib.suppress(ValueError):  # Matroska: "00:00:10.333000000"
        hours, minutes, seconds = (float(part) for part in tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds - first
    if source.container.duration:
        end = source.container.duration / 1e6 + (source.container.start_time or 0) / 1e6
        return end - first
    return 0.0 if math.isinf(first) else stream.frames / float(stream.average_rate or math.inf)
