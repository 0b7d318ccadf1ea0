"""Which part of a training batch one of several processes reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Share:
    """A process's rows of each global batch.

    The batches are the same however many processes and devices there are: the first process reads
    the first rows, and its first device gets the first of them.

    Args:
        worker: the process's number, from 0.
        workers: how many processes there are.
        pieces: devices of each process; a process's rows come in so many pieces.
    """

    worker: int = 0
    workers: int = 1
    pieces: int = 1

    @property
    def parts(self) -> int:
        """In how many pieces a global batch is cut."""
        return self.workers * self.pieces

    def places(self, batch_size: int, first_batch: int, num_batches: int) -> Iterator[int]:
        """The places in an epoch that the process reads, in its batches from `first_batch` on."""
        rows = batch_size // self.workers
        for batch in range(first_batch, num_batches):
            first = batch * batch_size + self.worker * rows
            yield from range(first, first + rows)


WHOLE = Share()
