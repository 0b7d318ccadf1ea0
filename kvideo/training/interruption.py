"""Ctrl-C and SIGTERM during a training: the step ends, and a checkpoint is written."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from kvideo.errors import TERMINATED, KVideoError

PATIENCE = 5.0  # seconds that clips have to come after a signal


class TrainingInterrupted(KVideoError):
    """Ctrl-C or SIGTERM: a checkpoint was written; the message says how to go on."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        if number == signal.SIGTERM:
            self.exit_status = TERMINATED


class StillWaiting(Exception):
    """A signal came, and what was waited for did not."""


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
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._busy = False
        return self

    def call(self, work: Callable[[], Any]) -> Any:
        """Calls what may block without end, in a thread of its own.

        Python handles a signal only when the main thread comes back from what it has called, which
        it never does while TensorFlow waits for clips that do not come.

        Returns:
            What `work` returns or raises.

        Raises:
            StillWaiting: a signal has come, and `work` has not ended in the next seconds. Nothing
                else can be called then.
        """
        self._asked.put(work)
        self._busy = True
        while True:
            try:
                result, error = self._answers.get(timeout=1.0)
            except queue.Empty:
                if self.number and time.monotonic() - self._noted > PATIENCE:
                    raise StillWaiting from None
                continue
            self._busy = False
            if error is not None:
                raise error
            return result

    def _work(self) -> None:
        while (work := self._asked.get()) is not None:
            answer: tuple[Any, BaseException | None]
            try:
                answer = work(), None
            except BaseException as error:
                answer = None, error
            del work  # what it holds on to is to end where the caller leaves it, not here
            self._answers.put(answer)
            del answer

    def _note(self, number: int, _: object) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._noted = number, now
        elif number == signal.SIGINT or now - self._noted > self._SAME:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._asked.put(None)
        if not self._busy:
            self._thread.join()
