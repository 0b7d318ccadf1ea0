"""Which part of a clip a value depends on: one interval for each axis and position. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

TIME, HEIGHT, WIDTH = AXES = ("T", "H", "W")
# Names of a tensor's other dimensions.
BATCH, WINDOWS, CHANNELS = "B", "N", "C"

# How an axis is seen: through a window that is as large everywhere; all frames up to a position;
# all of the axis.
WINDOW, PAST, ALL = "window", "past", "all"


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """What the positions of a tensor along one axis depend on, in positions of the clip.

    Attributes:
        low: (n,) the first position that each depends on; below 0 in the padding.
        high: (n,) the last one.
        step: from one position of the tensor to the next beyond its ends, in the clip's; 0 where
            each depends on all of the axis already.
        kind: `WINDOW`, `PAST` or `ALL`.
    """

    low: Ints
    high: Ints
    step: int = 1
    kind: str = WINDOW

    def __len__(self) -> int:
        return len(self.low)

    @property
    def size(self) -> int:
        """The most positions that one depends on."""
        return int((self.high - self.low).max()) + 1

    @property
    def stride(self) -> float:
        """Mean distance from one position to the next, in the clip's."""
        if len(self) == 1:
            return float(self.step)
        return float(self.high[-1] - self.high[0]) / (len(self) - 1)

    def at(self, places: Ints) -> tuple[Ints, Ints]:
        """`low` and `high` of positions, also of those that would lie beyond the ends."""
        inside = np.clip(places, 0, len(self) - 1)
        beyond = (places - inside) * self.step
        return self.low[inside] + beyond, self.high[inside] + beyond

    def take(self, places: Sequence[int]) -> Span:
        """Some of the positions."""
        chosen = np.asarray(places, np.int64)
        step = self.step
        if len(chosen) > 1:
            step *= max(1, round(float(np.diff(chosen).mean())))
        return Span(self.low[chosen], self.high[chosen], step, self.kind)

    def slid(
        self, kernel: int, stride: int = 1, dilation: int = 1, before: int = 0, count: int = 0
    ) -> Span:
        """Behind a kernel that slides over the axis.

        Args:
            kernel: its taps.
            stride: from one place to the next.
            dilation: from one tap to the next.
            before: positions of padding before the first.
            count: places.
        """
        first = np.arange(count, dtype=np.int64) * stride - before
        low, _ = self.at(first)
        _, high = self.at(first + (kernel - 1) * dilation)
        return Span(low, high, self.step * stride, self.kind)

    def grouped(self, starts: Sequence[int], size: int) -> Span:
        """Each position together with all of its group, as by attention in windows.

        Args:
            starts: the first positions of the groups, ascending, from 0 on.
            size: positions of the clip, within which the positions are.
        """
        ends = [*starts[1:], len(self)]
        low, high = self.low.copy(), self.high.copy()
        for start, end in zip(starts, ends, strict=True):
            low[start:end] = max(0, int(self.low[start:end].min()))
            high[start:end] = min(size - 1, int(self.high[start:end].max()))
        if (low == 0).all() and (high == size - 1).all():
            return Span(low, high, 0, ALL)
        return Span(low, high, self.step, self.kind)

    def repeated(self, times: int) -> Span:
        """Each position several times."""
        return Span(
            np.repeat(self.low, times), np.repeat(self.high, times),
            max(min(1, self.step), self.step // times), self.kind,
        )  # fmt: skip

    def merged(self, size: int, count: int = 1, whole: str = ALL) -> Span:
        """All positions together, `count` times.

        Args:
            size: positions of the clip, or of a window, within which they are.
            count: of the positions that come out.
            whole: the kind, where they depend on all of these.
        """
        low, high = max(0, int(self.low.min())), min(size - 1, int(self.high.max()))
        if (low, high) == (0, size - 1):
            return Span(np.full(count, low), np.full(count, high), 0, whole)
        return Span(np.full(count, low), np.full(count, high), size, self.kind)

    def past(self, size: int) -> Span:
        """Each position with all before it; within the clip's `size` positions."""
        low = np.full(len(self), max(0, int(self.low.min())))
        return Span(low, np.minimum(self.high, size - 1), self.step, PAST)

    def grown(self, before: int, after: int) -> Span:
        """Wider by so many of the tensor's positions on either side."""
        return Span(
            self.low - before * self.step, self.high + after * self.step, self.step, self.kind
        )


def joined(spans: Sequence[Span]) -> Span:
    """What a value depends on that comes of several; spans of one position stand at all places."""
    count = max(len(span) for span in spans)
    for span in spans:
        if span.kind == ALL:  # the others' padding widens nothing
            low, high = (np.broadcast_to(end, count) for end in (span.low, span.high))
            return Span(low, high, 0, ALL)
    low = np.min([np.broadcast_to(span.low, count) for span in spans], axis=0)
    high = np.max([np.broadcast_to(span.high, count) for span in spans], axis=0)
    kind = PAST if any(span.kind == PAST for span in spans) else WINDOW
    return Span(low, high, max(s.step for s in spans if len(s) == count), kind)


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """What a tensor depends on.

    Attributes:
        layout: what each of its dimensions is: `BATCH` (nothing, 1 long), one of `AXES`,
            `CHANNELS`, or `WINDOWS`, the windows into which a clip was cut.
        spans: by axis; also of axes that are no dimension any more, with one position.
        sizes: of the clip, by axis.
        window: frames in a window, where there are windows.
    """

    layout: tuple[str, ...]
    spans: dict[str, Span]
    sizes: dict[str, int]
    window: int | None = None

    @classmethod
    def of_clip(cls, shape: Sequence[int]) -> Field:
        """A clip itself, (T, H, W, C)."""
        sizes = dict(zip(AXES, (int(size) for size in shape), strict=False))
        spans = {
            axis: Span(np.arange(size, dtype=np.int64), np.arange(size, dtype=np.int64))
            for axis, size in sizes.items()
        }
        return cls((BATCH, *AXES, CHANNELS), spans, sizes)

    def with_spans(self, **spans: Span) -> Field:
        """With other spans of some axes."""
        return dataclasses.replace(self, spans={**self.spans, **spans})

    def with_layout(self, *layout: str, **changes: Any) -> Field:
        """With other dimensions."""
        return dataclasses.replace(self, layout=layout, **changes)

    def merged(self, axes: Sequence[str], keep: bool = False) -> Field:
        """The axes' positions together: by a mean over all of them, or laid into the channels.

        Args:
            axes: some of `AXES`.
            keep: whether the dimensions stay, 1 long.
        """
        spans = {axis: self._together(axis) for axis in axes}
        layout = self.layout if keep else tuple(d for d in self.layout if d not in axes)
        return dataclasses.replace(self, layout=layout, spans={**self.spans, **spans})

    def everywhere(self) -> Field:
        """The same dimensions, each position depending on all of the clip."""
        spans = {axis: self._together(axis, len(span)) for axis, span in self.spans.items()}
        return dataclasses.replace(self, spans=spans)

    def _together(self, axis: str, count: int = 1) -> Span:
        if axis == TIME and self.window is not None:
            return self.spans[axis].merged(self.window, count, WINDOW)
        return self.spans[axis].merged(self.sizes[axis], count)

    @property
    def positions(self) -> tuple[str, ...]:
        """The axes that are dimensions."""
        return tuple(dimension for dimension in self.layout if dimension in AXES)


def joined_fields(fields: Sequence[Field]) -> Field:
    """What a tensor depends on that is made of several, place by place."""
    largest = max(fields, key=lambda field: len(field.layout))
    spans = {axis: joined([field.spans[axis] for field in fields]) for axis in AXES}
    return dataclasses.replace(largest, spans=spans)
