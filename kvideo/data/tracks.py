"""Labels over time: the segments of one video, and the class at any moment of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kvideo.errors import DataError
from kvideo.text import plural

BACKGROUND = "background"
UNLABELLED = -1
# Annotations are rounded: gaps and overlaps below this many seconds are none.
SLACK = 0.05
# Readers take a frame that begins up to 1 ms later than asked, and so do labels.
_TOLERANCE_SECONDS = 1e-3
# Containers often declare a frame or two too many.
FRAMES_OFF = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """A part of a video with one class.

    Args:
        start: seconds (or frames, see `LabelTrack`) from the video's beginning.
        end: likewise; the first moment that does not belong to it.
        label: class index, or -1 where nothing is known.
    """

    start: float
    end: float
    label: int


@dataclasses.dataclass(frozen=True, slots=True)
class LabelTrack:
    """The classes of one video over time.

    Args:
        segments: in order, without overlaps.
        background: the class where no segment is; -1: nothing is known there.
        num_frames: None: segments are in seconds. Otherwise they count frames, of a file that
            should have so many.
    """

    segments: tuple[Segment, ...]
    background: int = UNLABELLED
    num_frames: int | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that occur, as far as the annotations tell, in order; perhaps none."""
        found = {segment.label for segment in self.segments}
        if self.background != UNLABELLED and (not self.segments or self._has_gap()):
            found.add(self.background)
        return tuple(sorted(found - {UNLABELLED}))

    def _has_gap(self) -> bool:
        ends = [0.0, *(segment.end for segment in self.segments)]
        return any(s.start > end for s, end in zip(self.segments, ends, strict=False))

    def at(self, times: np.ndarray) -> np.ndarray:
        """Classes at times in seconds, int32 of the same shape; -1 where nothing is known."""
        seconds = np.asarray(times, np.float64) + _TOLERANCE_SECONDS
        if not self.segments:
            return np.full(seconds.shape, self.background, np.int32)
        starts = np.array([segment.start for segment in self.segments])
        ends = np.array([segment.end for segment in self.segments])
        labels = np.array([segment.label for segment in self.segments], np.int32)
        place = np.maximum(np.searchsorted(starts, seconds, side="right") - 1, 0)
        inside = (seconds >= starts[place]) & (seconds < ends[place])
        return np.where(inside, labels[place], np.int32(self.background))

    def fitted(
        self, duration: float, frame_rate: float, num_frames: int, count: Callable[[], int]
    ) -> LabelTrack:
        """The same in seconds, checked against a file and cut at its end.

        Args:
            duration: of the file, seconds.
            frame_rate: of the file.
            num_frames: as the file declares; 0: it does not say.
            count: gives the number of frames by decoding them; asked only if the declared number
                does not fit.

        Raises:
            DataError: a segment lies outside the file, or there are more or fewer labels than
                frames.
        """
        if self.num_frames is not None:
            return self._in_seconds(duration, frame_rate, num_frames, count)
        slack = max(0.1, (FRAMES_OFF + 0.5) / frame_rate)
        for segment in self.segments:
            outside = segment.start > duration or segment.end > duration + slack
            if outside and not math.isinf(segment.end):
                raise DataError(
                    f"the segment from {segment.start:g} to {segment.end:g} s lies outside the "
                    f"video, which lasts {duration:.2f} s"
                )
        return dataclasses.replace(self, segments=_cut(self.segments, duration, slack))

    def _in_seconds(
        self, duration: float, frame_rate: float, num_frames: int, count: Callable[[], int]
    ) -> LabelTrack:
        given = self.num_frames or 0
        declared = num_frames or round(duration * frame_rate)
        if abs(given - declared) > FRAMES_OFF:
            decoded = count()
            if abs(given - decoded) > FRAMES_OFF:
                raise DataError(
                    f"there are labels for {plural(given, 'frame')}, but the video has "
                    f"{plural(decoded, 'frame')}"
                )
        scaled = tuple(
            Segment(s.start / frame_rate, s.end / frame_rate, s.label) for s in self.segments
        )
        slack = (FRAMES_OFF + 0.5) / frame_rate
        return LabelTrack(_cut(scaled, duration, slack), self.background)

    def renumbered(self, indices: Sequence[int]) -> LabelTrack:
        """The same with other class indices: `indices[label]` for each label."""

        def new(label: int) -> int:
            return label if label == UNLABELLED else indices[label]

        segments = (dataclasses.replace(s, label=new(s.label)) for s in self.segments)
        return dataclasses.replace(self, segments=tuple(segments), background=new(self.background))

    def whole(self, duration: float) -> list[Segment]:
        """The segments of a track that is fitted to that duration, background between them too."""
        result: list[Segment] = []
        end = 0.0
        for segment in (*self.segments, Segment(duration, duration, UNLABELLED)):
            if segment.start > end and self.background != UNLABELLED:
                result.append(Segment(end, segment.start, self.background))
            if segment.label != UNLABELLED:
                result.append(segment)
            end = segment.end
        return result

    def seconds(self, num_classes: int, duration: float) -> np.ndarray:
        """Seconds of each class, (num_classes,), of a track that is fitted to that duration."""
        total = np.zeros(num_classes)
        for segment in self.whole(duration):
            total[segment.label] += segment.end - segment.start
        return total


def _cut(segments: Iterable[Segment], duration: float, slack: float) -> tuple[Segment, ...]:
    """The segments up to the end; one that ends there but for rounding reaches it."""
    cut = [
        dataclasses.replace(segment, end=min(segment.end, duration))
        for segment in segments
        if segment.start < duration
    ]
    if cut and cut[-1].end > duration - slack:
        cut[-1] = dataclasses.replace(cut[-1], end=duration)
    return tuple(cut)


def ordered(segments: Iterable[Segment], describe: Callable[[int], str]) -> tuple[Segment, ...]:
    """Segments in order: equal neighbours joined, gaps and overlaps by rounding closed.

    Args:
        segments: in any order.
        describe: gives a class's name.

    Raises:
        DataError: segments of different classes overlap; the sentence has no beginning.
    """
    result: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (s.start, s.end)):
        if not result:
            first = 0.0 if segment.start < SLACK else segment.start
            result.append(dataclasses.replace(segment, start=first))
            continue
        last = result[-1]
        if segment.label == last.label and segment.start <= last.end + SLACK:
            result[-1] = dataclasses.replace(last, end=max(last.end, segment.end))
            continue
        if segment.start < last.end - SLACK:
            raise DataError(
                f"the segments {describe(last.label)!r} ({last.start:g} to {last.end:g} s) and "
                f"{describe(segment.label)!r} ({segment.start:g} to {segment.end:g} s) overlap"
            )
        if abs(segment.start - last.end) <= SLACK:
            # Short segments may lie inside the slack altogether; each keeps a moment of its own.
            result[-1] = dataclasses.replace(last, end=max(segment.start, last.start))
        result.append(segment)
    return tuple(segment for segment in result if segment.end > segment.start)


def runs_of_frames(labels: Iterable[int]) -> tuple[Segment, ...]:
    """Runs of equal labels as segments that count frames."""
    row = np.fromiter(labels, np.int64)
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]][: len(row)])
    ends = np.r_[starts[1:], len(row)][: len(starts)]
    return tuple(
        Segment(int(start), int(end), int(row[start]))
        for start, end in zip(starts, ends, strict=True)
    )
