"""What a live stream comes from: a file, a pipe, a URL or a camera, opened with PyAV.

FFmpeg does the protocols. What it does not do is done here: time limits on pipes, clear sentences,
and stamps that go on where a stream's clock jumps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kvideo.data.picture import pixel_aspect
from kvideo.errors import KVideoError

# Of other schemes (gs://, s3:// …) files are opened by an `opener`.
_PROTOCOLS = frozenset(
    "http https rtsp rtsps rtmp rtmps rtmpt rtp srtp srt rist tcp tls udp udplite unix sctp mmsh "
    "mmst".split()
)
_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_PLAYLISTS = frozenset({"hls", "dash"})  # their size says nothing of the stream's
# Pictures one after the other: of a live stream the clock tells when each was taken.
_WITHOUT_STAMPS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
_POLL = 0.1  # seconds between two looks at whether to stop
_MAX_PROBE = 5.0  # seconds of a stream that FFmpeg reads, by default, to know what is in it
_MAX_JUMP = 10.0  # seconds; stamps that rise by more are of another clock
_MAX_FALL = 1.0  # seconds; as for files, see kvideo.data.frames
_MAX_CORRUPT = 100  # damaged frames in a row, before they are shown all the same
_MAX_ERRORS = 100  # in a row, before a stream counts as broken
_FALLBACK_STEP = 1 / 25  # seconds from frame to frame, where nothing is declared


class InputLostError(KVideoError):
    """A source cannot be opened, or breaks off.

    Attributes:
        detail: what happened, without the source's name.
    """

    def __init__(self, source: str, detail: str) -> None:
        self.detail = detail
        super().__init__(f"{shown(source)}: {detail}{'' if detail.endswith('?') else '.'}")


def kind_of(source: str) -> str:
    """`"file"`, `"pipe"`, `"url"` or `"camera"`; a missing file is a file."""
    scheme, separator, _ = source.partition("://")
    if separator:
        return "url" if scheme.lower() in _PROTOCOLS else "file"
    try:
        mode = os.fstat(0).st_mode if source == "-" else os.stat(source).st_mode
    except OSError:
        return "camera" if source.startswith("/dev/video") else "file"
    if source == "-":
        return "file" if stat.S_ISREG(mode) else "pipe"
    if stat.S_ISCHR(mode):
        return "camera"
    return "pipe" if stat.S_ISFIFO(mode) else "file"


def shown(source: str) -> str:
    """The source's name for messages: without a password."""
    if source == "-":
        return "standard input"
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", source)


