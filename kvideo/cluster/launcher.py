"""Several workers on this machine: started, watched, ended, and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from kvideo.cluster.addresses import Addresses
from kvideo.errors import TEMPORARY_FAILURE, TERMINATED
from kvideo.ports import free_ports

# What each worker runs: the command line, for as long as the launcher lives.
_PROGRAM = """
from kvideo.children import end_with_parent
end_with_parent()
from kvideo.cli import main
main()
"""
_GRACE = 30.0  # seconds for the other workers to notice that one is gone
_LAST_WORDS = 15.0  # seconds from SIGTERM to SIGKILL
_POLL = 0.1  # seconds
# A worker that says what is wrong (1: the work failed, 2: wrong usage) would say it again.
_FINAL = (1, 2)


class Launcher:
    """Starts workers that run the same command and talk over loopback.

    The chief's output is shown as it is, that of the others line by line with the worker's number.
    If a worker is killed or hangs, the others are given time to end by themselves, and are ended
    then.

    Args:
        arguments: of `kvideo`, such as `["fit", "demo", "-m", "slow_fusion"]`.
        workers: how many.
        restarts: how often to start all of them again when one was lost. A `fit` goes on from its
            last checkpoint then.
        say: takes lines for a person.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        workers: int,
        restarts: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.arguments, self.workers, self.restarts = list(arguments), workers, restarts
        self.say = say
        self._processes: list[subprocess.Popen] = []
        self._lost = False  # whether that was why the last attempt ended

    def run(self) -> int:
        """Runs the workers to their end; returns an exit status.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the workers have been told, and have ended.
        """
        for attempt in range(self.restarts + 1):
            statuses = self._attempt(attempt)
            if not any(statuses):
                return 0
            for number, status in enumerate(statuses):
                if status not in (0, *_FINAL):
                    self.say(f"Worker {number} {_describe(status)}.")
            left = self.restarts - attempt
            if left == 0 or not self._lost:
                break
            self.say(f"Starting all {self.workers} workers again ({left} of {self.restarts} left).")
        return _exit_status(statuses)

    def _attempt(self, attempt: int) -> list[int]:
        arguments = self._arguments(attempt)
        hosts = tuple(f"127.0.0.1:{port}" for port in free_ports(self.workers))
        readers = []
        self._processes, self._lost = [], False
        try:
            for index in range(self.workers):
                process = self._start(arguments, Addresses(hosts, index))
                self._processes.append(process)
                if process.stdout is not None:
                    readers.append(_relay(process.stdout, f"[worker {index}] "))
            self._wait()
        except BaseException as error:
            number = signal.SIGINT if type(error) is KeyboardInterrupt else signal.SIGTERM
            self._end(number)
            raise
        finally:
            for reader in readers:
                reader.join(timeout=5)
        return [process.returncode for process in self._processes]

    def _arguments(self, attempt: int) -> list[str]:
        """The command of an attempt: a `fit` that may be repeated goes on where it was."""
        arguments = self.arguments
        if self.restarts == 0 or arguments[:1] != ["fit"] or "--resume" in arguments:
            return arguments
        if attempt == 0 and "--overwrite" in arguments:
            return arguments
        kept = [each for each in arguments if each not in ("--overwrite", "--auto-resume")]
        return [*kept, "--auto-resume"]

    def _start(self, arguments: Sequence[str], addresses: Addresses) -> subprocess.Popen:
        chief = addresses.index == 0
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            env={**os.environ, "TF_CONFIG": addresses.to_json()},
            stdin=subprocess.DEVNULL,
            stdout=None if chief else subprocess.PIPE,
            stderr=None if chief else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to the launcher alone, who passes it on
        )

    def _wait(self) -> None:
        """Until all have ended; after a failure the others have a while to do so by themselves."""
        deadline = None
        while True:
            statuses = [process.poll() for process in self._processes]
            if deadline is None and any(statuses):
                deadline = time.monotonic() + _GRACE
                self._lost = any(status not in (None, 0, *_FINAL) for status in statuses)
            if None not in statuses:
                return
            if deadline is not None and time.monotonic() > deadline:
                self._end(signal.SIGTERM)
            time.sleep(_POLL)

    def _end(self, number: int) -> None:
        """Tells the workers to end, and kills those that do not."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
        deadline = time.monotonic() + _LAST_WORDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _relay(stream: IO[bytes], prefix: str) -> threading.Thread:
    """Copies a worker's output to standard error, line by line."""

    def copy() -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            if text:
                print(f"{prefix}{text}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def _describe(status: int) -> str:
    if status == TERMINATED:
        return "was terminated"
    if status == TEMPORARY_FAILURE:
        return "stopped since another one was lost"
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with exit status {status}"


def _exit_status(statuses: Sequence[int]) -> int:
    """One for all: that of usage errors, of SIGTERM, or 1."""
    for status in (2, TERMINATED):
        if status in statuses:
            return status
    return 1
