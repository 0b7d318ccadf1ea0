"""DATA: class folders and annotation files of many forms, read into a `VideoSet`.

The forms are described, with examples, in docs/data.md. What the text of a file says is read by
`kvideo.data.formats`; which files are there, by `kvideo.data.listing`; here both meet.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import cast

from kvideo.data.class_folders import LIST_ENDINGS, read_class_folders
from kvideo.data.class_names import (
    ClassNames,
    as_integer,
    class_file_beside,
    given_class_names,
    infer_class_names,
    parse_class_names,
)
from kvideo.data.demo_words import DEMOS, PARTS, demo_words, read_demo
from kvideo.data.entries import Entry, split_name
from kvideo.data.formats import HMDB51_FILE, Opener, parse, read_text
from kvideo.data.listing import (
    Folders,
    ListDir,
    Locator,
    absolute,
    ending,
    is_url,
    is_video,
    join,
    looks_like_video,
)
from kvideo.data.matching import find_file, find_whole_file, merge, to_indices, ucf101_folders
from kvideo.data.over_time import (
    build_records,
    clips_of,
    label_file,
    no_labels_over_time,
    nothing_as_background,
    read_label_files,
    require_labels_over_time,
    without_faults,
)
from kvideo.data.parts import ALL, choose_part, split_files, split_folders, with_validation
from kvideo.data.records import VideoRecord, VideoSet, mirrored_classes
from kvideo.data.shards.layout import ENDING, INDEX, ShardIndex, read_index
from kvideo.data.splits import split_validation
from kvideo.data.tracks import BACKGROUND
from kvideo.errors import DataError, UsageError
from kvideo.text import enumerate_words, plural

__all__ = ["VideoRecord", "VideoSet", "find_splits", "read_data", "split_validation"]


def read_data(
    data: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    require_labels: bool = True,
    must_exist: bool = True,
    multi_label: bool | None = None,
    per_frame: bool | None = False,
    listdir: ListDir | None = None,
    opener: Opener | None = None,
) -> VideoSet:
    """Read videos and labels.

    Args:
        data: a folder of class folders (also one with `train` and `val` folders of such), an
            annotation file, a folder of UCF101's or HMDB51's split files, a folder of shards, or
            `"demo"`, `"demo-frames"` (labels over time whatever `per_frame` says), `"demo-order"`
            or `"demo-dots"`.
        root: the folder that paths in an annotation file are relative to; by default the
            file's own.
        split: which part of data that has parts, see `find_splits`; `"all"` takes everything.
            By default the training part where there is one.
        class_names: the classes in order, or a file that lists them. By default a file beside the
            annotation (`classes.txt`, `classInd.txt` …) or else the labels themselves.
        require_labels: False: videos without labels are allowed.
        must_exist: False: annotated files are not looked for.
        multi_label: whether a video may have several labels; by default, whether one has.
        per_frame: one record for each video with its labels over time (`VideoRecord.track`), from
            rows of segments, ActivityNet's JSON, or files with a label for each frame. None: where
            the annotations cannot be meant otherwise.
        listdir: lists a URL-like folder: names, those of folders with a closing slash.
        opener: opens a URL-like annotation file for reading bytes.

    Returns:
        The videos, files that are there only; `missing` and `notes` tell what was left out.

    Raises:
        UsageError: there is no such part.
        DataError: there is nothing to read, or something is wrong with it; the sentence names the
            file and line, and a remedy.
    """
    data = os.fspath(data)
    if data in DEMOS:
        videos = read_demo(data, split, class_names)
        if per_frame and not videos.per_frame:
            raise DataError(no_labels_over_time(data))
        return videos
    reader = _Reader(data, root, listdir, opener)
    reader.set_class_names(class_names)
    reader.require_labels, reader.must_exist = require_labels, must_exist
    reader.per_frame = per_frame
    videos = reader.read(split)
    if multi_label is not None:
        videos = dataclasses.replace(videos, multi_label=multi_label)
    if mirrored_classes(videos.class_names) is None:
        return videos
    return dataclasses.replace(videos, flip_safe=False)


def find_splits(
    data: str | os.PathLike[str],
    *,
    listdir: ListDir | None = None,
    opener: Opener | None = None,
) -> tuple[str, ...]:
    """Names of the parts that `read_data` takes as `split` for this DATA.

    Args:
        data: see `read_data`.
        listdir: see `read_data`.
        opener: see `read_data`.

    Returns:
        Empty if DATA has no parts. Otherwise with `"train"` and mostly with `"val"` (which names
        the test part where there is no other). UCF101's and HMDB51's folders add `"train2"`,
        `"val2"` …, for their further splits.

    Raises:
        DataError: as `read_data` does.
    """
    data = os.fspath(data)
    if data in DEMOS:
        return PARTS
    return tuple(_Reader(data, None, listdir, opener).parts())


class _Reader:
    """One DATA: finds out what it is, and reads it."""

    require_labels = True
    must_exist = True
    per_frame: bool | None = False

    def __init__(
        self,
        data: str,
        root: str | os.PathLike[str] | None,
        listdir: ListDir | None,
        opener: Opener | None,
    ) -> None:
        self.data, self.path = data, absolute(data)
        self.folders, self.opener = Folders(listdir), opener
        self.is_folder = self._check_data()
        self.root = absolute(root or (self.path if self.is_folder else os.path.dirname(self.path)))
        if root is not None and not is_url(self.root) and not os.path.isdir(self.root):
            raise DataError(f"there is no folder {os.fspath(root)}, which is to hold the videos.")
        self.names: ClassNames | None = None  # those asked for
        self._names_have_numbers = False

    def set_class_names(self, names: Sequence[str] | str | os.PathLike[str] | None) -> None:
        """Set the classes, given in order or by a file that lists them."""
        if isinstance(names, (str, os.PathLike)):
            self.names = parse_class_names(self._text(absolute(names)), os.fspath(names))
            self._names_have_numbers = True
        elif names is not None:
            self.names = given_class_names(names)

    def _check_data(self) -> bool:
        """Whether DATA is a folder; raises if it is neither that nor a possible annotation."""
        if is_url(self.path):
            return ending(self.path) not in LIST_ENDINGS
        if os.path.isdir(self.path):
            return True
        if not os.path.exists(self.path):
            raise DataError(
                f"there is no file or folder {self.data}. DATA is a folder with one folder of "
                f"videos for each class, an annotation file, or {demo_words()}."
            )
        if is_video(self.path):
            raise DataError(
                f"{self.data} is a video, but DATA is a folder with one folder of videos for each "
                "class, or an annotation file. (`kvideo predict` takes single videos.)"
            )
        return False

    def _text(self, path: str) -> str:
        return read_text(path, self.opener)

    # ------------------------------------------------------------------------ parts

    def parts(self) -> dict[str, list[str]]:
        """Parts by name: folders of class folders, or annotation files; empty: no parts."""
        if not self.is_folder:
            # A single file tells its parts by a column.
            entries = parse(self._text(self.path), self.data, allow_faults=True)
            found = sorted({entry.split for entry in entries if entry.split is not None})
            return with_validation({name: [self.path] for name in found})
        if (index := self._shards()) is not None:
            names = {name: [name] for name in index.parts}
            return with_validation(names) if len(names) > 1 else {}
        files, _ = self.folders.entries(self.path)
        if lists := split_files(files):
            return {
                name: [join(self.path, file) for file in members] for name, members in lists.items()
            }
        return split_folders(self.path, self.folders)

    def read(self, split: str | None) -> VideoSet:
        """Read the part asked for."""
        if not self.is_folder:
            return self._read_files([self.path], split)
        parts = self.parts()
        index = self._shards()
        if not parts:
            if split not in (None, ALL):
                raise UsageError(f"{self.data} has no parts, so there is no part {split!r} of it.")
            if index is not None:
                return self._read_shards(index, list(index.parts))
            return self._read_class_folders([self.path])
        name = split_name(split or "train")
        if name not in (*parts, ALL):
            raise UsageError(
                f"{self.data} has no part {split!r}; it has {', '.join(parts)} (or all)."
            )
        places = parts.values() if name == ALL else [parts[name]]
        chosen = list(dict.fromkeys(path for paths in places for path in paths))
        if index is not None:
            return self._read_shards(index, chosen)
        if split_files([os.path.basename(path) for path in chosen]):
            # In HMDB51's files a flag tells the part, in UCF101's the file itself does.
            by_flag = HMDB51_FILE.fullmatch(os.path.basename(chosen[0])) and name != ALL
            side = "train" if name.startswith("train") else "test"
            return self._read_files(chosen, side if by_flag else ALL)
        return self._read_class_folders(chosen)

    def _shards(self) -> ShardIndex | None:
        """The index, if the folder is one of shards."""
        files, folders = self.folders.entries(self.path)
        if not any(file.endswith(ENDING) for file in files):
            return None
        if INDEX not in files and not folders:
            raise DataError(
                f"{self.data} holds shards, but no {INDEX}: not all of them are made yet. The same "
                "`kvideo shard` command goes on."
            )
        return read_index(self.path, self.opener) if INDEX in files else None

    def _read_shards(self, index: ShardIndex, parts: list[str]) -> VideoSet:
        videos = index.videos(parts, self.names, self.data)
        if self.per_frame and not videos.per_frame:
            raise DataError(no_labels_over_time(self.data))
        return videos

    def _read_class_folders(self, tops: list[str]) -> VideoSet:
        if self.per_frame:
            raise DataError(no_labels_over_time(self.data))
        return read_class_folders(tops, self.folders, self.names, self.data)

    # ------------------------------------------------------------- annotation files

    def _read_files(self, files: list[str], split: str | None) -> VideoSet:
        entries: list[Entry] = []
        notes: list[str] = []
        for file in files:
            name = self.data if file == self.path else file
            read = parse(self._text(file), name, allow_faults=True)
            if any(entry.over_time for entry in read):
                read, found = without_faults(choose_part(read, split, name))
                notes += found
            else:
                if wrong := next((entry.fault for entry in read if entry.fault), None):
                    raise DataError(wrong)
                read = choose_part(read, split, name)
            entries += read
        if self.per_frame is None:
            self.per_frame = any(entry.over_time or label_file(entry) for entry in entries)
        if self.per_frame:
            return self._read_over_time(files[0], entries, notes)
        if any(entry.over_time for entry in entries):
            entries = self._clips_over_time(entries, notes)
        elif self.require_labels:
            expected = None if self.names is None else self.names.names
            entries, found = nothing_as_background(entries, expected)
            notes += found
        for entry in entries if self.require_labels else ():
            if not entry.labels:
                raise DataError(
                    f"{entry.where}: {entry.path} has no label; a column `label` is to name it."
                )
        if not entries:
            raise DataError(f"{self.data} has a header, but lists no videos.")
        names = self._class_names(files[0], entries, notes)
        labels = [to_indices(entry, names) for entry in entries]
        paths = self._locate(entries)
        missing = self._missing(entries, paths, notes)
        records = merge(zip(entries, paths, labels, strict=True))
        if several := sum(len(record.labels) > 1 for record in records):
            notes.append(
                f"{several} of {plural(len(records), 'video')} with several labels, so this is a "
                "multi-label set."
            )
        return VideoSet(
            tuple(records),
            names.names,
            multi_label=several > 0,
            source=self.data,
            missing=missing,
            notes=tuple(notes),
        )

    def _clips_over_time(self, entries: list[Entry], notes: list[str]) -> list[Entry]:
        """Segments as clips, and what lies between them as background, if there is such a class."""
        labels = {label.lower() for entry in entries for label in entry.labels}
        expected = None if self.names is None else {name.lower() for name in self.names.names}
        wanted = BACKGROUND not in labels and (expected is None or BACKGROUND in expected)
        clips = clips_of(entries, wanted)
        if len(clips) > sum(bool(entry.labels) for entry in entries):
            notes.append(
                f"{self.data} has segments of untrimmed videos, which are clips of their own; "
                f'between them are clips of the class "{BACKGROUND}".'
            )
        return clips

    def _read_over_time(self, file: str, entries: list[Entry], notes: list[str]) -> VideoSet:
        """One record for each video, with its labels over time."""
        read_label_files(entries, self._label_file)
        require_labels_over_time(entries, self.data)
        if not self.must_exist:
            paths: list[str | None] = [join(self.root, entry.path) for entry in entries]
        else:
            locator = Locator(self.root, self.folders)
            paths = [find_whole_file(entry, locator) for entry in entries]
        names = self._class_names(file, entries, notes)
        missing = self._missing(entries, paths, notes)
        records, names, more = build_records(
            list(zip(entries, paths, strict=True)), names, may_add=self.names is None
        )
        return VideoSet(
            tuple(records), names.names, source=self.data, missing=missing, notes=(*notes, *more)
        )

    def _label_file(self, name: str) -> str:
        """The text of a file of labels, which lies beside the annotation or below the root."""
        beside = join(os.path.dirname(self.path), name)
        return self._text(beside if self.folders.has(beside) else join(self.root, name))

    def _missing(
        self, entries: list[Entry], paths: list[str | None], notes: list[str]
    ) -> tuple[str, ...]:
        """The videos that are not there, each once; there is a note if there are some."""
        missing = [e.path for e, path in zip(entries, paths, strict=True) if path is None]
        total = len(entries)
        if self.per_frame or any(e.over_time for e in entries):  # many are of one video
            missing, total = list(dict.fromkeys(missing)), len({e.path for e in entries})
        if missing and len(missing) == total:
            raise DataError(
                f"{self.data}: none of its {plural(len(missing), 'video')} is there (first: "
                f"{join(self.root, missing[0])}). Say with --root which folder holds the videos."
            )
        if missing:
            notes.append(
                f"{len(missing)} of {plural(total, 'video')} in {self.data}: no such file "
                f"below {self.root}, left out (first: {missing[0]})."
            )
        return tuple(missing)

    def _class_names(self, file: str, entries: list[Entry], notes: list[str]) -> ClassNames:
        """The names asked for, those of a file beside the annotation, or the labels themselves."""
        if self.names is not None and self._names_have_numbers:
            return self.names
        names = self._names_beside(file, entries) or ucf101_folders(entries)
        if self.names is not None:
            return self._in_expected_order(names, entries, notes)
        if names is None:
            labels = (label for entry in entries for label in entry.labels)
            return infer_class_names(labels, self.data)
        in_use = {names.index(label) for entry in entries for label in entry.labels} - {None}
        if len(in_use) < len(names.names):
            notes.append(f"{len(names.names)} classes from {names.source}, {len(in_use)} in use.")
        return names

    def _in_expected_order(
        self, names: ClassNames | None, entries: list[Entry], notes: list[str]
    ) -> ClassNames:
        """The classes asked for. Numbers go by the list's own names; without these, by position."""
        expected = cast(ClassNames, self.names)
        if names is not None and not set(names.names).isdisjoint(expected.names):
            return names.in_order_of(expected)
        if all(as_integer(name) is not None for name in expected.names):
            return expected
        if names is not None:
            raise DataError(
                f"{names.source} names the classes {enumerate_words(names.names)}, none of which "
                f"is among those expected ({enumerate_words(expected.names)})."
            )
        if any(as_integer(label) is not None for entry in entries for label in entry.labels):
            notes.append(
                f"the class numbers in {self.data} are taken as places in the expected classes "
                f"({enumerate_words(expected.names)})."
            )
        return expected

    def _names_beside(self, file: str, entries: list[Entry]) -> ClassNames | None:
        """Class names from a file beside the annotation that knows at least one of the labels."""
        folder = os.path.dirname(file)
        used = {label for entry in entries for label in (*entry.labels, entry.label_text)}
        for beside in class_file_beside(self._names_in(folder), file):
            text = self._text(join(folder, beside))
            if any(looks_like_video(word) for word in text.split()):
                continue  # another list of videos
            names = parse_class_names(text, join(folder, beside))
            if any(names.index(label) is not None for label in used):
                return names
        return None

    def _names_in(self, folder: str) -> list[str]:
        try:
            return self.folders.entries(folder)[0]
        except DataError:  # a remote folder that nobody can list here
            return []

    def _locate(self, entries: list[Entry]) -> list[str | None]:
        """The file of each entry; None: it is not there."""
        if not self.must_exist:
            return [join(self.root, entry.path) for entry in entries]
        locator = Locator(self.root, self.folders)
        return [
            find_whole_file(entry, locator) if entry.over_time else find_file(entry, locator)
            for entry in entries
        ]