class Input:
    """An open source of frames. Use it as a context manager.

    Attributes:
        aspect: width of a pixel over its height.
        bounded: whether the source has an end of its own: a file on a server.
        step: seconds from one frame to the next, as declared.

    Raises:
        InputLostError: it cannot be opened within the time limit.
    """

    def __init__(
        self, source: str, kind: str, timeout: float, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._source, self._timeout = source, timeout
        with contextlib.ExitStack() as stack, self._as_lost("opened"):
            file: Any = source
            if kind == "pipe":
                file = stack.enter_context(_Pipe(source, timeout, stopping))
            self._container = stack.enter_context(self._open(file, kind))
            self._stream = self._choose_stream()
            self._resources = stack.pop_all()
        playlist = self._container.format.name in _PLAYLISTS
        sized = self._container.size > 0 and not playlist
        self.bounded = kind == "url" and bool(self._container.duration or sized)
        self._clocked = (
            kind == "url" and not self.bounded and self._container.format.name in _WITHOUT_STAMPS
        )
        self.aspect = pixel_aspect(self._stream)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.step = 1 / float(rate) if rate else _FALLBACK_STEP

    def __enter__(self) -> Input:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stream = None  # must not be touched after its container
        self._resources.close()

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Seconds from the first frame, rising, and `av.VideoFrame`.

        Raises:
            InputLostError: the source breaks off, or nothing comes within the time limit.
        """
        base = float(self._stream.time_base)
        origin: float | None = None
        newest = 0.0
        for frame in self._decoded():
            stamp = None if frame.pts is None else frame.pts * base
            if self._clocked:
                stamp = time.monotonic()
            if origin is None:
                origin, seconds = stamp or 0.0, 0.0
            elif stamp is None:
                seconds = newest + self.step
            else:
                seconds = stamp - origin
                if not -_MAX_FALL <= seconds - newest <= _MAX_JUMP:
                    seconds = newest + self.step
                    origin = stamp - seconds
            newest = max(newest, seconds)
            yield newest, frame

    def _decoded(self) -> Iterator[Any]:
        """Frames as they come, without damaged ones."""
        corrupt = 0
        try:
            for frame in self._raw():
                corrupt = corrupt + 1 if frame.is_corrupt else 0
                if not 0 < corrupt <= _MAX_CORRUPT:
                    yield frame
        except InputLostError as error:
            # So FFmpeg tells that a server has closed a stream of unknown length.
            if self.bounded or getattr(error.__cause__, "errno", None) != errno.EIO:
                raise

    def _raw(self) -> Iterator[Any]:
        import av

        errors, heard = 0, time.monotonic()
        with self._as_lost("read"):
            packets = self._container.demux()  # all of them: sound alone is no sign of life
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        return
                    frames = packet.decode() if packet.stream is self._stream else []
                except (av.InvalidDataError, av.error.PatchWelcomeError):
                    errors += 1  # damaged: try what is behind it
                    if errors > _MAX_ERRORS:
                        raise
                    packets = self._container.demux()
                    continue
                if frames:
                    yield from frames
                    errors, heard = 0, time.monotonic()
                elif time.monotonic() - heard > self._timeout:
                    raise TimeoutError

    def _open(self, file: Any, kind: str) -> Any:
        import av

        if kind == "pipe":
            return av.open(file, metadata_errors="replace")
        # FFmpeg itself goes on with a file on a server where it broke off, but not with a stream.
        options = {"rtsp_flags": "prefer_tcp", "reconnect": "1", "reconnect_delay_max": "4"}
        probe = min(_MAX_PROBE, self._timeout / 2)
        options["analyzeduration"] = str(round(probe * 1e6))
        return av.open(
            file,
            format=_camera_format(self._source) if kind == "camera" else None,
            options=options if kind == "url" else {},
            timeout=(self._timeout, self._timeout),
            metadata_errors="replace",
        )

    def _choose_stream(self) -> Any:
        from av.stream import Disposition

        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                if stream.codec_context is None:
                    raise InputLostError(self._source, "FFmpeg has no decoder for this video")
                stream.codec_context.thread_type = "SLICE"  # threads by frame would hold some back
                return stream
        raise InputLostError(self._source, "there is no video in this stream")

    @contextlib.contextmanager
    def _as_lost(self, what: str) -> Iterator[None]:
        """Turns what FFmpeg and the system raise into InputLostError."""
        import av

        begun = time.monotonic()
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            opening = what == "opened"
            late = opening and time.monotonic() - begun >= self._timeout
            text = (getattr(error, "strerror", None) or str(error)).rstrip(".")
            if isinstance(error, av.error.ExitError | TimeoutError) or late:
                nothing = "no video" if opening else "nothing"
                detail = f"{nothing} came within {self._timeout:g} s"
            elif opening and isinstance(error, EOFError | av.InvalidDataError):
                detail = (
                    "it ended before the first frame, or is nothing that FFmpeg can play as it "
                    "comes (an MP4 file whose index is at its end cannot be streamed)"
                )
            elif opening and getattr(error, "errno", None) == errno.EIO:
                detail = f"it cannot be opened ({text}); is the host's name right?"
            else:
                detail = f"it cannot be {what} ({text})"
            raise InputLostError(self._source, detail) from error


def _camera_format(source: str) -> str:
    import av

    if not os.path.exists(source):
        raise InputLostError(source, "there is no such camera")
    name = _CAMERA_FORMATS.get(sys.platform, "")
    try:
        return av.ContainerFormat(name, "r").name
    except ValueError as error:
        detail = f'the FFmpeg inside of PyAV was built without cameras ("{name}")'
        raise InputLostError(source, detail) from error


class _Pipe:
    """What FFmpeg reads a pipe through: with a time limit, which FFmpeg itself has none for."""

    def __init__(self, source: str, timeout: float, stopping: Callable[[], bool]) -> None:
        self._timeout, self._stopping = timeout, stopping
        # Opened so, a named pipe does not wait for its writer without end.
        self._file = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_NONBLOCK)
        self._waits = source != "-"  # for a writer

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            TimeoutError: nothing came.
        """
        limit = time.monotonic() + self._timeout
        while not self._stopping():
            if select.select([self._file], [], [], _POLL)[0]:
                data = os.read(self._file, size)
                if data or not self._waits:
                    self._waits = False
                    return data
                time.sleep(_POLL)
            if time.monotonic() > limit:
                raise TimeoutError
        return b""
