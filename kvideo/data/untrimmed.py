"""Untrimmed videos and the segments in them, which may overlap: what localization learns from.

Annotations are ActivityNet's JSON, THUMOS14's text files and CSV, or rows `video,start,end,label`;
their text is read by `kvideo.data.formats`. What a segment gets wrong costs that segment, not the
data set: it is left out, and a note says so.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvideo.data.class_names import (
    ClassNames,
    as_integer,
    given_class_names,
    infer_class_names,
    parse_class_names,
)
from kvideo.data.demo import demo_folder
from kvideo.data.entries import Entry
from kvideo.data.formats import THUMOS14_FILE, Opener, is_thumos14, parse, read_text
from kvideo.data.listing import (
    Folders,
    ListDir,
    Locator,
    absolute,
    is_url,
    is_video,
    join,
    looks_like_video,
)
from kvideo.data.over_time import without_faults
from kvideo.data.parts import ALL, choose_part
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.tracks import SLACK, Segment
from kvideo.errors import DataError, UsageError
from kvideo.text import enumerate_words, plural

_FILES = ("annotations.json", "annotations.csv", "segments.json", "segments.csv")
_TEST_PARTS = ("test", "val")
_NAMED = 3  # examples in a note


@dataclasses.dataclass(frozen=True)
class UntrimmedVideo:
    """A video and what happens in it.

    Args:
        name: as the annotations call it, without an ending.
        path: the file; None: it has not been looked for.
        segments: in order; they may overlap. Labels are class indices.
        duration: seconds, where the annotations tell.
    """

    name: str
    path: str | None
    segments: tuple[Segment, ...] = ()
    duration: float | None = None


@dataclasses.dataclass(frozen=True)
class UntrimmedSet:
    """Untrimmed videos with their segments.

    Args:
        videos: in the order of the annotations; also those in which nothing happens.
        class_names: names of the classes; a label is an index into them.
        source: what was read, for messages.
        missing: names of annotated videos whose file is not there.
        notes: sentences about what was found and left out.
    """

    videos: tuple[UntrimmedVideo, ...]
    class_names: tuple[str, ...]
    source: str = ""
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many videos there are."""
        return len(self.videos)

    @property
    def num_segments(self) -> int:
        """How many segments they have together."""
        return sum(len(video.segments) for video in self.videos)

    def records(self) -> VideoSet:
        """The videos as whole ones without labels, each file once."""
        paths = dict.fromkeys(video.path for video in self.videos if video.path is not None)
        return VideoSet(tuple(VideoRecord(path) for path in paths), (), source=self.source)


