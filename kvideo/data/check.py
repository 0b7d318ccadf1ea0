"""Finds the files of a data set that cannot be used, before a training run does.

Every video is decoded to its end. What is found bad can be written to a quarantine file, which
training and evaluation then leave out: text, one file a line, `PATH<tab>REASON: DETAIL`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, BinaryIO

from kvideo.data.annotations import ALL, read_data
from kvideo.data.containers import cut_off
from kvideo.data.demo_words import DEMOS
from kvideo.data.listing import Folders, absolute, is_url, is_video
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.shards.checking import check_file, shard_files
from kvideo.data.shards.layout import is_stored
from kvideo.data.tracks import LabelTrack, Segment, ordered
from kvideo.errors import DataError, DecodeError
from kvideo.files import write_text_atomic
from kvideo.text import plural

DUPLICATE = "duplicate"
_PROBE_SIZE = (16, 16)  # frames are decoded whole and shrunk to this, since nobody looks at them
_HEADER = "# Written by `kvideo check`: files to leave out. PATH<tab>REASON: DETAIL"


@dataclasses.dataclass(frozen=True)
class BadVideo:
    """A file that cannot be used.

    Args:
        path: the file.
        reason: one of `DecodeError.REASONS`, or `"duplicate"`.
        detail: what exactly, for a person.
    """

    path: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check_videos` found.

    Args:
        source: what was checked.
        num_files: files looked at, those that are missing included.
        seconds: of video in the good files.
        bad: the files that cannot be used, in the order of the data.
        notes: sentences about what is odd, but no reason to leave a file out.
    """

    source: str
    num_files: int
    seconds: float
    bad: tuple[BadVideo, ...]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Bad files by reason, most frequent first."""
        return dict(Counter(video.reason for video in self.bad).most_common())

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "data": self.source,
            "files": self.num_files,
            "good": self.num_files - len(self.bad),
            "seconds": round(self.seconds, 3),
            "counts": self.counts(),
            "bad": [dataclasses.asdict(video) for video in self.bad],
            "notes": list(self.notes),
        }


def videos_to_check(
    data: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> VideoSet:
    """Everything that DATA holds, whether labelled or not.

    Args:
        data: as for `read_data`; also a folder without class folders, or a single video.
        root: as for `read_data`.

    Raises:
        DataError: there is nothing to check.
    """
    name = os.fspath(data)
    path = absolute(name)
    if name not in DEMOS and os.path.isfile(path) and is_video(path):
        return VideoSet((VideoRecord(path),), (), source=name)
    if name not in DEMOS and os.path.isdir(path) and (found := Folders().videos(path)):
        return VideoSet(tuple(VideoRecord(video) for video in found), (), source=name)
    remote: dict[str, Any] = {}
    if is_url(path):
        from kvideo.data.remote import list_remote, open_remote

        remote = {"listdir": list_remote, "opener": open_remote}
    return read_data(name, root=root, split=ALL, require_labels=False, per_frame=None, **remote)


def check_videos(
    videos: VideoSet,
    *,
    workers: int | None = None,
    min_seconds: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    decoder: Callable[..., Any] | None = None,
    opener: Callable[[str], BinaryIO] | None = None,
) -> CheckReport:
    """Decode every file to its end, several at a time.

    A file is bad if it is missing, empty, unreadable or cut off, has no video or no frames, is
    too short, or has the same content as a file before it (remote files are not compared); or if
    labels over time do not fit it. Of shards every video is looked at, and the files' checksums are
    compared with the index. Where segments may be meant as clips too, there is a note of
    those that do not suit a model with a label for each frame.

    Args:
        videos: what to check.
        workers: files decoded at the same time; by default one per processor.
        min_seconds: shorter videos are bad; by default those of a single frame.
        on_progress: called with (files done, files in all) in the thread of the caller.
        decoder: has `kvideo.data.decode.open_video`'s signature, which is the default.
        opener: opens remote files.

    Raises:
        KeyboardInterrupt: at once, without waiting for long files.
    """
    if decoder is None:
        from kvideo.data.decode import open_video

        decoder = open_video
    open_reader = decoder
    by_path: dict[str, list[VideoRecord]] = {}
    for record in videos.records:
        by_path.setdefault(record.path, []).append(record)
    sizes = {path: _size(path) for path in by_path}
    twins = {size for size, count in Counter(sizes.values()).items() if size and count > 1}
    stop = threading.Event()

    def look(path: str) -> _Finding:
        finding = _Finding()
        try:
            finding.seconds, finding.frames, info = _decode(path, open_reader, opener, stop)
            finding.bad = _misfit(by_path[path], info, finding.frames)
            finding.clips_only = _clips_only(by_path[path], info, finding.frames, videos)
            if sizes[path] in twins:
                finding.digest = _digest(path, stop)
        except DecodeError as error:
            finding.bad = BadVideo(path, error.reason, error.detail)
        except OSError as error:
            finding.bad = BadVideo(path, "unreadable", (error.strerror or str(error)).lower())
        return finding

    def look_at_shard(path: str) -> _Finding:
        detail = check_file(path, opener, stop)
        return _Finding(bad=detail and BadVideo(path, "damaged", detail) or None)

    findings: dict[str, _Finding] = {}
    shards = shard_files(by_path)
    total = len(by_path) + len(shards)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        futures = {pool.submit(look, path): path for path in by_path}
        futures |= {pool.submit(look_at_shard, path): path for path in shards}
        try:
            for future in as_completed(futures):
                findings[futures[future]] = future.result()
                if on_progress is not None:
                    on_progress(len(findings), total)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return _report(videos, by_path, findings, min_seconds)


def write_quarantine(path: str | os.PathLike[str], report: CheckReport) -> None:
    """Write the bad files of a report, whole or not at all; raises as `atomic_path` does."""
    lines = [_HEADER] + [f"{_quote(v.path)}\t{v.reason}: {_one_line(v.detail)}" for v in report.bad]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


def read_quarantine(path: str | os.PathLike[str]) -> dict[str, str]:
    """Files to leave out, and why.

    Lines that begin with `#` and empty ones do not count, and the reason may be missing, so that
    such a file can be written by hand. Relative paths are relative to the quarantine file.

    Returns:
        Absolute path → reason.

    Raises:
        DataError: the file cannot be read.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read the quarantine file {path}: {reason}.") from error
    top = os.path.dirname(os.path.abspath(path))
    found = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.rstrip("\r").partition("\t")
            name = json.loads(name) if name.startswith('"') else name
            found[name if is_url(name) else os.path.join(top, name)] = reason
    return found


