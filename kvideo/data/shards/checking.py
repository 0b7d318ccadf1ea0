"""Whether the files of shards are those that were written: sizes and checksums."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import BinaryIO

from kvideo.data.listing import is_url, join
from kvideo.data.shards.layout import is_stored, parent, read_index, split_stored
from kvideo.errors import DataError

_BLOCK = 1 << 20


def shard_files(paths: Iterable[str]) -> list[str]:
    """The files, each once, that stored videos among the paths lie in."""
    return list(dict.fromkeys(split_stored(path)[0] for path in paths if is_stored(path)))


def check_file(
    path: str, opener: Callable[[str], BinaryIO] | None, stop: threading.Event
) -> str | None:
    """What is wrong with a file of shards as a whole; None: it is as it was written.

    Args:
        path: of the file.
        opener: opens URL-like paths.
        stop: set: give up.
    """
    try:
        index = read_index(parent(path), opener)
        name = path.rsplit("/", 1)[-1] if is_url(path) else os.path.basename(path)
        known = index.files[name]
        digest, size = hashlib.sha256(), 0
        file_path = join(index.folder, name)
        remote = is_url(path) and opener is not None
        with opener(path) if remote and opener else open(file_path, "rb") as file:
            while (block := file.read(_BLOCK)) and not stop.is_set():
                digest.update(block)
                size += len(block)
    except (DataError, KeyError):
        return "the index does not list it"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except Exception as error:  # of whatever library stands behind the opener
        return str(error)
    if size != known.size:
        return f"the file is cut off ({size:,} of {known.size:,} bytes are there)"
    if digest.hexdigest() != known.sha256:
        return "the checksum (SHA-256) is not that in the index: the file has changed"
    return None
