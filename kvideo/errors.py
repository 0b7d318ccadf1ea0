"""The errors that kvideo raises on purpose.

Each one carries a sentence for a person: it names the thing and, where there is one, the remedy.
The command line prints that sentence and ends with `exit_status`; it shows no traceback.
"""

from __future__ import annotations

from collections.abc import Iterable

# The exit status of a program that SIGTERM (15) has ended, as shells count.
TERMINATED = 128 + 15
# That of a process which could do nothing about it, and may be started again: EX_TEMPFAIL.
TEMPORARY_FAILURE = 75


class KVideoError(Exception):
    """Work that could not be done. Exit status 1.

    Every error that kvideo raises on purpose derives from it.
    """

    exit_status = 1


class UsageError(KVideoError, ValueError):
    """The request itself is wrong: an unknown name, arguments that contradict. Exit status 2."""

    exit_status = 2


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Checks an argument that takes one of a few values.

    Args:
        name: of the argument, for the message.
        value: what the user gave.
        allowed: what may be given.

    Raises:
        UsageError: it is none of them.
    """
    if value not in (known := tuple(allowed)):
        raise UsageError(f"{name} must be one of {', '.join(map(str, known))}, not {value!r}.")


class DataError(KVideoError):
    """A data set cannot be used: an empty folder, labels without files, a list that breaks off."""


class DecodeError(KVideoError):
    """A video gives no frames.

    Attributes:
        path: the file.
        reason: one of `REASONS`, for counting.
        detail: what the decoder said.
    """

    REASONS = (
        "missing",
        "empty",
        "unreadable",
        "no_video",
        "no_frames",
        "truncated",
        "damaged",  # the bytes of a stored video are not those that were written
        "too_short",
        "labels",  # there are frames, but the labels over time do not fit them
    )

    def __init__(self, path: str, reason: str, detail: str) -> None:
        self.path, self.reason, self.detail = str(path), reason, detail
        super().__init__(f"{self.path}: {detail}")

    def __reduce__(self):
        return type(self), (self.path, self.reason, self.detail)


class UnknownNameError(UsageError):
    """No model, decoder or layer of that name; the message suggests a near one."""


class PluginLoadError(KVideoError):
    """An entry point could not be loaded; names it and its distribution, chains the cause."""


class ModelFileError(KVideoError):
    """A model file is missing, cut off, or needs a package that is not installed."""


class DownloadError(KVideoError):
    """A published file cannot be downloaded, or is not the one that it was."""