def without_quarantined(videos: VideoSet, path: str | os.PathLike[str]) -> VideoSet:
    """The videos that a quarantine file does not name.

    Raises:
        DataError: the file cannot be read, or names all of the videos.
    """
    kept = videos.without(read_quarantine(path))
    if videos.records and not kept.records:
        raise DataError(f"{os.fspath(path)} names every video of {videos.source}; none is left.")
    left_out = len(videos) - len(kept)
    note = f"{plural(left_out, 'video')} left out, as {os.fspath(path)} says."
    return dataclasses.replace(kept, notes=(*kept.notes, note)) if left_out else kept


@dataclasses.dataclass
class _Finding:
    seconds: float = 0.0
    frames: int = 0
    digest: bytes | None = None
    bad: BadVideo | None = None
    clips_only: str | None = None  # why its segments suit models of whole clips only


def _size(path: str) -> int:
    try:
        return 0 if is_url(path) else os.path.getsize(path)
    except OSError:
        return 0


def _decode(
    path: str,
    decoder: Callable[..., Any],
    opener: Callable[[str], BinaryIO] | None,
    stop: threading.Event,
) -> tuple[float, int, Any]:
    """Seconds and frames that really are in the file, and what the file declares."""
    count, last = 0, 0.0
    options = {"opener": opener} if is_url(path) else {}
    with decoder(path, **options) as reader:
        info = reader.info
        if not is_url(path) and not is_stored(path):
            with open(path, "rb") as file:
                if reason := cut_off(file, os.path.getsize(path)):
                    raise DecodeError(path, "truncated", f"the file is cut off ({reason})")
        for time, _ in reader.frames(size=_PROBE_SIZE):
            count, last = count + 1, time
            if stop.is_set():
                raise DecodeError(path, "unreadable", "interrupted")
    if not count:
        raise DecodeError(path, "no_frames", "no frame could be decoded")
    seconds = last + 1 / info.frame_rate
    # Containers miscount by a few frames, and sound may go on without pictures.
    if info.num_frames and count < min(0.9 * info.num_frames, info.num_frames - 5):
        raise DecodeError(
            path, "truncated", f"only {count} of {info.num_frames} frames can be decoded"
        )
    if not info.num_frames and seconds < min(0.5 * info.duration, info.duration - 2):
        raise DecodeError(
            path, "truncated", f"pictures end after {seconds:.1f} of {info.duration:.1f} s"
        )
    return seconds, count, info


