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
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kvideo.data.decode import VideoReader, open_video
from kvideo.data.loading import ordered_map
from kvideo.errors import DataError, DecodeError, UsageError, check_choice
from kvideo.files import atomic_path, cache_folder, make_folder
from kvideo.flow import ESTIMATORS, FlowEstimator
from kvideo.flow.estimation import PRESETS

STORES = ("jpeg", "float16")
_VERSION = 1
_INDEX = "flow.json"
_ZERO, _LEVELS = 128, 127  # of 8 bits: no motion has a level of its own
_BLOCK = 32  # frames decoded at once
_HASHED = 2**22


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and kept.

    Args:
        method: see `kvideo.flow.FlowEstimator`.
        preset: of `"dis"`.
        compensate: whether the mean displacement of each frame is subtracted.
        frame_rate: the flow is that between the frames on display 1 / `frame_rate` seconds apart;
            None: between all neighbouring frames of the video.
        short_side: pixels to which the short side of larger pictures is shrunk first.
        store: `"jpeg"`: cut off at `limit`, in 255 steps, as JPEG, which is how the two-stream
            paper does it. `"float16"`: nothing lost but digits; some thirty times larger.
        limit: pixels per frame.
        quality: of the JPEGs, 1 to 100.

    Raises:
        UsageError: a value is out of its range; the message names it.
    """

    method: str = "dis"
    preset: str = "medium"
    compensate: bool = False
    frame_rate: float | None = None
    short_side: int = 256
    store: str = "jpeg"
    limit: float = 20.0
    quality: int = 95

    def __post_init__(self) -> None:
        check_choice("method", self.method, ESTIMATORS)
        check_choice("preset", self.preset, PRESETS)
        check_choice("store", self.store, STORES)
        if self.frame_rate is not None and not 0 < self.frame_rate < float("inf"):
            raise UsageError(f"frame_rate must be a positive number, not {self.frame_rate}.")
        if self.short_side < 1:
            raise UsageError(f"short_side must be at least 1 pixel, not {self.short_side}.")
        if not 0 < self.limit < float("inf"):
            raise UsageError(f"limit must be a positive number of pixels, not {self.limit}.")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be 1 to 100, not {self.quality}.")

    def size(self, picture: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the flow of pictures of a size."""
        scale = min(1.0, self.short_side / min(picture))
        return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))

    def encode(self, flow: np.ndarray) -> bytes:
        """(H, W, 2) as bytes."""
        if self.store == "float16":
            return flow.astype("<f2").tobytes()
        import cv2

        levels = np.rint(flow * (_LEVELS / self.limit)).clip(-_LEVELS, _LEVELS) + _ZERO
        picture = np.concatenate([levels[..., 0], levels[..., 1]]).astype(np.uint8)  # x above y
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].tobytes()

    def decode(self, content: bytes, size: Sequence[int]) -> np.ndarray:
        """The inverse of `encode`: (H, W, 2) float32."""
        if self.store == "float16":
            return np.frombuffer(content, "<f2").reshape(*size, 2).astype(np.float32)
        import cv2

        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
        levels = picture.reshape(2, *size).astype(np.float32) - _ZERO
        return np.moveaxis(levels, 0, -1) * np.float32(self.limit / _LEVELS)


class FlowTrack:
    """The flow of one video, in a file. Many threads may read it.

    Attributes:
        path: the file.
        settings: how it was made.
        times: (N,) seconds of the first frame of each pair.
        size: (H, W).
        computed: whether it was made just now, rather than found.
    """

    def __init__(self, path: Path, computed: bool = False) -> None:
        self.path, self.computed = path, computed
        self._archive = zipfile.ZipFile(path)
        try:
            about = json.loads(self._archive.read(_INDEX))
            self.settings = FlowSettings(**about["settings"])
            self.times = np.array(about["times"])
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
            return self.settings.decode(content, self.size)
        except (zipfile.BadZipFile, KeyError, ValueError, AttributeError) as cause:
            raise DataError(f"{self.path} is damaged; remove it, and it is made anew.") from cause

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
        self.folder = make_folder(Path(folder) if folder else cache_folder() / "flow")
        self._opener, self._workers = opener, workers
        made = self.settings
        self._estimator = FlowEstimator(made.method, preset=made.preset, compensate=made.compensate)
        self._digests: dict[tuple[str, int, int], str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

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
        target = self.folder / f"{self._key(path)}.zip"
        with self._lock:
            lock = self._locks.setdefault(target.name, threading.Lock())
        with lock:  # nobody computes what another is computing
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                return FlowTrack(target)
            with atomic_path(target) as temporary:
                self._compute(path, temporary, on_flow or (lambda seconds: None))
            return FlowTrack(target, computed=True)

    def _compute(self, path: str, target: Path, on_flow: Callable[[float], None]) -> None:
        with contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_video(path, opener=self._opener))
            size = self.settings.size((reader.info.height, reader.info.width))
            archive = stack.enter_context(zipfile.ZipFile(target, "w"))
            times: list[float] = []

            def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
                before = None
                for seconds, picture in _frames(reader, size, self.settings.frame_rate):
                    times.append(round(seconds, 6))
                    grey = self._estimator.prepare(picture)
                    if before is not None:
                        yield before, grey
                    before = grey

            def encoded(pair: tuple[np.ndarray, np.ndarray]) -> bytes:
                return self.settings.encode(self._estimator.between(*pair))

            contents = ordered_map(encoded, pairs(), self._workers, 4 * self._workers)
            with contextlib.closing(contents):
                for number, content in enumerate(contents):
                    archive.writestr(_name(number), content)
                    on_flow(times[number])
            if len(times) < 2:
                raise DecodeError(
                    path, "too_short", "it has one frame at this rate, and optical flow needs two"
                )
            about = {
                "settings": dataclasses.asdict(self.settings),
                "size": size,
                "times": times[:-1],
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
        num_bytes: of it.
        computed: whether it was made now, rather than found.
        error: why there is none.
    """

    path: str
    file: str | None = None
    num_flows: int = 0
    num_bytes: int = 0
    computed: bool = False
    error: DecodeError | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self) | {"error": self.error and str(self.error)}
        return {name: value for name, value in values.items() if value is not None}


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
            with cache.of(path, on_flow) as track:
                facts = str(track.path), len(track), track.num_bytes, track.computed
        except DecodeError as error:
            yield CachedVideo(path, error=error)
        else:
            yield CachedVideo(path, *facts)
