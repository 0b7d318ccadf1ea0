"""A progress line on standard error: a bar on a terminal, a plain line now and then in a log.

`click.progressbar` was tried first: it has no figures beside the bar (loss, accuracy, clips/s), is
not safe under threads, and prints nothing but the label when the output is not a terminal.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from kvideo.text import cut, display_width, printable

Value = float | int | str | None

_REDRAW = 0.1  # seconds between two drawings on a terminal
_SNAPSHOT = 0.5  # seconds between two entries in the window that the rate is taken over
_WINDOW = 60  # entries: the rate is that of the last 30 s, so a slow first step is soon forgotten
_BAR = (10, 30)  # characters: not worth showing below, enough above


class Progress:
    """Counts work done, and shows how far it is and how long it will take.

    On a terminal the line is redrawn in place; elsewhere (a file, a pipe, a notebook, `TERM=dumb`)
    a whole line is written every `plain_every` seconds and one at the end. A stream that breaks
    or is closed silences the progress, never the work.

    ```python
    with Progress(len(batches), "epoch 1/30") as progress:
        for batch in batches:
            loss = step(batch)
            progress.update(loss=loss, clips_per_s=28.3, data_wait="3%")
    ```

    Args:
        total: how many units there are; None if nobody knows.
        label: what is being done.
        stream: a text stream; by default standard error at the time of the call.
        initial: units already done, by an earlier run.
        unit: the word for one unit, as in "12.3 videos/s"; without it "12.3/s".
        quiet: show nothing (it still counts).
        plain_every: seconds between two lines where the stream is not a terminal.
        clock: seconds, from anywhere, never going back.

    Attributes:
        done: units done so far.
        total: may be set when it becomes known.
    """

    def __init__(
        self,
        total: int | None,
        label: str,
        stream: TextIO | None = None,
        *,
        initial: int = 0,
        unit: str = "",
        quiet: bool = False,
        plain_every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.label = label
        self.done = initial
        self._initial = initial
        self._unit = unit
        self._stream = None if quiet else (stream if stream is not None else sys.stderr)
        self._in_place = self._stream is not None and _is_terminal(self._stream)
        self._bar = _bar_characters(self._stream)
        self._every = _REDRAW if self._in_place else plain_every
        self._clock = clock
        self._lock = threading.RLock()
        self._postfix: dict[str, Value] = {}
        self._started = clock()
        self._snapshots: deque[tuple[float, int]] = deque([(self._started, initial)], _WINDOW)
        # A log gets its first line only after a while; a terminal shows the bar at once.
        self._drawn_at = -math.inf if self._in_place else self._started
        self._drawn_width = 0
        self._closed = False
        self._draw_if_due(self._started)

    def update(self, n: int = 1, **postfix: Value) -> None:
        """Count `n` units more and change figures beside the bar. Any thread may call it.

        Args:
            n: units; 0 changes only the figures.
            **postfix: figures by name, shown in the order in which they first came. Underscores
                are shown as blanks; `clips_per_s=28.3` is shown as "28.3 clips/s" and takes the
                place of the units' own rate. None removes a figure.
        """
        with self._lock:
            self.done += n
            for name, value in postfix.items():
                if value is None:
                    self._postfix.pop(name, None)
                else:
                    self._postfix[name] = value
            if self._closed:
                return
            now = self._clock()
            if now - self._snapshots[-1][0] >= _SNAPSHOT:
                self._snapshots.append((now, self.done))
            self._draw_if_due(now)

    def write(self, message: str) -> None:
        """Write a line (a warning, say) above the progress line."""
        with self._lock:
            self._erase()
            self._put(message + "\n")
            if self._in_place and not self._closed:
                self._draw(self._clock())

    def hide(self) -> None:
        """Remove the line from a terminal until the next update, for others to write there."""
        with self._lock:
            self._erase()

    def close(self) -> None:
        """Draw the last state, with the time it took. Calling it twice does no harm."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._draw(self._clock())
                if self._in_place:
                    self._put("\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if error is not None and self.done == self._initial:
                self._erase()  # the error says it all
                self._closed = True
        self.close()

    # Drawing. All of it runs under the lock.

    def _draw_if_due(self, now: float) -> None:
        if self._stream is None or now - self._drawn_at < self._every:
            return
        if self._in_place or self.total is None or self.done < self.total:  # the last line follows
            self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn_at = now
        if not self._in_place:
            label, *rest = self._parts(now)
            self._put(f"{label}: {', '.join(rest)}\n")
            return
        # The last column stays free: some terminals wrap when it is filled.
        line = self._fit(self._parts(now), shutil.get_terminal_size().columns - 1)
        width = display_width(line)
        self._put("\r" + line + " " * (self._drawn_width - width))
        self._drawn_width = width

    def _erase(self) -> None:
        if self._in_place and self._drawn_width:
            self._put("\r" + " " * self._drawn_width + "\r")
            self._drawn_width = 0

    def _parts(self, now: float) -> list[str]:
        """The label, the count, the time, the rate and the figures."""
        parts = [printable(self.label), self._count()]
        if self._closed:
            parts.append(f"in {format_duration(now - self._started)}")
            rate = _rate((self._started, self._initial), (now, self.done))
        else:
            rate = _rate(self._snapshots[0], (now, self.done))
            if rate and self.total is not None and self.done < self.total:
                parts.append(f"{format_duration((self.total - self.done) / rate)} left")
        if rate and not any(name.endswith("_per_s") for name in self._postfix):
            parts.append(_format_rate(rate, self._unit))
        return parts + [_format_figure(name, value) for name, value in self._postfix.items()]

    def _count(self) -> str:
        if self.total is None:
            ending = "s" if self._unit and self.done != 1 else ""
            return f"{self.done} {self._unit}{ending}".rstrip()
        count = f"{self.done}/{self.total}"
        if self._in_place or not self.total:
            return count
        return f"{count} ({100 * self.done // self.total}%)"

    def _fit(self, parts: list[str], columns: int) -> str:
        """One line of at most `columns`: first the bar goes, then the figures from the last."""
        label, rest = parts[0], parts[1:]
        room = columns - display_width("  ".join(parts)) - 1
        if self.total and room >= _BAR[0]:
            size = min(room, _BAR[1])
            full = min(size, size * self.done // self.total)
            bar = self._bar[0] * full + self._bar[1] * (size - full)
            return "  ".join([f"{label} {bar}", *rest])
        while len(rest) > 1 and display_width("  ".join([label, *rest])) > columns:
            rest.pop()
        return cut("  ".join([label, *rest]), columns, mark="")

    def _put(self, text: str) -> None:
        if self._stream is None:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe or file: nobody is looking any more
            self._stream = None


def format_duration(seconds: float) -> str:
    """`"0:07"`, `"12:03"`, `"3:12:40"`, `"2 d 3:12:40"`; seconds are rounded."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} d {clock}" if days else clock


def _rate(then: tuple[float, int], now: tuple[float, int]) -> float:
    """Units per second; 0 while nothing can be said."""
    seconds, units = now[0] - then[0], now[1] - then[1]
    return units / seconds if seconds > 0 and units > 0 else 0.0


def _format_rate(rate: float, unit: str) -> str:
    if rate >= 1:
        return f"{_number(rate, 2)} {unit}s/s" if unit else f"{_number(rate, 2)}/s"
    return f"{_number(1 / rate, 2)} s/{unit}" if unit else f"{_number(1 / rate, 2)} s each"


def _format_figure(name: str, value: Value) -> str:
    text = _number(value) if isinstance(value, (int, float)) else printable(str(value))
    if name.endswith("_per_s"):
        return f"{text} {name[: -len('_per_s')].replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {text}"


def _number(value: float, decimals: int = 3) -> str:
    """Whole numbers as they are, others with three or four digits."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.{decimals}f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # not a whole stream, or a closed one
        return False


def _bar_characters(stream: TextIO | None) -> tuple[str, str]:
    try:
        "━╌".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "#", "-"
    return "━", "╌"


def say_to_stderr(line: str) -> None:
    """Writes a remark to standard error."""
    print(line, file=sys.stderr, flush=True)


def say_nothing(line: str) -> None:
    """Where no remarks are wanted."""