def read_untrimmed(
    data: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    prefer: Sequence[str] = ("train",),
    class_names: Sequence[str] | None = None,
    must_exist: bool = True,
    keep_faults: bool = False,
    keep_missing: bool = False,
    listdir: ListDir | None = None,
    opener: Opener | None = None,
) -> UntrimmedSet:
    """Reads the segments of untrimmed videos.

    Args:
        data: an annotation file, a folder with `annotations.json` (or `.csv`, or `segments.csv`) or
            with THUMOS14's `CLASS_val.txt` and `CLASS_test.txt`, or `"demo"`.
        root: the folder that holds the videos, at any depth; by default the annotations' own.
        split: which part; `"all"` takes everything.
        prefer: without `split`, the first of these parts that there is; all of data without parts.
        class_names: the classes in order. By default the labels themselves, sorted; where a file
            calls them by numbers, the names of `detclasslist.txt` or `classes.txt` beside it.
        must_exist: False: the videos' files are not looked for.
        keep_faults: whether segments that end before they begin, or where, stay: nothing can find
            them, but official evaluations count them.
        keep_missing: whether videos whose file is not there stay, without a path.
        listdir: see `read_data`.
        opener: see `read_data`.

    Raises:
        UsageError: there is no such part.
        DataError: there is nothing to read, or no segment in it; an unknown class.
    """
    name = os.fspath(data)
    files = _annotation_files(name, listdir)
    entries: list[Entry] = []
    for file in files:
        entries += parse(read_text(file, opener), file if name == "demo" else _shown(file, name),
                         allow_faults=True)  # fmt: skip
    entries = _choose(entries, split, prefer, name)
    folder = absolute(root) if root is not None else os.path.dirname(absolute(files[0]))
    if root is not None and not is_url(folder) and not os.path.isdir(folder):
        raise DataError(f"there is no folder {os.fspath(root)}, which is to hold the videos.")
    entries, notes = without_faults(entries, keep_faults)
    if not any(entry.labels for entry in entries):
        raise DataError(
            notes[0]
            if notes
            else f"{name} has no segment with a label. List segments as CSV, "
            "`video,start,end,label`, or as ActivityNet's JSON."
        )
    _require_times(entries, name)
    names = _class_names(entries, class_names, files[0], opener)
    paths = _find(entries, folder, Folders(listdir)) if must_exist else {}
    videos, missing = [], []
    for video, rows in _by_video(entries, paths).items():
        path = paths.get(rows[0].path)
        if must_exist and path is None:
            missing.append(video)
            if not keep_missing:
                continue
        segments = (
            Segment(row.start or 0.0, _end(row), _index(row, label, names))
            for row in rows
            for label in row.labels
        )
        ordered = tuple(sorted(segments, key=lambda s: (s.start, s.end, s.label)))
        durations = [row.duration for row in rows if row.duration is not None]
        videos.append(UntrimmedVideo(video, path, ordered, durations[0] if durations else None))
    if must_exist and not any(video.path for video in videos):
        raise DataError(
            f"{name}: none of its {plural(len(missing), 'video')} is there (first: {missing[0]}, "
            f"below {folder}). Say with --root which folder holds the videos."
        )
    if missing:
        total = len(videos) + (0 if keep_missing else len(missing))
        what = "counted as missed" if keep_missing else "left out"
        notes.append(
            f"{len(missing)} of {plural(total, 'video')} in {name}: no such file below {folder}, "
            f"{what} (first: {missing[0]})."
        )
    if empty := sum(not video.segments for video in videos):
        notes.append(f"{plural(empty, 'video')} without a segment: all of it is background.")
    return UntrimmedSet(tuple(videos), names.names, name, tuple(missing), tuple(notes))


def has_segments(
    data: str, *, listdir: ListDir | None = None, opener: Opener | None = None
) -> bool:
    """Whether DATA is a list of segments of untrimmed videos, or a folder with one."""
    path = absolute(data)
    if data == "demo" or not (is_url(path) or os.path.exists(path)) or is_video(path):
        return False
    try:
        files = _annotation_files(data, listdir)
        rows = [row for f in files for row in parse(read_text(f, opener), f, allow_faults=True)]
    except DataError:
        return False
    return any(row.over_time or row.has_segment for row in rows)


def fit_segments(
    video: UntrimmedVideo, duration: float, slack: float = SLACK
) -> tuple[tuple[Segment, ...], list[str]]:
    """The segments as far as they lie in a video of that duration, and what was changed.

    Args:
        video: with its segments.
        duration: seconds.
        slack: seconds that a segment may go further than the end without being told.

    Returns:
        Segments, cut at the end; and a phrase for each that was cut, or lies outside.
    """
    kept, phrases = [], []
    for segment in video.segments:
        what = f"{segment.start:g} to {segment.end:g} s of {video.name}, which has {duration:.2f} s"
        if segment.start >= duration:
            phrases.append(f"{what} (left out)")
            continue
        if segment.end > duration + slack and segment.end != float("inf"):
            phrases.append(f"{what} (cut)")
        kept.append(dataclasses.replace(segment, end=min(segment.end, duration)))
    return tuple(kept), phrases


def note_of(phrases: Sequence[str], one: str, several: str) -> str:
    """One sentence of many phrases, with the first few as examples."""
    shown = "; ".join(phrases[:_NAMED])
    rest = len(phrases) - _NAMED
    count = f"{len(phrases):,} {one if len(phrases) == 1 else several}"
    return f"{count}: {shown}{f'; and {rest:,} more' if rest > 0 else ''}."


def video_name(path: str) -> str:
    """What a video is called in annotations and results: its file's name without the ending."""
    base = os.path.basename(path.replace("\\", "/"))
    return os.path.splitext(base)[0] if looks_like_video(base) else base


