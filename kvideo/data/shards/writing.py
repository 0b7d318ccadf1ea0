"""Makes shards: decodes videos in a pool of threads, writes file after file, then the index.

A file is complete when the JSON file beside it is there. So a run that was interrupted goes on with
the file it was at, and several processes (tasks of a job array, of a cluster) may each make a part;
whoever finds all files made writes the index.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from kvideo.data.failures import Failures
from kvideo.data.listing import absolute
from kvideo.data.shards import storage
from kvideo.data.shards.examples import encode_video, placed
from kvideo.data.shards.layout import ENDING, INDEX, ShardFile, ShardIndex, StoredVideo
from kvideo.data.shards.plan import PlannedShard, ShardPlan, groups_of
from kvideo.data.threads import default_workers, ordered_map
from kvideo.errors import DecodeError, UsageError

# TFRecord puts the record's length and a checksum of it before, and a checksum behind.
_BEFORE, _BEHIND = 12, 4


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What became of a plan.

    Args:
        folder: of the shards.
        made: files written now.
        kept: files that were there already.
        waiting: files that others have still to make; 0: the index is written.
        videos: stored, in all files that are there.
        num_bytes: of these files.
        failures: the videos of the files written now that gave no frames.
    """

    folder: str
    made: int
    kept: int
    waiting: int
    videos: int
    num_bytes: int
    failures: Failures

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": self.folder,
            "made": self.made,
            "kept": self.kept,
            "waiting": self.waiting,
            "videos": self.videos,
            "num_bytes": self.num_bytes,
            "failures": [
                {"path": e.path, "reason": e.reason, "detail": e.detail}
                for e in self.failures.errors()
            ],
        }


def prepare(plan: ShardPlan, out: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Makes the folder, or sees that what it holds is of this plan.

    Args:
        plan: what is to be made.
        out: the folder, local or URL-like.
        overwrite: remove shards of other data or settings.

    Returns:
        The folder's absolute path.

    Raises:
        UsageError: it holds shards of other data or settings.
        KVideoError: it cannot be made.
    """
    folder = absolute(out)
    storage.prepare_folder(folder)
    names = storage.names_in(folder)
    planned = {shard.name for shard in plan.shards}
    strange = [name for name in names if name.endswith(ENDING) and name not in planned]
    for shard in plan.shards:
        if _sidecar(shard.name) in names:
            found = storage.read_json(folder, _sidecar(shard.name))
            if isinstance(found, dict) and found.get("plan") != plan.identity:
                strange.append(shard.name)
    if strange and not overwrite:
        raise UsageError(
            f"{os.fspath(out)} holds shards of other data or other settings (such as "
            f"{min(strange)}): name another folder, or --overwrite them."
        )
    for name in strange:
        for each in (INDEX, _sidecar(name), name):
            storage.remove(folder, each)
    return folder


def write_shard(
    shard: PlannedShard,
    plan: ShardPlan,
    folder: str,
    *,
    workers: int | None = None,
    failures: Failures | None = None,
    on_video: Callable[[], None] = lambda: None,
    strict: bool = False,
) -> ShardFile:
    """Makes one file, or finds that it is there.

    Args:
        shard: what it holds.
        plan: it is part of.
        folder: as `prepare` gave it.
        workers: threads that decode; by default as many as processors.
        failures: receives the videos that give no frames.
        on_video: is called after each video.
        strict: end with an error at the first of these.

    Raises:
        DecodeError: in strict mode.
        KVideoError: the file cannot be written.
    """
    if (there := existing(shard, folder)) is not None:
        return there
    workers = workers or default_workers()
    failures = Failures() if failures is None else failures
    class_names = plan.first.class_names

    def encode(item: tuple[Any, str, str | None]) -> Any:
        record, name, group = item
        try:
            return encode_video(record, name, group, class_names, plan.settings)
        except DecodeError as error:
            return name, error

    items = zip(shard.records, shard.names, groups_of(shard.records), strict=True)
    results = ordered_map(encode, items, workers, workers + 2)
    videos: list[StoredVideo] = []
    left_out: list[tuple[str, str, str]] = []
    place = 0
    try:
        with storage.written(folder, shard.name) as path:
            with tf.io.TFRecordWriter(path) as writer:
                for first, second in results:
                    on_video()
                    if isinstance(second, DecodeError):
                        failures.add(second)
                        if strict:
                            raise second
                        left_out.append((first, second.reason, second.detail))
                        continue
                    writer.write(first)
                    videos.append(placed(second, place + _BEFORE))
                    place += _BEFORE + len(first) + _BEHIND
            digest = storage.sha256(path)
    finally:
        results.close()
    file = ShardFile(shard.name, plan.identity, place, digest, tuple(videos), tuple(left_out))
    storage.write_json(folder, _sidecar(shard.name), file.to_json())
    return file


def write_shards(
    shards: Iterable[PlannedShard],
    plan: ShardPlan,
    folder: str,
    *,
    workers: int | None = None,
    on_video: Callable[[int], None] = lambda count: None,
    strict: bool = False,
) -> ShardReport:
    """Makes some of a plan's files and, if all others are there, the index.

    Args:
        shards: which ones.
        plan: they are part of.
        folder: as `prepare` gave it.
        workers: see `write_shard`.
        on_video: is called with the number of videos done since the last call.
        strict: see `write_shard`.

    Raises:
        DecodeError, KVideoError: see `write_shard`.
    """
    failures, made, kept = Failures(), 0, 0
    for shard in shards:
        if existing(shard, folder) is not None:
            kept += 1
            on_video(len(shard.records))
            continue
        write_shard(
            shard,
            plan,
            folder,
            workers=workers,
            failures=failures,
            on_video=lambda: on_video(1),
            strict=strict,
        )
        made += 1
    return finish(plan, folder, made, kept, failures)


def finish(plan: ShardPlan, folder: str, made: int, kept: int, failures: Failures) -> ShardReport:
    """Writes the index if all files are there."""
    found = [existing(shard, folder) for shard in plan.shards]
    files = [file for file in found if file is not None]
    if len(files) == len(plan.shards):
        parts: dict[str, list[ShardFile]] = {}
        for shard, file in zip(plan.shards, files, strict=True):
            parts.setdefault(shard.part, []).append(file)
        index = ShardIndex(
            folder,
            plan.first.class_names,
            plan.first.multi_label,
            plan.first.flip_safe,
            dataclasses.asdict(plan.settings),
            {part: tuple(members) for part, members in parts.items()},
        )
        storage.write_json(folder, INDEX, index.to_json())
    return ShardReport(
        folder,
        made,
        kept,
        waiting=len(plan.shards) - len(files),
        videos=sum(len(file.videos) for file in files),
        num_bytes=sum(file.size for file in files),
        failures=failures,
    )


def existing(shard: PlannedShard, folder: str) -> ShardFile | None:
    """The file, if it is there as this plan wants it and complete."""
    values = storage.read_json(folder, _sidecar(shard.name))
    if values is None or storage.size_of(folder, shard.name) < 0:
        return None
    try:
        file = ShardFile.from_json(values)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    whole = file.size == storage.size_of(folder, shard.name)
    return file if whole and file.plan == shard.plan else None


def _sidecar(name: str) -> str:
    return name.removesuffix(ENDING) + ".json"
