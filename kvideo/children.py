"""Processes that kvideo starts: they do not outlive the one that waits for them."""

from __future__ import annotations

import sys
from contextlib import suppress

_PDEATHSIG = 1  # of prctl(2)


def end_with_parent() -> None:
    """On Linux, has this process end when the one that started it is killed."""
    if sys.platform == "linux":
        import ctypes
        import signal

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