def _annotation_files(data: str, listdir: ListDir | None) -> list[str]:
    if data == "demo":
        return [str(demo_folder() / "untrimmed" / "annotations.json")]
    path = absolute(data)
    if is_url(path) or os.path.isfile(path):
        return [path]
    if not os.path.exists(path):
        raise DataError(
            f"there is no file or folder {data}. DATA is an annotation file with segments, a "
            'folder that holds one, or "demo".'
        )
    files = Folders(listdir).entries(path)[0]
    for known in _FILES:
        if known in files:
            return [join(path, known)]
    parts = [file for file in files if THUMOS14_FILE.fullmatch(file)]
    if parts and is_thumos14(read_text(join(path, parts[0]))):
        return [join(path, file) for file in parts]
    raise DataError(f"{data} holds no annotations: neither {', '.join(_FILES)} nor THUMOS14's.")


def _shown(file: str, data: str) -> str:
    """The file as the user would write it."""
    return data if absolute(data) == file else join(data, Path(file).name)


def _choose(
    entries: list[Entry], split: str | None, prefer: Sequence[str], name: str
) -> list[Entry]:
    found = {entry.split for entry in entries} - {None}
    if split is None:
        if found and found <= set(_TEST_PARTS) and prefer == ("train",) and len(found) > 1:
            prefer = ("val",)  # THUMOS14 is trained on its validation part
        split = next((part for part in prefer if part in found), ALL)
        if found and split == ALL and len(found) > 1:
            raise UsageError(
                f"{name} has the parts {', '.join(sorted(map(str, found)))}: name one."
            )
    return choose_part(entries, split, name)


def _require_times(entries: list[Entry], name: str) -> None:
    for entry in entries:
        if entry.labels and not (entry.has_segment or entry.over_time):
            raise DataError(
                f"{entry.where}: there is no segment; {name} needs a first line that names the "
                "columns, such as `video,start,end,label`."
            )


def _class_names(
    entries: list[Entry], given: Sequence[str] | None, file: str, opener: Opener | None
) -> ClassNames:
    if given is not None:
        return given_class_names(given, "the classes of the model")
    labels = [label for entry in entries for label in entry.labels]
    if all(as_integer(label) is not None for label in labels):
        for beside in ("detclasslist.txt", "classes.txt"):
            path = join(os.path.dirname(file), beside)
            if not is_url(path) and os.path.isfile(path):
                return parse_class_names(read_text(path, opener), path)
    return infer_class_names(labels, file)


def _index(entry: Entry, label: str, names: ClassNames) -> int:
    index = names.index(label)
    if index is None:
        raise DataError(f"{entry.where}: {names.unknown(label)}")
    return index


def _end(entry: Entry) -> float:
    return float("inf") if entry.end is None else entry.end


def _by_video(entries: list[Entry], paths: Mapping[str, str | None]) -> dict[str, list[Entry]]:
    """Entries by the names of their videos; names of two files that are the same grow longer."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(paths.get(entry.path) or _stem(entry.path), []).append(entry)
    names: dict[str, str] = {}
    for short in (video_name, _stem, lambda path: path):
        wanted = {key: short(rows[0].path) for key, rows in groups.items() if key not in names}
        counts = Counter([*wanted.values(), *names.values()])
        names |= {key: name for key, name in wanted.items() if counts[name] == 1}
    return {names.get(key, key): rows for key, rows in groups.items()}


def _stem(path: str) -> str:
    """The path without the ending of a video."""
    return os.path.splitext(path)[0] if looks_like_video(path) else path


def _find(entries: list[Entry], root: str, folders: Folders) -> dict[str, str | None]:
    """The file of each path of the entries."""
    locator = Locator(root, folders)
    found: dict[str, str | None] = {}
    for entry in entries:
        if entry.path not in found:
            found[entry.path] = find_video(entry.path, locator, entry.where)
    return found


def find_video(name: str, locator: Locator, where: str) -> str | None:
    """The file of a path, with or without an ending, or else of that name at any depth.

    Raises:
        DataError: several files have that name.
    """
    if path := locator.find(name) or locator.find_ending(name):
        return path
    stem = video_name(name)
    several = locator.find_stems(stem) or locator.find_stems(f"v_{stem}")
    if len(several) > 1:
        raise DataError(
            f"{where}: several files are called {stem}: {enumerate_words(several, 3)}. Name one by "
            "its path."
        )
    return several[0] if several else None
