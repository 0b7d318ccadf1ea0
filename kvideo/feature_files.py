"""Files of features: names that mirror the videos', arrays written row by row, what is known.

A folder of features holds one `.npy` file for each video and `cache.jsonl`, which says of each file
what it was computed from. Lines are only ever added to it, after their file is in place, so that a
run may be killed at any moment: what it has finished is found again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kvideo.data.listing import absolute, is_url, looks_like_video
from kvideo.data.records import VideoRecord
from kvideo.errors import KVideoError
from kvideo.files import atomic_path, make_folder, write_text_atomic

CACHE = "cache.jsonl"
_ENDING = ".npy"
_OUTSIDE = "_"  # folder of what does not lie below the data's own folder
_MOST_PENDING = 8  # files that wait for the disk
_LONGEST_NAME = 240  # bytes; file systems take 255


def file_names(
    records: Iterable[VideoRecord], root: str | None, *, keep_ending: bool = True
) -> list[str]:
    """The file of each record: its video's path below `root`, with slashes, and `.npy` behind.

    A video's own ending stays, so that `a.mp4` and `a.avi` do not meet, unless `keep_ending` is
    False; a part of a video has its times in the name; a video outside `root` has its whole path
    below the folder `_`. Equal names are equal videos.
    """
    names: list[str] = []
    taken: dict[str, tuple[Any, ...]] = {}
    for record in records:
        source = record.path, record.start, record.end
        name = _mirrored(record, root)
        video = name.removesuffix(_ENDING)
        if not keep_ending and looks_like_video(video):
            name = posixpath.splitext(video)[0] + _ENDING
        name = _shortened(name)
        if taken.setdefault(name, source) != source:
            name = f"{name.removesuffix(_ENDING)}-{_digest(repr(source))}{_ENDING}"
            taken[name] = source
        names.append(name)
    return names


def _mirrored(record: VideoRecord, root: str | None) -> str:
    path = absolute(record.path)
    inside = None if root is None else absolute(root).rstrip("/") + "/"
    if inside is not None and path.startswith(inside):
        name = path[len(inside) :]
    else:
        whole = path.replace("://", "/") if is_url(path) else Path(path).as_posix()
        name = f"{_OUTSIDE}/{whole.replace(':', '').lstrip('/')}"
    if record.start is not None or record.end is not None:
        end = "end" if record.end is None else repr(float(record.end))
        name += f"@{float(record.start or 0.0)!r}-{end}"
    # No ".." of a remote path leads out of the folder.
    return posixpath.normpath("/" + name.replace(os.sep, "/")).lstrip("/") + _ENDING


def _shortened(name: str) -> str:
    folder, file = posixpath.split(name)
    if len(os.fsencode(file)) <= _LONGEST_NAME:
        return name
    start = os.fsencode(file)[: _LONGEST_NAME - 30].decode("utf-8", "ignore")
    return posixpath.join(folder, f"{start}-{_digest(file)}{_ENDING}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_rows(path: Path, blocks: Iterable[np.ndarray]) -> tuple[int, ...]:
    """Writes arrays (n_i, ...) as one float32 `.npy` file (Σ n_i, ...), holding one at a time.

    Returns:
        The array's shape.

    Raises:
        KVideoError: there are no rows. Errors of `blocks` pass.
    """
    rows, rest = 0, ()
    with open(path, "wb") as file:
        for block in blocks:
            if not rows:
                rest = block.shape[1:]
                _write_header(file, (0, *rest))
                begin = file.tell()
            file.write(np.ascontiguousarray(block, "<f4").data)
            rows += len(block)
        if not rows:
            raise KVideoError(f"there is nothing to write to {path}.")
        file.seek(0)
        _write_header(file, (rows, *rest))  # NumPy leaves room for a greater number
        if file.tell() != begin:
            raise KVideoError(f"{path} has more rows than its header has room for.")
    return (rows, *rest)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


@dataclasses.dataclass(frozen=True)
class CachedFile:
    """What is known of one file.

    Args:
        file: its name in the folder.
        key: identifies what it was computed from.
        size: bytes.
        shape: of the array.
        times: beginning and end of each row's clip, seconds.
    """

    file: str
    key: str
    size: int
    shape: tuple[int, ...]
    times: tuple[tuple[float, float], ...]


class FeatureCache:
    """The files of a folder that are known, by name. Closing it waits for the last files.

    Files come into place in a thread of their own, since waiting for a disk takes ten milliseconds
    that the model had better use.

    Args:
        folder: is made when the first file is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, CachedFile] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kvideo-write")
        self._pending: collections.deque[Future[None]] = collections.deque()
        lines = 0
        for entry in _read_entries(folder / CACHE):
            self._known[entry.file] = entry
            lines += 1
        if lines > 2 * len(self._known) + 100:
            text = "".join(_line(entry) for entry in self._known.values())
            write_text_atomic(folder / CACHE, text)

    def find(self, file: str, key: str) -> CachedFile | None:
        """The entry of a file that was computed from this, and is still there as it was."""
        entry = self._known.get(file)
        if entry is None or entry.key != key:
            return None
        try:
            size = os.stat(self.folder / file).st_size
        except OSError:
            return None
        return entry if size == entry.size else None

    def add(self, file: str, key: str, blocks: Iterator[np.ndarray], times: Any) -> CachedFile:
        """Writes a file and notes what it is made from.

        Args:
            file: name in the folder.
            key: see `CachedFile`.
            blocks: rows, see `write_rows`.
            times: pairs of seconds; is read after the last block, and may grow until then.

        Raises:
            KVideoError: this file, or one before it, cannot be written. Errors of `blocks` pass,
                and leave what was there before.
        """
        path = self.folder / file
        make_folder(path.parent)
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(path))
            shape = write_rows(temporary, blocks)
            size = os.stat(temporary).st_size
            placing = stack.pop_all()
        seconds = tuple((round(float(a), 6), round(float(b), 6)) for a, b in times)
        entry = CachedFile(file, key, size, shape, seconds)
        self._pending.append(self._pool.submit(self._place, placing, entry))
        while len(self._pending) > _MOST_PENDING:
            self._pending.popleft().result()
        return entry

    def close(self) -> None:
        """Waits until all files are in place.

        Raises:
            KVideoError: one of them cannot be written.
        """
        self._pool.shutdown(wait=True)
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, placing: contextlib.ExitStack, entry: CachedFile) -> None:
        placing.close()
        try:
            with open(self.folder / CACHE, "a", encoding="ascii") as cache:
                cache.write(_line(entry))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise KVideoError(f"cannot write {self.folder / CACHE}: {reason}.") from error
        self._known[entry.file] = entry


def _line(entry: CachedFile) -> str:
    # The line break comes first: it ends a line that a killed process has left unfinished.
    return "\n" + json.dumps(dataclasses.asdict(entry))


def _read_entries(path: Path) -> Iterator[CachedFile]:
    """The whole entries of a file; what cannot be read is not known."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            yield CachedFile(
                str(values["file"]),
                str(values["key"]),
                int(values["size"]),
                tuple(int(side) for side in values["shape"]),
                tuple((float(first), float(last)) for first, last in values["times"]),
            )
