"""Ctrl-C and SIGTERM: both unwind a command, so that temporary files and child processes go."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import click

# The signal that came last; 0: none did.
_asked = 0


class Termination(KeyboardInterrupt):
    """SIGTERM: unwinds as Ctrl-C does."""


def was_terminated() -> bool:
    """Whether SIGTERM came."""
    return _asked == signal.SIGTERM


class Stoppable:
    """Within it, SIGTERM raises `Termination`, and `unwinding` knows of both signals.

    A second SIGTERM in the same second is part of the first (`timeout` sends two), and must not
    stop what cleans up; a later one raises anew.
    """

    _SAME = 1.0  # seconds

    def __enter__(self) -> Stoppable:
        self._terminated: float | None = None
        self._previous: dict[int, Any] = {}
        # Who ignores a signal, or looks after it himself, goes on doing so.
        for number, handler, ours in (
            (signal.SIGTERM, signal.SIG_DFL, self._terminate),
            (signal.SIGINT, signal.default_int_handler, self._interrupt),
        ):
            if signal.getsignal(number) == handler:
                with contextlib.suppress(ValueError):  # not in the main thread
                    self._previous[number] = signal.signal(number, ours)
        return self

    def _terminate(self, number: int, _: object) -> None:
        global _asked
        now, before = time.monotonic(), self._terminated
        if before is None or now - before > self._SAME:
            _asked, self._terminated = number, now
            raise Termination

    def _interrupt(self, number: int, _: object) -> None:
        global _asked
        _asked = number
        raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # After the first SIGTERM the handler stays: the second may still be on its way.
            if number != signal.SIGTERM or self._terminated is None:
                signal.signal(number, handler)


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within it, an error that a signal has become is that signal again.

    A signal raises wherever the program is; where that is inside of a library that makes an error
    of its own of it (TensorFlow: "binding inputs failed"), nobody could tell what happened.

    Raises:
        KeyboardInterrupt: an error came after Ctrl-C.
        Termination: an error came after SIGTERM.
    """
    try:
        yield
    except click.exceptions.Exit:
        raise
    except Exception as error:
        if not _asked:
            raise
        raise (Termination if was_terminated() else KeyboardInterrupt) from error
