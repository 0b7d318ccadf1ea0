"""Pictures from a live source at a model's frame rate, in time: a thread decodes, late ones go.

Frames are chosen by their presentation time, as everywhere: for each moment of the model's rate
the last frame that begins up to it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from kvideo.clip_spec import ClipSpec
from kvideo.data.decode import open_video
from kvideo.data.live_inputs import Input, InputLostError, kind_of, shown
from kvideo.data.placing import Placer
from kvideo.data.sampling import view_windows
from kvideo.errors import KVideoError, UsageError
from kvideo.text import plural

_TOLERANCE = 1e-3  # seconds that containers round by, as for files
_QUEUE_SECONDS = 0.5
_QUEUE_FRAMES = (4, 32)  # at least, at most
_BLOCK = 4  # pictures read of a file at once
_BACK_OFF = (0.25, 8.0)  # seconds before the first new attempt; doubled, up to
_LASTING_SECONDS = 5.0  # a connection of this length is a good one
_POLL = 0.1  # seconds between two looks at whether to stop
_GRACE = 2.0  # seconds beyond the time limit, before a source that ignores it is given up


class StreamError(KVideoError):
    """A live source cannot be reached, or broke off and did not come back."""


class LiveFrame(NamedTuple):
    """One picture of a stream.

    Attributes:
        time: seconds from the stream's first frame.
        picture: (height, width, 3) uint8 RGB, of the model's size.
        connection: how often the source had been connected anew.
    """

    time: float
    picture: np.ndarray
    connection: int = 0


class FrameGrid:
    """The moments 0, 1/rate, 2/rate … s, given out as frames come.

    Args:
        frame_rate: moments a second.
    """

    def __init__(self, frame_rate: float) -> None:
        self._rate, self._next = frame_rate, 0

    def before(self, seconds: float) -> Iterator[float]:
        """The moments not given out that come before a frame's beginning.

        At these, the frame before that one is on display.
        """
        while (moment := self._next / self._rate) < seconds - _TOLERANCE:
            self._next += 1
            yield moment


class LiveSource:
    """The pictures of a source, at a model's frame rate; iterate over it, once.

    A thread decodes into a short queue. From a live source (a URL, a pipe, a camera) pictures are
    dropped, the oldest first, when the consumer is so late that the queue is full and its
    newest picture's time has come; a source that delivers faster than its clock has to wait. Of a
    file nothing is dropped, unless it is paced. A file on a server is a file.

    A live source that breaks off is connected anew, with growing pauses; times go on by the clock.

    Args:
        source: a path, `-` for standard input, a URL that FFmpeg knows, or `/dev/videoN`.
        spec: how the model takes its clips.
        timeout: seconds to wait for a connection, and for the next frame.
        reconnect: attempts in a row to connect anew.
        realtime: hand out a file's pictures by the clock, and drop late ones.
        keep_all: drop nothing, from a live source neither: it has to wait.
        opener: see `kvideo.data.open_video`.
        say: is told, from another thread, of connections lost and made anew.

    Attributes:
        live: whether the source is live (files on servers are known as files once opened).
        frames: pictures handed out.
        dropped: pictures dropped.
        reconnects: connections made anew.

    Raises:
        UsageError: a value is out of its range.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        spec: ClipSpec,
        *,
        timeout: float = 10.0,
        reconnect: int = 5,
        realtime: bool = False,
        keep_all: bool = False,
        opener: Callable[[str], BinaryIO] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if not timeout > 0:
            raise UsageError(f"timeout must be above 0 s, not {timeout}.")
        if reconnect < 0:
            raise UsageError(f"reconnect must be at least 0, not {reconnect}.")
        if realtime and keep_all:
            raise UsageError("a source that is paced by the clock drops late pictures.")
        self._source, self._spec = os.fspath(source).removeprefix("file://"), spec
        self._kind = kind_of(self._source)
        self._timeout, self._attempts, self._realtime = timeout, reconnect, realtime
        self._opener, self._say, self._placer = opener, say, Placer(spec)
        self.live = self._kind != "file"
        self._keeps = keep_all or not (self.live or realtime)
        self.frames = self.dropped = self.reconnects = 0
        length = round(_QUEUE_SECONDS * spec.frame_rate)
        self._length = min(max(length, _QUEUE_FRAMES[0]), _QUEUE_FRAMES[1])
        self._queue: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._stopping = self._ended = False
        self._error: BaseException | None = None
        self._begun: float | None = None  # on the clock: when the first picture was there
        self._heard = time.monotonic()
        self._time = 0.0  # of the newest picture
        self._waited = 0.0  # seconds that the source had to wait for the consumer
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stop(self) -> None:
        """Ends the iteration soon. It may be called in a signal handler, and by any thread."""
        self._stopping = True

    def close(self) -> None:
        """Stops, and waits a little for the source to be closed."""
        self.stop()
        if self._thread is not None:
            self._thread.join(_GRACE)

    def __iter__(self) -> Iterator[LiveFrame]:
        """The pictures.

        Raises:
            StreamError: the source cannot be reached, gives no frame, or broke off for good.
            DecodeError: a file gives no frames.
            UsageError: it is the second iteration.
        """
        if self._thread is not None:
            raise UsageError(f"{shown(self._source)} has been read; open it again.")
        self._heard = time.monotonic()
        # A daemon: some of FFmpeg's inputs cannot be interrupted.
        self._thread = threading.Thread(target=self._run, name="kvideo-live", daemon=True)
        self._thread.start()
        try:
            while (frame := self._take()) is not None:
                self.frames += 1
                yield frame
            if self._error is not None and not self._stopping:
                raise self._error
        finally:
            self.stop()  # also where the consumer has left

    def _take(self) -> LiveFrame | None:
        with self._changed:
            while not self._queue and not self._ended and not self._stopping:
                self._changed.wait(_POLL)
                silent = time.monotonic() - self._heard
                limit = self._timeout * (1 if self._begun is None else 2) + _GRACE
                if self.live and not self._queue and silent > limit:
                    raise StreamError(
                        f"{shown(self._source)}: nothing came for {self._timeout:g} s."
                    )
            if self._stopping or not self._queue:
                return None
            self._changed.notify_all()
            return self._queue.popleft()

    # -- what the thread does ------------------------------------------------------------------

    def _run(self) -> None:
        from av.error import FFmpegError

        try:
            if self._kind == "file":
                self._read_file()
            else:
                self._read_live()
        except FFmpegError as error:  # such as pixels of an unknown format
            self._error = StreamError(f"{shown(self._source)}: {error.strerror or error}.")
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: LiveFrame) -> None:
        """Queues a picture, or waits, or drops the oldest."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now - frame.time
        with self._changed:
            while not self._stopping:
                ahead = self._begun + frame.time - time.monotonic()
                paced = self._realtime and ahead > 0
                if not paced and len(self._queue) < self._length:
                    break
                if not (paced or self._keeps) and ahead <= 0:
                    self._queue.popleft()
                    self.dropped += 1
                    break
                before = time.monotonic()
                self._changed.wait(min(ahead, _POLL) if ahead > 0 else _POLL)
                self._waited += time.monotonic() - before
            self._queue.append(frame)
            self._time, self._heard = frame.time, time.monotonic()
            self._changed.notify_all()

    def _read_file(self) -> None:
        rate = self._spec.frame_rate
        opener = self._opener if "://" in self._source else None
        if self._source == "-":
            opener = _open_standard_input
        with open_video(self._source, opener=opener) as video:
            window = view_windows((video.info.height, video.info.width), self._spec, 1)[0]
            count = max(1, math.ceil((video.info.duration - _TOLERANCE) * rate))
            for first in range(0, count, _BLOCK):
                times = np.arange(first, min(first + _BLOCK, count)) / rate
                pictures = video.read(times, size=window.size, crop=window.crop)
                for moment, picture in zip(times.tolist(), pictures, strict=True):
                    self._put(LiveFrame(moment, self._placer.framed(picture, window)))
                    if self._stopping:
                        return

    def _read_live(self) -> None:
        """Connects, and connects anew, until the source ends or is given up."""
        failed = 0
        last = self._connect()
        while not self._stopping and not last.final and failed < self._attempts:
            pause = min(_BACK_OFF[0] * 2**failed, _BACK_OFF[1])
            if last.seconds < _LASTING_SECONDS:  # a server that ends again and again
                pause = max(pause, 1.0)
            failed += 1
            self._say(
                f"{shown(self._source)}: {last.why}; attempt {failed} of {self._attempts} to "
                f"connect anew, in {pause:g} s."
            )
            self._sleep(pause)
            again = self._connect()
            if again.frames:
                failed, last = 0, again
        if last.error is not None and not self._stopping:
            tried = f" It did not come back in {plural(failed, 'attempt')}." if failed else ""
            raise StreamError(f"{last.error}{tried}") from last.error

    def _connect(self) -> _End:
        """Reads from one connection until it ends."""
        begun, waited = time.monotonic(), self._waited
        before, known, count = self._time, self._begun is not None, 0
        self._heard = begun
        once = self._source == "-"
        try:
            with Input(self._source, self._kind, self._timeout, lambda: self._stopping) as stream:
                if stream.bounded:
                    self.live, once = False, True
                    self._keeps = self._keeps or not self._realtime
                offset, grid = 0.0, FrameGrid(self._spec.frame_rate)
                held, shown_from = None, 0.0
                for seconds, frame in stream.frames():
                    self._heard = time.monotonic()
                    if not count and known:
                        self.reconnects += 1
                        self._say(f"{shown(self._source)}: connected anew.")
                        offset = self._after(before)
                    elif held is not None:
                        self._show(held, stream.aspect, grid.before(seconds), offset)
                    count, held, shown_from = count + 1, frame, seconds
                    if self._stopping:
                        return _End(None, count, True)
                end = shown_from + stream.step
                if held is not None:
                    self._show(held, stream.aspect, grid.before(end), offset)
        except InputLostError as error:
            return _End(error, count, once or not (known or count), time.monotonic() - begun)
        if not (known or count):
            nothing = InputLostError(self._source, "it ended before the first frame")
            return _End(nothing, 0, True)
        # A stream that came much faster than its clock was a recording, and this was its end; only
        # HTTP has recordings of unknown length.
        took = time.monotonic() - begun - (self._waited - waited)
        recording = (
            self._source.lower().startswith(("http://", "https://")) and end > 2 * took + 1.0
        )
        return _End(None, count, once or recording, time.monotonic() - begun)

    def _show(self, frame: Any, aspect: float, moments: Iterator[float], offset: float) -> None:
        picture = None
        for moment in moments:
            if picture is None:
                picture = self._placer.from_frame(frame, aspect)
            self._put(LiveFrame(offset + moment, picture, self.reconnects))
            if self._stopping:
                return

    def _after(self, before: float) -> float:
        """The time of a new connection's first frame: by the clock, after those before."""
        now = time.monotonic() - (self._begun or 0.0)
        return max(now, before + 1 / self._spec.frame_rate)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._heard = time.monotonic()
            time.sleep(min(left, _POLL))


class _End(NamedTuple):
    """How a connection ended.

    Attributes:
        error: what happened; None: the source closed it.
        frames: how many came.
        seconds: how long it lasted.
        final: whether it is of no use to connect anew.
    """

    error: InputLostError | None
    frames: int
    final: bool
    seconds: float = 0.0

    @property
    def why(self) -> str:
        return "the connection ended" if self.error is None else self.error.detail


def _open_standard_input(_: str) -> BinaryIO:
    """A file that standard input is redirected from: it can be sought."""
    return open(os.dup(0), "rb", buffering=0)
