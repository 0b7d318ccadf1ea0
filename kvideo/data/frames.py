"""Decoded frames of one video stream: all in order, or those on display at given times.

Times are stamps here: integers in units of the stream's time base, as the file counts.

Three ways lead to a wanted frame, tried in turn; each one checks itself and gives up where the
file does not keep its word:

1. from the keyframe before it, without decoding what no other frame refers to;
2. from the keyframe before it, decoding everything;
3. from the beginning of the file, decoding everything and sorting the stamps.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from kvideo.data.packets import Run
from kvideo.errors import UsageError

# Containers that find keyframes reliably, and codecs whose keyframes stand alone.
_SEEKABLE_FORMATS = frozenset({"mov", "matroska", "avi", "flv", "asf", "mpegts", "mxf"})
_SEEKABLE_CODECS = frozenset(
    "h264 hevc vvc vp8 vp9 av1 libdav1d libvpx libvpx-vp9 mpeg1video mpeg2video mpeg4 msmpeg4 "
    "msmpeg4v2 msmpeg4v1 h263 flv wmv1 wmv2 wmv3 vc1 mjpeg prores dnxhd ffv1 huffyuv theora".split()
)
# Codecs of which every packet gives one frame, and which skip unreferenced frames on request.
_SKIPPING_CODECS = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
_PROGRESSIVE_OR_UNKNOWN = (0, 1)  # AVFieldOrder
_INTRA = 1  # AVPictureType
_REORDERING = 16  # the most frames by which the codecs in use reorder
_JUMP_SECONDS = 1.0  # stamps that fall by more than this: the clock has been set back
# Whatever place a search has come across, FFmpeg enters as a keyframe in its index of these.
_UNRELIABLE_INDEX = frozenset({"mpegts"})
# Containers without a stamp for each frame (AVI has none, MPEG program streams one per packet):
# FFmpeg's guesses go wrong where the codec reorders.
_GUESSING_FORMATS = frozenset({"avi", "mpeg"})
# A gap that is worth a seek where the index says nothing of keyframes in it. Matroska reads its
# index at the first seek, so there an early one pays.
_BLIND_SEEK_SECONDS = {"matroska": 1.0}
_BLIND_SEEK_DEFAULT = 4.0


class _LostError(Exception):
    """A wanted frame did not come the way it was looked for."""


class FrameSource:
    """The frames of a video stream.

    Attributes:
        container: the open `av.container.InputContainer`.
        stream: its video stream.
        first: the first frame that the decoder gives; None if there is none.
        origin: the smallest stamp of the frames.
        tick: seconds per stamp.
        jump: stamps that fall by more than this are of a clock that has been set back.
        error: the last thing that went wrong in decoding.
    """

    def __init__(self, open_stream: Callable[[], tuple[Any, Any]], threads: int = 1) -> None:
        """Opens the file and decodes its first frame.

        Args:
            open_stream: gives the open container and its video stream; it is called again where
                the container cannot go back to its beginning otherwise.
            threads: for decoding.
        """
        self._open_stream = open_stream
        self._threads = threads
        self._packets: Any = None
        self._run: Run | None = self._open()
        self.origin = 0
        self._lead = 0  # how long before its display a frame is decoded
        self._seeks = self._skips = self._sorts = False
        self.first = self._run.next()
        self.error = self._run.error
        if self.first is not None:
            self._judge(self._run)

    def _open(self) -> Run:
        self.container, self.stream = self._open_stream()
        self.tick = float(self.stream.time_base)
        self.jump = max(round(_JUMP_SECONDS / self.tick), 2 * _REORDERING * self._step())
        codec = self.stream.codec_context
        codec.thread_count = self._threads
        codec.thread_type = "AUTO" if self._threads > 1 else "NONE"
        if hasattr(self.stream, "discard"):  # since PyAV 17
            from av.stream import Discard

            for other in self.container.streams:
                if other.index != self.stream.index:
                    other.discard = Discard.all
        return self._new_run()

    def _new_run(self) -> Run:
        return Run(self._demux, self.stream, self.jump)

    def _demux(self) -> Iterator[Any]:
        """The packets from where the container stands on; those of the pass before end."""
        self._end_packets()
        self._packets = self.container.demux(self.stream)
        return self._packets

    def _end_packets(self) -> None:
        if self._packets is not None:
            self._packets.close()  # PyAV loses memory of a generator that is only dropped

    def close(self) -> None:
        """Frees the decoder and the container."""
        self._end_packets()
        self._run = self.stream = None  # a stream of a closed container must not be touched
        self.container.close()

    def _judge(self, run: Run) -> None:
        """Decides how far the stamps can be trusted, from the first few packets and frames.

        Frames that leave the decoder in another order than their stamps say come from a
        container that counts packets (AVI) or from a writer that did (some MP4). There, the
        packets' stamps rise although the codec reorders.
        """
        codec, container = self.stream.codec_context, self.container.format.name.split(",")[0]
        reorders = bool(codec.has_b_frames)
        first, guessed = self.first, container in _GUESSING_FORMATS
        if first.pts is None or (reorders and (guessed or not run.reordered)):
            stamps = [first.pts]
            while len(stamps) < _REORDERING // 2 and (frame := run.next()) is not None:
                stamps.append(frame.pts)
            known = [stamp for stamp in stamps if stamp is not None]
            self._sorts = len(known) < len(stamps) or known != sorted(known) or guessed
            self._run = None
            self.origin = min(known, default=0)
        else:
            run.ready.appendleft(first)
            run.held = None
            self.origin = first.pts
        self._start = run.first_packet
        if not self._sorts and self._start is not None and self._start[1] is not None:
            self._lead = max(0, first.pts - self._start[1])
        self._indexed = container not in _UNRELIABLE_INDEX
        self._seeks = container in _SEEKABLE_FORMATS and codec.name in _SEEKABLE_CODECS
        self._gap = _BLIND_SEEK_SECONDS.get(container, _BLIND_SEEK_DEFAULT) / self.tick
        progressive = getattr(codec, "field_order", 0) in _PROGRESSIVE_OR_UNKNOWN
        self._skips = codec.name in _SKIPPING_CODECS and progressive

    def in_order(self) -> Iterator[tuple[int, Any]]:
        """All frames with their stamps, in rising order, from the first.

        Raises:
            UsageError: the source was used for something else in between.
        """
        stamps: list[int] = []
        waiting: deque[Any] = deque()
        newest = self.origin
        for stamp, frame in self._stamped():
            self._sorts = self._sorts or stamp < newest
            newest = max(newest, stamp)
            heapq.heappush(stamps, stamp)
            waiting.append(frame)
            if not self._sorts or len(waiting) > _REORDERING:
                yield heapq.heappop(stamps), waiting.popleft()
        while waiting:
            yield heapq.heappop(stamps), waiting.popleft()

    def _stamped(self) -> Iterator[tuple[int, Any]]:
        """All frames as the decoder gives them, each with a stamp.

        Missing stamps are filled in, a clock that starts anew (recordings joined to one file) is
        made to go on, and damaged frames at the very end are left out: there, a file was cut.
        """
        self._run = run = self._rewind()
        step, shift = self._step(), 0
        newest = self.origin - step
        damaged: list[tuple[int, Any]] = []
        begun = False
        while (frame := run.next()) is not None:
            stamp = newest + step if frame.pts is None else frame.pts + shift
            if stamp < newest - self.jump:
                shift += newest + step - stamp
                stamp = newest + step
            newest = max(newest, stamp)
            damaged.append((stamp, frame))
            if not frame.is_corrupt or len(damaged) > _REORDERING or not begun:
                yield from damaged
                damaged.clear()
                begun = True
            if run is not self._run:
                raise UsageError(
                    "the reader was used for something else before frames() had ended; "
                    "open the file a second time"
                )
        if not begun:  # it was there when the file was opened
            yield self.origin, self.first

    def counted_duration(self) -> float:
        """Seconds from the first frame to the end of the last one; reads the whole file."""
        end = self._rewind().count_to_end(self._step())
        self._run = None
        return max(0, end - self.origin) * self.tick

    def _step(self) -> int:
        """Stamps from one frame to the next, where the frames have none of their own."""
        rate = self.stream.average_rate or self.stream.guessed_rate or 25
        return max(1, round(1 / (float(rate) * self.tick)))

    def at(self, limits: Sequence[float]) -> Iterator[Any]:
        """One frame for each limit: the last one with a stamp up to it.

        Args:
            limits: sorted, none smaller than `origin`.
        """
        served = 0
        for skips in (True, False):
            if self._sorts or (skips and not self._skips):
                continue
            try:
                for frame in self._near(limits[served:], skips):
                    yield frame
                    served += 1
                return
            except _LostError:
                self._run = None
        yield from _choose(self.in_order(), limits[served:], self.first)

    def _near(self, limits: Sequence[float], skips: bool) -> Iterator[Any]:
        """As `at`, from the keyframes before; raises _LostError where the plan fails."""
        wanted = limits if skips else None
        served = 0
        run = self._reach(limits, 0, skips) if limits else None
        while served < len(limits) and run is not None:
            before, held = served, run.held
            frame = run.next(wanted)
            falls = frame is not None and (frame.pts is None or held and frame.pts < held.pts)
            if falls or run.restarted:
                self._sorts = self._sorts or run.restarted or not skips
                raise _LostError
            if frame is None and not skips and held is not None and held.is_corrupt:
                held = run.sound or held  # where a file was cut, its last frame is damaged
            while served < len(limits) and (frame is None or limits[served] < frame.pts):
                if held is None or skips and (held.pts not in run.shown_until or held.is_corrupt):
                    raise _LostError
                yield held
                served += 1
            if frame is not None and not frame.is_corrupt:
                until = run.shown_until.get(frame.pts, -math.inf)
                while served < len(limits) and limits[served] < until:
                    yield frame
                    served += 1
            if before < served < len(limits):
                run = self._reach(limits, served, skips)

    def _reach(self, limits: Sequence[float], index: int, skips: bool) -> Run:
        """A run that will come to the frame for `limits[index]`: this one, or a better one."""
        run, limit = self._run, limits[index]
        usable = run is not None and run.skipped_to <= limit
        if run is not None and run.held is not None:
            usable = usable and run.held.pts is not None and run.held.pts <= limit
        key = self._keyframe_before(limit)
        if usable and run is not None and not self._better(key, run, limit):
            run.begin_read()
            return run
        found = self._seek(limit, limits if skips else None) if self._seeks else None
        if usable and found is not None and run is not None and found.floor <= run.read_to:
            self._gap *= 4  # it led back: long groups of pictures
        self._run = found or self._rewind()
        return self._run

    def _index(self) -> Any:
        """What the container says of its keyframes; empty where that cannot be relied on."""
        return self.stream.index_entries if self._indexed and self._seeks else ()

    def _keyframe_before(self, limit: float) -> int | None:
        """Stamp in the container's index of the last keyframe before `limit`."""
        index = self._index()
        if len(index) == 0:
            return None
        position = index.search_timestamp(math.floor(min(limit, 2.0**62)) - self._lead)
        return index[position].timestamp if position >= 0 else None

    def _better(self, key: int | None, run: Run, limit: float) -> bool:
        """Whether a seek saves decoding."""
        read_to = max(run.read_to, run.stamps[-1] if run.stamps else -math.inf)
        if key is not None and key > read_to:
            return True
        index = self._index()
        known_to = index[-1].timestamp if len(index) else -math.inf
        return self._seeks and limit - max(known_to, read_to) > self._gap

    def _seek(self, limit: float, wanted: Sequence[float] | None) -> Run | None:
        """A run from a keyframe shown up to `limit`; None if the container does not find one."""
        from av.error import FFmpegError

        self._run = None  # what it has read ahead is of no use after a seek
        target = math.floor(min(limit, self._end()))
        for attempt in range(5):
            try:
                self.container.seek(target, stream=self.stream)
            except FFmpegError:
                return None
            run = self._new_run()
            packet = run.start_at_keyframe()
            if packet is not None and packet.pts <= limit:
                break
            target -= round(0.5 * 4**attempt / self.tick)
        else:
            return None
        frame = run.next(wanted)
        if frame is None or frame.is_corrupt:
            return None
        if frame.pts != packet.pts or not frame.key_frame or frame.pict_type != _INTRA:
            self._seeks = False  # such as a picture that is refreshed bit by bit
            return None
        run.ready.appendleft(frame)
        run.held = None
        return run

    def _end(self) -> float:
        """About where the stream ends, by its own account."""
        if self.stream.duration:
            return self.origin + self.stream.duration
        if self.container.duration:
            return self.origin + self.container.duration / 1e6 / self.tick
        return 2.0**62

    def _rewind(self) -> Run:
        """A run from the first packet on."""
        from av.error import FFmpegError

        if self._run is not None and self._run.held is None and self._run.first_packet:
            if self._run.first_packet == self._start and self._run.floor == -math.inf:
                return self._run  # nothing has been taken from it
        with suppress(FFmpegError):  # a file that cannot be sought is opened anew, as below
            pts, dts, _ = self._start or (None, None, None)
            stamp = min((s for s in (pts, dts) if s is not None), default=0)
            self.container.seek(stamp, stream=self.stream)
            run = self._new_run()
            if run.pull() and run.first_packet == self._start:
                return run
        self._end_packets()
        self.container.close()
        return self._open()


def _choose(
    frames: Iterator[tuple[int, Any]], limits: Sequence[float], first: Any
) -> Iterator[Any]:
    """One frame for each limit: the last one with a stamp up to it, or the first."""
    served, held = 0, first
    for stamp, frame in frames:
        while served < len(limits) and limits[served] < stamp:
            yield held
            served += 1
        if served == len(limits):
            return
        held = frame
    for _ in limits[served:]:
        yield held
