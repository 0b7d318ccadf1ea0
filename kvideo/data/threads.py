"""Work shared out among threads, whose results come in order."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# What may wait in memory for its turn.
MAX_AHEAD_BYTES = 512 * 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Decoding threads: the processors that this process may use, at least two."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Results of `function` over `items`, in order, computed by a pool of threads.

    At most `ahead` results wait at a time. An exception appears at its item's place. Closing the
    iterator stops the pool.
    """
    waiting: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="kvideo-decode")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
