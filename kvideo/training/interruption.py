"""Ctrl-C and SIGTERM during a training: the step ends, and a checkpoint is written."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from kvideo.errors import TERMINATED, KVideoError


class TrainingInterrupted(KVideoError):
    """Ctrl-C or SIGTERM: a checkpoint was written; the message says how to go on."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        if number == signal.SIGTERM:
            self.exit_status = TERMINATED


class Interruptible:
    """Within it, the first Ctrl-C or SIGTERM is noted; the second one interrupts at once.

    A second SIGTERM in the same second is part of the first: `timeout` sends two.

    Attributes:
        number: the signal that came; 0: none did.
    """

    _SAME = 1.0  # seconds

    def __enter__(self) -> Interruptible:
        self.number = 0
        self._noted = 0.0
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                # None: of another language. Who has SIGTERM ignored wants it ignored.
                if handler is None or (number, handler) == (signal.SIGTERM, signal.SIG_IGN):
                    continue
                self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._noted = number, now
        elif number == signal.SIGINT or now - self._noted > self._SAME:
            self.__exit__()
            signal.raise_signal(number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
