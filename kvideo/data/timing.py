"""Where the time of decoding goes: readers that report to a stopwatch.

The usual readers hold no timers. These are subclasses that time what they inherit.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from kvideo.data.decode import VideoReader, open_video
from kvideo.data.frames import FrameSource
from kvideo.data.packets import Run
from kvideo.data.picture import PictureMaker

OPEN, READ, SEEK, DECODE, CONVERT, FLOW = "open", "read", "seek", "decode", "convert", "flow"


class Stopwatch:
    """Seconds of each stage. Where a stage lies inside of another, only the inner one counts.

    For one thread.

    Attributes:
        seconds: by stage.
        counts: frames that were decoded ("decoded") and that were asked for ("wanted").
        pictures: videos by (height, width).
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.pictures: Counter[tuple[int, int]] = Counter()
        self._clock = clock
        self._stages: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Within it, the time is that stage's."""
        self._lap()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._lap()
            self._stages.pop()

    def _lap(self) -> None:
        now = self._clock()
        if self._stages:
            self.seconds[self._stages[-1]] += now - self._since
        self._since = now


def timed(decoder: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    """A decoder that gives the same frames, and reports to a stopwatch.

    Of kvideo's own decoder every stage is told apart; of another one, opening from all the rest,
    which counts as decoding.

    Args:
        decoder: see `kvideo.data.decode.open_video`.
        stopwatch: takes the times.
    """

    def open_timed(path: str | os.PathLike[str], *, opener: Any = None, threads: int = 1) -> Any:
        if decoder is open_video:
            with stopwatch(OPEN):
                reader: Any = _TimedReader(os.fspath(path), opener, threads, stopwatch)
        else:
            with stopwatch(OPEN):
                reader = _ForeignReader(decoder(path, opener=opener), stopwatch)
        stopwatch.pictures[reader.info.height, reader.info.width] += 1
        return reader

    return open_timed


class TimedFlow:
    """A `ClipFlow` that reports to a stopwatch. What it decodes itself counts as flow."""

    def __init__(self, flow: Any, stopwatch: Stopwatch) -> None:
        self._flow, self._stopwatch = flow, stopwatch

    def read(self, *arguments: Any) -> np.ndarray:
        """As `ClipFlow.read`."""
        with self._stopwatch(FLOW):
            return self._flow.read(*arguments)


class _ForeignReader:
    """A reader of another decoder."""

    def __init__(self, reader: Any, stopwatch: Stopwatch) -> None:
        self._reader, self._stopwatch, self.info = reader, stopwatch, reader.info

    def __enter__(self) -> _ForeignReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    def read(self, times: Sequence[float] | np.ndarray, **options: Any) -> np.ndarray:
        self._stopwatch.counts["wanted"] += len(times)
        with self._stopwatch(DECODE):
            return self._reader.read(times, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _TimedReader(VideoReader):
    def __init__(self, path: str, opener: Any, threads: int, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        super().__init__(path, opener, threads)

    def _new_source(self, threads: int) -> FrameSource:
        return _TimedSource(self._open_stream, threads, self._stopwatch)

    def _open_file(self) -> BinaryIO:
        file: Any = _TimedFile(super()._open_file(), self._stopwatch)
        return file

    def _describe(self, source: FrameSource) -> Any:
        info, maker = super()._describe(source)
        return info, _TimedMaker(maker, self._stopwatch)


class _TimedFile:
    """A file; only reading takes time worth telling."""

    def __init__(self, file: BinaryIO, stopwatch: Stopwatch) -> None:
        self._file, self._stopwatch = file, stopwatch
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        with self._stopwatch(READ):
            return self._file.read(size)


class _TimedSource(FrameSource):
    def __init__(self, open_stream: Any, threads: int, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        super().__init__(open_stream, threads)

    def _new_run(self) -> Run:
        return _CountingRun(self._demux, self.stream, self.jump, self._stopwatch.counts)

    def at(self, limits: Sequence[float]) -> Iterator[Any]:
        # The way to the first frame is the seek: from a keyframe, over all that lies between.
        frames, stage = super().at(limits), SEEK
        self._stopwatch.counts["wanted"] += len(limits)
        while True:
            with self._stopwatch(stage):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
            stage = DECODE

    def _seek(self, limit: float, wanted: Sequence[float] | None) -> Run | None:
        with self._stopwatch(SEEK):
            return super()._seek(limit, wanted)


class _CountingRun(Run):
    def __init__(
        self, demux: Callable[[], Iterator[Any]], stream: Any, jump: int, counts: Counter[str]
    ) -> None:
        super().__init__(demux, stream, jump)
        self._counts = counts

    def _decode(self, packet: Any) -> None:
        before = len(self.ready)
        super()._decode(packet)
        self._counts["decoded"] += len(self.ready) - before


class _TimedMaker:
    """Turns frames into pictures; not a `PictureMaker`, whose tables it would have twice."""

    def __init__(self, maker: PictureMaker, stopwatch: Stopwatch) -> None:
        self._maker, self._stopwatch = maker, stopwatch

    def another(self) -> _TimedMaker:
        return _TimedMaker(self._maker.another(), self._stopwatch)

    def make(self, *arguments: Any) -> None:
        with self._stopwatch(CONVERT):
            self._maker.make(*arguments)
