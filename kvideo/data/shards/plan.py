"""Which video comes into which shard: determined by the data, the settings and a seed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from typing import Any

import numpy as np

from kvideo.data.annotations import find_splits, read_data
from kvideo.data.listing import absolute, is_url
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.remote import list_remote, open_remote
from kvideo.data.shards.layout import ENDING, is_stored
from kvideo.errors import DataError, UsageError

PARTS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """How videos are stored.

    Args:
        short_side: pixels; larger pictures are shrunk to it, smaller ones stay.
        frame_rate: frames per second; None, or where it is more than the video has: the video's.
        quality: of the JPEG pictures, 1 to 100.
        num_shards: files of each part; None: as many as `videos_per_shard` asks for.
        videos_per_shard: videos in a file, about.
        seed: of the order, which is random so that every file holds some of all classes.

    Raises:
        UsageError: a value is out of its range.
    """

    short_side: int = 256
    frame_rate: float | None = None
    quality: int = 90
    num_shards: int | None = None
    videos_per_shard: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("short_side", "num_shards", "videos_per_shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
        if self.frame_rate is not None and not 0 < self.frame_rate <= 1000:
            raise UsageError(f"frame_rate must be above 0 and at most 1000, not {self.frame_rate}.")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be 1 to 100, not {self.quality}.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be 0 to 4294967295, not {self.seed}.")


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """A file to make.

    Args:
        name: of the file.
        part: of the data set.
        plan: identifies data and settings, see `ShardPlan`.
        records: its videos, in order.
        names: of these videos, for people.
    """

    name: str
    part: str
    plan: str
    records: tuple[VideoRecord, ...]
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """All files to make of a data set.

    Args:
        videos: of each part.
        settings: how they are stored.
        shards: the files.
        identity: a hash of the videos' names and labels and of the settings.
    """

    videos: dict[str, VideoSet]
    settings: ShardSettings
    shards: tuple[PlannedShard, ...]
    identity: str

    @property
    def first(self) -> VideoSet:
        """Of the parts the one whose classes count."""
        return next(iter(self.videos.values()))

    def share(self, part: int, count: int) -> tuple[PlannedShard, ...]:
        """The files that task `part` (from 1) of `count` makes.

        Raises:
            UsageError: there is no such task.
        """
        if not 1 <= part <= count:
            raise UsageError(f"part must be 1/{count} to {count}/{count}, not {part}/{count}.")
        return self.shards[part - 1 :: count]


def plan_shards(
    data: str | os.PathLike[str],
    settings: ShardSettings,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    per_frame: bool = False,
) -> ShardPlan:
    """Reads DATA and decides which video comes where.

    Args:
        data: see `read_data`.
        settings: how videos are stored.
        root: see `read_data`.
        split: the only part to store; by default the training, validation and test part, as far
            as there are such.
        per_frame: see `read_data`; labels over time are also kept where the annotations cannot be
            meant otherwise.

    Raises:
        UsageError, DataError: as `read_data` does; videos without labels, or shards already.
    """
    videos = _read_parts(data, root, split, per_frame)
    for members in videos.values():
        if any(is_stored(record.path) for record in members.records):
            raise DataError(f"{os.fspath(data)} is a folder of shards already.")
        for record in members.records:
            if not record.labels and record.track is None:
                raise DataError(f"{record.path} has no label; shards are for training.")
    top = absolute(root or data)
    if root is None and os.path.isfile(top):  # a list: paths are relative to its folder
        top = os.path.dirname(top)
    identity = _identity(videos, settings, top)
    shards = []
    for part, members in videos.items():
        order = np.random.default_rng([settings.seed, PARTS.index(part)]).permutation(len(members))
        count = settings.num_shards or -(-len(members) // settings.videos_per_shard)
        count = max(1, min(count, len(members)))
        for number, places in enumerate(np.array_split(order, count)):
            records = tuple(members.records[place] for place in places)
            name = f"{part}-{number:05d}-of-{count:05d}{ENDING}"
            names = tuple(name_of(record, top) for record in records)
            shards.append(PlannedShard(name, part, identity, records, names))
    return ShardPlan(videos, settings, tuple(shards), identity)


def _read_parts(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    split: str | None,
    per_frame: bool,
) -> dict[str, VideoSet]:
    remote: dict[str, Any] = {"listdir": list_remote, "opener": open_remote}
    options: dict[str, Any] = {"root": root, "per_frame": per_frame or None, **remote}
    found = find_splits(data, **remote)
    if split is not None:
        return {_kind(split): read_data(data, split=split, **options)}
    parts = [name for name in PARTS if name in found]
    first = read_data(data, split=parts[0] if parts else None, **options)
    videos = {"train": first} if not parts or parts[0] == "train" else {parts[0]: first}
    known: dict[str, Any] = {"class_names": first.class_names, "multi_label": first.multi_label}
    for name in parts[1:]:
        part = read_data(data, split=name, **known, **options)
        # Where there is no validation part of its own, the test part is it.
        if all(part.records != other.records for other in videos.values()):
            videos[name] = part
    return videos


def _kind(split: str) -> str:
    """The part's name in files: "train2" is a training part."""
    return next((part for part in PARTS if split.startswith(part)), "train")


def name_of(record: VideoRecord, top: str) -> str:
    """A record's name for people: its path below the data set, and the segment."""
    path = record.path
    prefix = top.rstrip("/") + "/"
    if path.startswith(prefix):
        path = path[len(prefix) :]
    elif not is_url(path):
        path = os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
    if record.start is None and record.end is None:
        return path
    end = "" if record.end is None else f"{record.end:g}"
    return f"{path} [{record.start or 0:g}-{end}]"


def groups_of(records: tuple[VideoRecord, ...]) -> list[str | None]:
    """What keeps records together when a validation part is split off: group, or the file."""
    counts = Counter(record.path for record in records)
    return [
        record.group if record.group is not None or counts[record.path] < 2 else record.path
        for record in records
    ]


def _identity(videos: dict[str, VideoSet], settings: ShardSettings, top: str) -> str:
    digest = hashlib.sha256(repr(dataclasses.astuple(settings)).encode())
    for part, members in videos.items():
        digest.update(repr((part, members.class_names, members.multi_label)).encode())
        for record in members.records:
            values = name_of(record, top), record.labels, record.start, record.end, record.track
            digest.update(repr(values).encode("utf-8", errors="backslashreplace"))
    return digest.hexdigest()[:32]