def _misfit(records: Iterable[VideoRecord], info: Any, frames: int) -> BadVideo | None:
    """What is wrong with labels over time, if there are any."""
    for record in records:
        if record.track is not None:
            try:
                record.track.fitted(info.duration, info.frame_rate, info.num_frames, lambda: frames)
            except DataError as error:
                return BadVideo(record.path, "labels", str(error))
    return None


def _clips_only(
    records: Iterable[VideoRecord], info: Any, frames: int, videos: VideoSet
) -> str | None:
    """What a model with a label for each frame would refuse of segments that are clips as well."""
    segments = []
    for record in records:
        if record.track is not None or (record.start is None and record.end is None):
            continue
        if len(record.labels) > 1:
            return f"several labels for the segment from {record.start or 0:g} s"
        end = math.inf if record.end is None else record.end
        segments += [Segment(record.start or 0.0, end, label) for label in record.labels]
    try:
        track = LabelTrack(ordered(segments, lambda label: videos.class_names[label]))
        track.fitted(info.duration, info.frame_rate, info.num_frames, lambda: frames)
    except DataError as error:
        return str(error)
    return None


def _digest(path: str, stop: threading.Event) -> bytes:
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        while (block := file.read(1 << 20)) and not stop.is_set():
            digest.update(block)
    return digest.digest()


def _report(
    videos: VideoSet,
    by_path: dict[str, list[VideoRecord]],
    findings: dict[str, _Finding],
    min_seconds: float | None,
) -> CheckReport:
    bad = [BadVideo(path, "missing", "annotated, but not there") for path in videos.missing]
    notes: list[str] = []
    first: dict[bytes, str] = {}
    seconds = 0.0
    for path, records in by_path.items():
        finding = findings[path]
        problem = finding.bad or _too_short(path, finding, records, min_seconds, notes)
        if problem is None and finding.digest is not None:
            twin = first.setdefault(finding.digest, path)
            if twin != path:
                labels = {label for record in by_path[twin] for label in record.labels}
                same = labels == {label for record in records for label in record.labels}
                detail = f"the same content as {twin}" + ("" if same else ", with another label")
                problem = BadVideo(path, DUPLICATE, detail)
        if problem is None:
            seconds += finding.seconds
        else:
            bad.append(problem)
    shards = shard_files(by_path)
    bad += [broken for path in shards if (broken := findings[path].bad) is not None]
    left_out = {video.path for video in bad}
    if few := [p for p in by_path if findings[p].clips_only and p not in left_out]:
        notes.append(
            "models with a label for each frame do not take the segments of "
            f"{plural(len(few), 'file')} (first: {few[0]}: {findings[few[0]].clips_only})."
        )
    num_files = len(by_path) + len(shards) + len(videos.missing)
    return CheckReport(videos.source, num_files, seconds, tuple(bad), tuple(notes))


def _too_short(
    path: str,
    finding: _Finding,
    records: Iterable[VideoRecord],
    min_seconds: float | None,
    notes: list[str],
) -> BadVideo | None:
    length = f"{finding.seconds:.2f} s, {plural(finding.frames, 'frame')}"
    if min_seconds is not None and finding.seconds < min_seconds:
        return BadVideo(path, "too_short", f"{length}; at least {min_seconds:g} s are wanted")
    if min_seconds is None and finding.frames < 2:
        return BadVideo(path, "too_short", "a single frame")
    segments = [_outside(record, finding.seconds) for record in records]
    outside = [found for found in segments if found is not None]
    if not outside:
        return None
    reason, detail = outside[0]
    if len(outside) == len(segments):
        return BadVideo(path, reason, detail)
    notes.append(f"{path}: {detail}.")
    return None


def _outside(record: VideoRecord, seconds: float) -> tuple[str, str] | None:
    """Reason and detail if a record's segment, or more than a tenth of it, is not in the file."""
    start, end = record.start or 0.0, record.end
    if start >= seconds:
        return "too_short", f"the segment from {start:g} s lies behind the end ({seconds:.2f} s)"
    if end is not None and end - seconds > (end - start) / 10:
        detail = f"the segment from {start:g} to {end:g} s goes past the end ({seconds:.2f} s)"
        return "labels", detail
    return None


def _quote(path: str) -> str:
    """A path as it stands, or as a JSON string if it would break the line or the format."""
    plain = path.isprintable() and not path.startswith(("#", '"'))
    return path if plain else json.dumps(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())
