"""The videos that gave no frames: noted once each, counted by reason, named for people."""

from __future__ import annotations

import collections
import threading

from kvideo.errors import DecodeError
from kvideo.text import plural


class Failures:
    """The videos that gave no frames, by path; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[str, DecodeError] = {}

    def add(self, error: DecodeError) -> None:
        """Notes a failure; a file counts once."""
        with self._lock:
            self._errors[error.path] = error

    def __len__(self) -> int:
        return len(self._errors)

    def errors(self) -> list[DecodeError]:
        """One error for each file, in the order of their first failure."""
        with self._lock:
            return list(self._errors.values())

    def summary(self, first: int = 0, limit: int = 10) -> str:
        """Counts by reason and names of files, beginning with failure number `first`.

        At most `limit` files are named. Empty without failures.
        """
        errors = self.errors()[first:]
        if not errors:
            return ""
        reasons = collections.Counter(error.reason for error in errors)
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        lines = [f"{plural(len(errors), 'video')} could not be read ({counts}):"]
        lines += [f"  {error}" for error in errors[:limit]]
        if len(errors) > limit:
            lines.append(f"  … and {len(errors) - limit} more; `kvideo check` lists them all.")
        return "\n".join(lines)
