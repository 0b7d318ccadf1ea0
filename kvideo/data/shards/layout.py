"""What lies where in a folder of shards: names of files, the index, its videos.

A folder holds TFRecord files `train-00003-of-00010.tfrecord`, beside each a small JSON file with
the same name that lists its records, and `index.json`, which is written last and holds all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

from kvideo.data.class_names import ClassNames
from kvideo.data.listing import is_url, join
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.tracks import LabelTrack, Segment
from kvideo.errors import DataError
from kvideo.text import plural

INDEX = "index.json"
FORMAT = "kvideo shards 1"
ENDING = ".tfrecord"
# Between a file and the number of the record in it: OUT/train-00003-of-00010.tfrecord#17
_MARK = f"{ENDING}#"


@dataclasses.dataclass(frozen=True, slots=True)
class StoredVideo:
    """One record of a shard.

    Args:
        name: of the video it was made from, relative to the data set where possible.
        labels: class indices.
        group: see `VideoRecord`.
        frames: how many are stored.
        frame_rate: stored frames per second.
        height: of the stored frames.
        width: of the stored frames.
        offset: of the record's bytes in the file, behind the length that TFRecord puts first.
        length: of the record in bytes.
        crc32: of these bytes, as `zlib.crc32` counts.
        fingerprint: of these bytes, as `tf.strings.to_hash_bucket_fast` counts, below 2**62.
        track: (segments (start, end, label) in seconds, class of the rest), or None.
    """

    name: str
    labels: tuple[int, ...]
    group: str | None
    frames: int
    frame_rate: float
    height: int
    width: int
    offset: int
    length: int
    crc32: int
    fingerprint: int
    track: tuple[tuple[tuple[float, float, int], ...], int] | None = None

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.frames / self.frame_rate


_FIELDS = tuple(field.name for field in dataclasses.fields(StoredVideo))


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """One TFRecord file.

    Args:
        name: of the file, in its folder.
        plan: identifies the data and settings it was made from.
        size: in bytes.
        sha256: of the whole file.
        videos: its records, in order.
        left_out: (name, reason, detail) of the videos that gave no frames.
    """

    name: str
    plan: str
    size: int
    sha256: str
    videos: tuple[StoredVideo, ...]
    left_out: tuple[tuple[str, str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values: a list for each field of the records, which is short and quick to read."""
        columns = {name: [getattr(video, name) for video in self.videos] for name in _FIELDS}
        if not any(columns["track"]):
            del columns["track"]
        return {
            "name": self.name,
            "plan": self.plan,
            "size": self.size,
            "sha256": self.sha256,
            "left_out": [list(entry) for entry in self.left_out],
            "records": columns,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ShardFile:
        """What `to_json` gave."""
        columns = dict(values["records"])
        columns["labels"] = [tuple(labels) for labels in columns["labels"]]
        tracks = columns.get("track") or [None] * len(columns["name"])
        columns["track"] = [track and _track(track) for track in tracks]
        rows = zip(*(columns[name] for name in _FIELDS), strict=True)
        return cls(
            name=str(values["name"]),
            plan=str(values["plan"]),
            size=int(values["size"]),
            sha256=str(values["sha256"]),
            videos=tuple(StoredVideo(*row) for row in rows),
            left_out=tuple((name, reason, detail) for name, reason, detail in values["left_out"]),
        )


def _track(values: Any) -> tuple[tuple[tuple[float, float, int], ...], int]:
    segments, background = values
    return tuple((start, end, label) for start, end, label in segments), background


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What a folder of shards holds.

    Args:
        folder: absolute path, or a URL-like one.
        class_names: of the labels.
        multi_label: see `VideoSet`.
        flip_safe: see `VideoSet`.
        settings: how the shards were made (short side, frame rate, quality …).
        parts: files of each part (`"train"`, `"val"`, `"test"`).
    """

    folder: str
    class_names: tuple[str, ...]
    multi_label: bool
    flip_safe: bool
    settings: dict[str, Any]
    parts: dict[str, tuple[ShardFile, ...]]

    def to_json(self) -> dict[str, Any]:
        """The document of `index.json`."""
        return {
            "format": FORMAT,
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "flip_safe": self.flip_safe,
            "settings": self.settings,
            "parts": {name: [f.to_json() for f in files] for name, files in self.parts.items()},
        }

    @functools.cached_property
    def files(self) -> dict[str, ShardFile]:
        """All files by name."""
        return {file.name: file for files in self.parts.values() for file in files}

    def find(self, path: str) -> tuple[ShardFile, StoredVideo]:
        """The record that a path `….tfrecord#17` names.

        Raises:
            DataError: there is none.
        """
        file, number = split_stored(path)
        name = file.rsplit("/", 1)[-1] if is_url(file) else os.path.basename(file)
        found = self.files.get(name)
        if found is None or number >= len(found.videos):
            raise DataError(f"{self.folder} has no record {name}#{number}.")
        return found, found.videos[number]

    def videos(self, parts: Iterable[str], expected: ClassNames | None, source: str) -> VideoSet:
        """The stored videos of some parts as records, each with a path `….tfrecord#17`.

        Args:
            parts: their names.
            expected: the classes asked for; None: those of the shards.
            source: what the user typed.

        Raises:
            DataError: a class is not among those asked for, or there are no videos.
        """
        names = expected or ClassNames(self.class_names, source=source)
        numbers = [names.index(name) for name in self.class_names]
        records, left_out = [], 0
        for part in parts:
            for file in self.parts[part]:
                path = join(self.folder, file.name)
                left_out += len(file.left_out)
                for number, video in enumerate(file.videos):
                    records.append(self._record(f"{path}#{number}", video, numbers, names, source))
        if not records:
            raise DataError(f"the shards in {source} hold no videos.")
        notes: tuple[str, ...] = ()
        if left_out:
            gave = plural(left_out, "video")
            notes = (f"{gave} gave no frames when the shards in {source} were made.",)
        return VideoSet(
            tuple(records),
            names.names,
            multi_label=self.multi_label,
            source=source,
            flip_safe=self.flip_safe,
            notes=notes,
        )

    def _record(
        self,
        path: str,
        video: StoredVideo,
        numbers: Sequence[int | None],
        names: ClassNames,
        source: str,
    ) -> VideoRecord:
        def number(label: int) -> int:
            found = numbers[label] if label >= 0 else label
            if found is None:
                raise DataError(f"{source}: {names.unknown(self.class_names[label])}")
            return found

        track = None
        if video.track is not None:
            segments, background = video.track
            track = LabelTrack(
                tuple(Segment(start, end, number(label)) for start, end, label in segments),
                number(background),
            )
        labels = tuple(number(label) for label in video.labels)
        return VideoRecord(path, labels, group=video.group, track=track)


def is_stored(path: str) -> bool:
    """Whether a path names a record of a shard rather than a file."""
    head, mark, number = path.rpartition(_MARK)
    return bool(head and mark) and number.isdecimal()


def split_stored(path: str) -> tuple[str, int]:
    """The file and the record's number in a path for which `is_stored` holds."""
    file, number = path.rsplit("#", 1)
    return file, int(number)


def parent(path: str) -> str:
    """The folder of a file, also of a remote one."""
    return path.rsplit("/", 1)[0] if is_url(path) else os.path.dirname(path)


def stored_in(folder: str) -> list[str]:
    """The stored videos of a local folder of shards; empty for any other folder.

    Raises:
        DataError: its index cannot be read.
    """
    if not os.path.isfile(os.path.join(folder, INDEX)):
        return []
    if not any(name.endswith(ENDING) for name in os.listdir(folder)):
        return []
    files = read_index(folder).files.values()
    return [
        f"{join(folder, file.name)}#{number}"
        for file in files
        for number in range(len(file.videos))
    ]


def read_index(folder: str, opener: Callable[[str], BinaryIO] | None = None) -> ShardIndex:
    """The index of a folder of shards; read once, until its file changes.

    Args:
        folder: absolute path, or a URL-like one.
        opener: opens a URL-like file for reading bytes.

    Raises:
        DataError: there is none, or it cannot be read or understood.
    """
    path, stamp = join(folder, INDEX), 0
    if not is_url(path):
        try:
            stamp = os.stat(path).st_mtime_ns
        except OSError as error:
            raise _unreadable(path, error) from error
    return _read_index(folder, path, stamp, opener)


@functools.lru_cache(maxsize=8)
def _read_index(
    folder: str, path: str, stamp: int, opener: Callable[[str], BinaryIO] | None
) -> ShardIndex:
    if is_url(path) and opener is None:
        raise DataError(f"{path} cannot be opened here; copy the folder to this machine.")
    try:
        with opener(path) if is_url(path) and opener else open(path, "rb") as file:
            values = json.loads(file.read())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # of whatever library stands behind the opener
        raise _unreadable(path, error) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"{path} is not the index of shards that this version reads ({FORMAT}).")
    try:
        parts = {
            name: tuple(ShardFile.from_json(file) for file in files)
            for name, files in values["parts"].items()
        }
        return ShardIndex(
            folder,
            tuple(values["class_names"]),
            bool(values["multi_label"]),
            bool(values["flip_safe"]),
            dict(values["settings"]),
            parts,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}); `kvideo shard` makes it anew.") from error


def _unreadable(path: str, error: Exception) -> DataError:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return DataError(f"cannot read {path}: {reason}.")
