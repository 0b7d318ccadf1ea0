"""One pass of a decoder over a file: packets read a little ahead, frames given out in order.

Times are stamps here: integers in units of the stream's time base, as the file counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_LOOKAHEAD = 64  # packets read before the decoder's turn, at most
_MAX_ERRORS = 100  # in a row, before a file counts as read to its end


class Run:
    """Decodes a stream from where its container stands on.

    Attributes:
        first_packet: stamps and size of the first packet read.
        floor: frames before it lean on what a seek has left out.
        held: the last frame given out.
        sound: the last frame given out that is not damaged.
        ready: frames decoded and not given out.
        stamps: sorted stamps of the packets read, the latest ones.
        read_to: no packet to come is shown before this.
        skipped_to: frames left out are on display before this.
        shown_until: until when frames are on display that were decoded for their own sake; minus
            infinity where that is not known.
        reordered: packets come in another order than their stamps.
        restarted: the clock has been set back, as where recordings were joined.
        error: the last thing that went wrong.
    """

    def __init__(self, demux: Callable[[], Iterator[Any]], stream: Any, jump: int) -> None:
        """Starts a pass.

        Args:
            demux: gives the stream's packets from where its container stands on.
            stream: an `av.VideoStream`.
            jump: decoding stamps that fall by more are of a clock that has been set back.
        """
        from av.error import FFmpegError

        self.codec = stream.codec_context
        self.codec.skip_frame = "DEFAULT"
        self.first_packet: tuple[int | None, ...] | None = None
        self.floor: float = -math.inf
        self.held: Any = None
        self.sound: Any = None
        self.ready: deque[Any] = deque()
        self.stamps: list[int] = []
        self.read_to: float = -math.inf
        self.skipped_to: float = -math.inf
        self.shown_until: dict[int, float] = {}
        self.reordered = self.restarted = False
        self.error: Exception | None = None
        self._demux, self._packets = demux, demux()
        self._queue: deque[Any] = deque()  # read, not decoded
        self._whole: deque[int] = deque(maxlen=_LOOKAHEAD)  # stamps sent while skipping nothing
        self._jump = jump
        self._errors = FFmpegError
        self._ended = self._skipping = self._odd_dts = False

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
                self._queue.append(packet)
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
            packet = self._queue[-1] if self._queue else None
            if packet is not None and packet.is_keyframe and packet.pts is not None:
                self.floor = packet.pts
                self.stamps = [packet.pts]
                return packet
            self._queue.clear()
        return None

    def next(self, limits: Sequence[float] | None = None) -> Any:
        """The next frame, or None at the end.

        Args:
            limits: sorted; wanted are the last frames with stamps up to each of them, others may
                be left out. None: every frame.
        """
        while not self.ready and not self._ended:
            if self._queue:
                packet = self._queue.popleft()
                self._skip(limits is not None and not self._wanted(packet, limits))
                if not self._skipping and packet.pts is not None:
                    self._whole.append(packet.pts)
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

    def begin_read(self) -> None:
        """Lets what was decoded before count as wanted: it was decoded in full."""
        for stamp in self._whole:
            self.shown_until.setdefault(stamp, -math.inf)

    def count_to_end(self, step: int) -> int:
        """The stamp at which the last packet's display ends; nothing is decoded.

        Args:
            step: how long a packet is shown that does not say.
        """
        end = None
        while self.pull():
            for packet in self._queue:
                stamp = packet.dts if packet.pts is None else packet.pts
                if stamp is None:
                    end = (end or 0) + step
                else:
                    ends = stamp + (packet.duration or step)
                    end = ends if end is None else max(end, ends)
            self._queue.clear()
        return end or 0

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
            if len(self._queue) > _LOOKAHEAD:
                self.shown_until[stamp] = -math.inf  # not known
                return True
            self.pull()
