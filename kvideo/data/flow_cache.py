"""The optical flow of videos: computed once, kept on disk, read from then on.

One file for each video, named by the video's content and the settings: a zip archive, stored, with
a picture (or array) for each flow and `flow.json`, which is written last. A file that a killed
process has left, or another version made, is not found, and made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kvideo.data.decode import VideoReader, open_video
from kvideo.data.threads import ordered_map
from kvideo.errors import DataError, DecodeError
from kvideo.files import atomic_path, cache_folder, make_folder
from kvideo.flow.coding import FlowCoder
from kvideo.flow_settings import FlowSettings

_VERSION = 2
_INDEX = "flow.json"
_BLOCK = 32  # frames decoded at once
_HASHED = 2**22
_LOCKS: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
_LOCKS_LOCK = threading.Lock()


class FlowTrack:
    """The flow of one video, in a file. Many threads may read it.

    Attributes:
        path: the file.
        settings: how it was made.
        times: (N,) seconds of the first frame of each pair.
        cuts: the numbers of the pairs between which there is a cut, and therefore no flow.
        size: (H, W).
        computed: whether it was made just now, rather than found.
    """

    def __init__(self, path: Path, computed: bool = False) -> None:
        self.path, self.computed = path, computed
        self._archive = zipfile.ZipFile(path)
        try:
            about = json.loads(self._archive.read(_INDEX))
            self.settings = FlowSettings(**about["settings"])
            self._coder = FlowCoder(self.settings)
            self.times = np.array(about["times"])
            self.cuts: list[int] = about["cuts"]
            self.size = (int(about["size"][0]), int(about["size"][1]))
        except BaseException:
            self._archive.close()
            raise

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W, 2) float32, pixels per frame.

        Raises:
            IndexError: there are fewer.
            DataError: the file is damaged.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} flows.")
        try:
            content = self._archive.read(_name(index % len(self)))
            return self._coder.decode(content, self.size)
        except (zipfile.BadZipFile, KeyError, ValueError, AttributeError) as cause:
            raise DataError(f"{self.path} is damaged; remove it, and it is made anew.") from cause

    def is_whole(self) -> bool:
        """Whether all of the file can be read; reads it."""
        try:
            return self._archive.testzip() is None
        except (zipfile.BadZipFile, OSError):
            return False

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return os.path.getsize(self.path)

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    def __enter__(self) -> FlowTrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FlowCache:
    """Computes the flow of videos, or finds it. Many threads may use it.

    Attributes:
        coder: estimates single flows as they are kept.

    Args:
        settings: how.
        folder: of the files; by default `flow` in `$KVIDEO_CACHE` or `~/.cache/kvideo`.
        workers: threads that estimate the flow of one video.
        opener: makes a binary file object from a path, for paths that the system cannot open.
    """

    def __init__(
        self,
        settings: FlowSettings | None = None,
        folder: str | os.PathLike[str] | None = None,
        workers: int = 1,
        opener: Callable[[str], BinaryIO] | None = None,
    ) -> None:
        self.settings = settings or FlowSettings()
        self.folder = Path(folder) if folder else cache_folder() / "flow"
        self._opener, self._workers = opener, workers
        self.coder = FlowCoder(self.settings)
        self._digests: dict[tuple[str, int, int], str] = {}

    def of(
        self, path: str | os.PathLike[str], on_flow: Callable[[float], None] | None = None
    ) -> FlowTrack:
        """The flow of a video.

        Args:
            path: of the video.
            on_flow: called after each flow that is computed, with its time in seconds.

        Raises:
            DecodeError: the video cannot be read, or has a single frame.
            KVideoError: the disk is full, or the folder is not writable.
        """
        path = os.fspath(path)
        target = self._target(path)
        with _lock_of(target):  # nobody computes what another is computing
            if (track := _open_track(target)) is not None:
                return track
            make_folder(self.folder)
            with atomic_path(target) as temporary:
                self._compute(path, temporary, on_flow or (lambda seconds: None))
            return FlowTrack(target, computed=True)

    def find(self, path: str | os.PathLike[str]) -> FlowTrack | None:
        """The flow of a video if it is there.

        Raises:
            DecodeError: the video cannot be read.
        """
        return _open_track(self._target(os.fspath(path)))

    def discard(self, path: str | os.PathLike[str]) -> None:
        """Forgets the flow of a video, since its file is damaged, if the file can be removed."""
        with contextlib.suppress(OSError):
            self._target(os.fspath(path)).unlink()

    def _target(self, path: str) -> Path:
        return self.folder / f"{self._key(path)}.zip"

    def _compute(self, path: str, target: Path, on_flow: Callable[[float], None]) -> None:
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_video(path, opener=self._opener))
            size = self.settings.size((reader.info.height, reader.info.width))
            archive = stack.enter_context(zipfile.ZipFile(target, "w"))
            times: list[float] = []
            cuts: list[int] = []

            def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
                before = None
                for seconds, picture in _frames(reader, size, self.settings.frame_rate):
                    times.append(round(seconds, 6))
                    grey = self.coder.prepare(picture)
                    if before is not None:
                        yield before, grey
                    before = grey

            estimates = ordered_map(
                lambda pair: self.coder.estimate(*pair), pairs(), self._workers, 4 * self._workers
            )
            with contextlib.closing(estimates):
                for number, estimate in enumerate(estimates):
                    archive.writestr(_name(number), estimate.content)
                    if estimate.cut:
                        cuts.append(number)
                    on_flow(times[number])
            if len(times) < 2:
                raise single_frame(path)
            about = {
                "settings": dataclasses.asdict(self.settings),
                "size": size,
                "times": times[:-1],
                "cuts": cuts,
                "made": time.strftime("%Y-%m-%d"),
            }
            archive.writestr(_INDEX, json.dumps(about))

    def _key(self, path: str) -> str:
        settings = json.dumps([_VERSION, dataclasses.asdict(self.settings)], sort_keys=True)
        return hashlib.sha256(f"{self._digest(path)} {settings}".encode()).hexdigest()[:32]

    def _digest(self, path: str) -> str:
        """Of the content. A file that has not changed since is not read again."""
        known = None
        if "://" not in path:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                known = (path, status.st_size, status.st_mtime_ns)
        if known is not None and known in self._digests:
            return self._digests[known]
        digest = hashlib.sha256()
        try:
            opened = self._opener(path) if self._opener and "://" in path else open(path, "rb")
            with opened as file:
                while block := file.read(_HASHED):
                    digest.update(block)
        except FileNotFoundError as cause:
            raise DecodeError(path, "missing", "there is no such file") from cause
        except OSError as cause:
            raise DecodeError(path, "unreadable", cause.strerror or str(cause)) from cause
        if known is not None:
            self._digests[known] = digest.hexdigest()
        return digest.hexdigest()


def _lock_of(path: Path) -> threading.Lock:
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(os.path.abspath(path), threading.Lock())


def single_frame(path: str) -> DecodeError:
    """What to raise for a video between whose frames there is no flow."""
    return DecodeError(
        path, "too_short", "it has one frame at this rate, and optical flow needs two"
    )


def _open_track(path: Path) -> FlowTrack | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return FlowTrack(path)
    return None


def _name(number: int) -> str:
    return f"{number:06d}"


def _frames(
    reader: VideoReader, size: tuple[int, int], rate: float | None
) -> Iterator[tuple[float, np.ndarray]]:
    if rate is None:
        yield from reader.frames(size=size)
        return
    count = max(1, int(np.ceil(reader.info.duration * rate - 1e-6)))
    for first in range(0, count, _BLOCK):
        times = np.arange(first, min(first + _BLOCK, count)) / rate
        yield from zip(times.tolist(), reader.read(times, size=size), strict=True)


@dataclasses.dataclass(frozen=True)
class CachedVideo:
    """What became of one video.

    Attributes:
        path: of the video.
        file: with its flow; None if there is none.
        num_flows: in it.
        num_cuts: how many of them are zero because there is a cut.
        num_bytes: of it.
        computed: whether it was made now, rather than found.
        error: why there is none.
    """

    path: str
    file: str | None = None
    num_flows: int = 0
    num_cuts: int = 0
    num_bytes: int = 0
    computed: bool = False
    error: DecodeError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self) | {"error": self.error and str(self.error)}
        return {name: value for name, value in values.items() if value is not None}


def _whole_track(path: str, cache: FlowCache, on_flow: Callable[[float], None] | None) -> FlowTrack:
    """The flow of a video; what is there is looked through, and made anew if it is damaged."""
    track = cache.of(path, on_flow)
    if track.computed or track.is_whole():
        return track
    track.close()
    cache.discard(path)
    return cache.of(path, on_flow)


def cache_flow(
    paths: Sequence[str],
    cache: FlowCache,
    on_flow: Callable[[float], None] | None = None,
) -> Iterator[CachedVideo]:
    """Computes the flow of each video that the cache lacks, one after the other.

    Args:
        paths: of videos.
        cache: where to.
        on_flow: see `FlowCache.of`.

    Yields:
        What became of each video, in order; a bad one does not stop the others.

    Raises:
        KVideoError: the disk is full, or the folder is not writable.
    """
    for path in paths:
        try:
            with _whole_track(path, cache, on_flow) as track:
                facts = (
                    str(track.path),
                    len(track),
                    len(track.cuts),
                    track.num_bytes,
                    track.computed,
                )
        except DecodeError as error:
            yield CachedVideo(path, error=error)
        else:
            yield CachedVideo(path, *facts)
