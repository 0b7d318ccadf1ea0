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
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

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
_LOOKAHEAD = 64  # packets read before the decoder's turn, at most
_JUMP_SECONDS = 1.0  # stamps that fall by more than this: the clock has been set back
_MAX_ERRORS = 100  # in a row, before a file counts as read to its end
# Containers without a stamp for each frame (AVI has none, MPEG program streams one per packet):
# FFmpeg's guesses go wrong where the codec reorders.
_GUESSING_FORMATS = frozenset({"avi", "mpeg"})
# A gap that is worth a seek where the index says nothing of keyframes in it. Matroska reads its
# index at the first seek, so there an early one pays.
_BLIND_SEEK_SECONDS = {"matroska": 1.0}
_BLIND_SEEK_DEFAULT = 4.0


class _LostError(Exception):
    """A wanted frame did not come the way it was looked for."""


class _Run:
    """Decodes from one place in the file on, reading packets a little ahead of the decoder."""

    def __init__(self, source: FrameSource) -> None:
        self.codec = source.stream.codec_context
        self.codec.skip_frame = "DEFAULT"
        self.first_packet: tuple[int | None, ...] | None = None  # stamps and size
        self.floor: float = -math.inf  # frames before it lean on what a seek has left out
        self.held: Any = None  # the last frame given out
        self.sound: Any = None  # the last one of them that is not damaged
        self.ready: deque[Any] = deque()  # decoded, not given out
        self.queue: deque[Any] = deque()  # read, not decoded
        self.stamps: list[int] = []  # sorted stamps of the packets read, the latest ones
        self.read_to: float = -math.inf  # no packet to come is shown before this
        self.skipped_to: float = -math.inf  # frames left out are on display before this
        self.whole: deque[int] = deque(maxlen=_LOOKAHEAD)  # stamps sent while skipping nothing
        self.shown_until: dict[int, float] = {}  # of the frames decoded for their own sake
        self.reordered = False  # packets come in another order than their stamps
        self.restarted = False  # the clock has been set back, as where recordings were joined
        self.error: Exception | None = None  # the last one
        self._demux = lambda: source.container.demux(source.stream)
        self._packets = self._demux()
        self._ended = self._skipping = self._odd_dts = False
        self._jump = source.jump
        from av.error import FFmpegError

        self._errors = FFmpegError

    def pull(self) -> bool:
        """Reads one packet; False at the end."""
        for _ in range(_MAX_ERRORS):
            try:
                packet = next(self._packets, None)
            except self._errors as error:  # damaged: try what is behind it
                self.error = error
                self._packets = self._demux()
                continue
            if packet is None or (packet.size == 0 and packet.dts is None):
                break
            if packet.size and self._note(packet):  # empty: the frame before is shown on
                self.queue.append(packet)
            return True
        self.read_to = math.inf
        return False

    def _note(self, packet: Any) -> bool:
        """Keeps account of a packet's stamps; False if it must not be decoded."""
        stamp, dts = packet.pts, packet.dts
        if self.first_packet is None:
            self.first_packet = (stamp, dts, packet.size)
        if dts is not None and stamp is not None and stamp < dts:
            self._odd_dts, self.read_to = True, -math.inf
        if dts is not None and not self._odd_dts:
            self.restarted = self.restarted or dts < self.read_to - self._jump
            self.read_to = max(self.read_to, dts)
        if stamp is None:
            return True
        if stamp < self.floor:
            return False
        if not packet.is_discard:
            self.reordered = self.reordered or bool(self.stamps and stamp < self.stamps[-1])
            insort(self.stamps, stamp)
            if len(self.stamps) > 8 * _LOOKAHEAD:
                del self.stamps[: 4 * _LOOKAHEAD]
        return True

    def start_at_keyframe(self) -> Any:
        """Leaves out packets before the first keyframe; gives its packet, or None."""
        while self.pull():
            packet = self.queue[-1] if self.queue else None
            if packet is not None and packet.is_keyframe and packet.pts is not None:
                self.floor = packet.pts
                self.stamps = [packet.pts]
                return packet
            self.queue.clear()
        return None

    def next(self, limits: Sequence[float] | None = None) -> Any:
        """The next frame, or None at the end.

        Args:
            limits: sorted; wanted are the last frames with stamps up to each of them, others may
                be left out. None: every frame.
        """
        while not self.ready and not self._ended:
            if self.queue:
                packet = self.queue.popleft()
                self._skip(limits is not None and not self._wanted(packet, limits))
                if not self._skipping and packet.pts is not None:
                    self.whole.append(packet.pts)
                self._decode(packet)
            elif not self.pull():
                self._ended = True
                self._decode(None)
        if not self.ready:
            return None
        self.held = self.ready.popleft()
        if not self.held.is_corrupt:
            self.sound = self.held
        return self.held

    def _skip(self, skip: bool) -> None:
        if skip != self._skipping:
            self.codec.skip_frame = "NONREF" if skip else "DEFAULT"
            self._skipping = skip

    def _decode(self, packet: Any) -> None:
        try:
            self.ready.extend(self.codec.decode(packet))
        except self._errors as error:  # damaged: the stream goes on behind it
            self.error = error

    def _wanted(self, packet: Any, limits: Sequence[float]) -> bool:
        """Whether the packet's frame is the last one up to some limit."""
        stamp = packet.pts
        if stamp is None or packet.is_discard:
            return stamp is None
        index = bisect_left(limits, stamp)
        if index == len(limits):
            return True  # so that a later call can go on from here
        while True:
            after = bisect_right(self.stamps, stamp)
            follower = self.stamps[after] if after < len(self.stamps) else math.inf
            if follower <= limits[index]:
                self.skipped_to = max(self.skipped_to, follower)
                return False
            if self.read_to > limits[index]:
                self.shown_until[stamp] = min(follower, self.read_to)
                return True
            if len(self.queue) > _LOOKAHEAD:
                self.shown_until[stamp] = -math.inf  # not known
                return True
            self.pull()


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
        self._run: _Run | None = self._open()
        self.origin = 0
        self._lead = 0  # how long before its display a frame is decoded
        self._seeks = self._skips = self._sorts = False
        self.first = self._run.next()
        self.error = self._run.error
        if self.first is not None:
            self._judge(self._run)

    def _open(self) -> _Run:
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
        return _Run(self)

    def close(self) -> None:
        """Frees the decoder and the container."""
        self._run = self.stream = None  # a stream of a closed container must not be touched
        self.container.close()

    def _judge(self, run: _Run) -> None:
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
        while (frame := run.next()) is not None:
            stamp = newest + step if frame.pts is None else frame.pts + shift
            if stamp < newest - self.jump:
                shift += newest + step - stamp
                stamp = newest + step
            newest = max(newest, stamp)
            damaged.append((stamp, frame))
            if not frame.is_corrupt or len(damaged) > _REORDERING or frame is self.first:
                yield from damaged
                damaged.clear()
            if run is not self._run:
                raise UsageError(
                    "the reader was used for something else before frames() had ended; "
                    "open the file a second time"
                )

    def counted_duration(self) -> float:
        """Seconds from the first frame to the end of the last one; reads the whole file."""
        self._run = run = self._rewind()
        end = self.origin
        while run.pull():
            for packet in run.queue:
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is not None:
                    end = max(end, stamp + (packet.duration or self._step()))
                else:
                    end += self._step()
            run.queue.clear()
        self._run = None
        return (end - self.origin) * self.tick

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
        yield from _choose(self.in_order(), limits[served:])

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

    def _reach(self, limits: Sequence[float], index: int, skips: bool) -> _Run:
        """A run that will come to the frame for `limits[index]`: this one, or a better one."""
        run, limit = self._run, limits[index]
        usable = run is not None and run.skipped_to <= limit
        if run is not None and run.held is not None:
            usable = usable and run.held.pts is not None and run.held.pts <= limit
        key = self._keyframe_before(limit) if self._seeks else None
        if usable and run is not None and not self._better(key, run, limit):
            for stamp in run.whole:
                run.shown_until.setdefault(stamp, -math.inf)
            return run
        found = self._seek(limit, limits if skips else None) if self._seeks else None
        if usable and found is not None and run is not None and found.floor <= run.read_to:
            self._gap *= 4  # it led back: long groups of pictures
        self._run = found or self._rewind()
        return self._run

    def _keyframe_before(self, limit: float) -> int | None:
        """Stamp in the container's index of the last keyframe before `limit`."""
        index = getattr(self.stream, "index_entries", None)  # PyAV 17
        if index is None or len(index) == 0:
            return None
        position = index.search_timestamp(math.floor(min(limit, 2.0**62)) - self._lead)
        return index[position].timestamp if position >= 0 else None

    def _better(self, key: int | None, run: _Run, limit: float) -> bool:
        """Whether a seek saves decoding."""
        read_to = max(run.read_to, run.stamps[-1] if run.stamps else -math.inf)
        if key is not None and key > read_to:
            return True
        index = getattr(self.stream, "index_entries", None)
        known_to = index[-1].timestamp if index else -math.inf
        return self._seeks and limit - max(known_to, read_to) > self._gap

    def _seek(self, limit: float, wanted: Sequence[float] | None) -> _Run | None:
        """A run from a keyframe shown up to `limit`; None if the container does not find one."""
        from av.error import FFmpegError

        self._run = None  # what it has read ahead is of no use after a seek
        target = math.floor(min(limit, 2.0**62))
        for attempt in range(4):
            try:
                self.container.seek(target, stream=self.stream)
            except FFmpegError:
                return None
            run = _Run(self)
            packet = run.start_at_keyframe()
            if packet is None:
                return None
            if packet.pts <= limit:
                break
            target = min(target, packet.pts) - 1 - round(attempt / self.tick)
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

    def _rewind(self) -> _Run:
        """A run from the first packet on."""
        from av.error import FFmpegError

        if self._run is not None and self._run.held is None and self._run.first_packet:
            if self._run.first_packet == self._start and self._run.floor == -math.inf:
                return self._run  # nothing has been taken from it
        try:
            pts, dts, _ = self._start or (None, None, None)
            stamp = min((s for s in (pts, dts) if s is not None), default=0)
            self.container.seek(stamp, stream=self.stream)
            run = _Run(self)
            if run.pull() and run.first_packet == self._start:
                return run
        except FFmpegError:
            pass  # it cannot seek; opening it anew always works
        self.container.close()
        return self._open()


def _choose(frames: Iterator[tuple[int, Any]], limits: Sequence[float]) -> Iterator[Any]:
    """One frame for each limit: the last one with a stamp up to it."""
    served, held = 0, None
    for stamp, frame in frames:
        while served < len(limits) and held is not None and limits[served] < stamp:
            yield held
            served += 1
        if served == len(limits):
            return
        held = frame
    for _ in limits[served:]:
        yield held
