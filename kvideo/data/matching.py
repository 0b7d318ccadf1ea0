"""Entries of annotation files become records: labels as indices, files that are there."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kvideo.data.class_names import ClassNames, as_integer, numbered_classes
from kvideo.data.entries import Entry
from kvideo.data.listing import Locator
from kvideo.data.records import VideoRecord
from kvideo.errors import DataError


def to_indices(entry: Entry, names: ClassNames) -> tuple[int, ...]:
    """Class indices of an entry's labels, each once.

    Raises:
        DataError: there is no such class; the sentence names file and line.
    """
    if entry.label_text and (whole := names.index(entry.label_text)) is not None:
        return (whole,)
    indices = []
    for label in entry.labels:
        index = names.index(label)
        if index is None:
            raise DataError(f"{entry.where}: {names.unknown(label)}")
        indices.append(index)
    return tuple(dict.fromkeys(indices))


def find_file(entry: Entry, locator: Locator) -> str | None:
    """The file of an entry. A clip cut out already is taken whole."""
    if entry.by_id:
        for stem in _cut_names(entry):
            if path := locator.find_stem(stem):
                entry.start = entry.end = None
                return path
        return locator.find_stem(entry.path)
    for name in (entry.path, *entry.others):
        if path := locator.find(name):
            return path
    for name in (entry.path, *entry.others):
        if path := locator.find_ending(name):
            return path
    return None


def find_whole_file(entry: Entry, locator: Locator) -> str | None:
    """The file of an entry of labels over time, which are those of the whole video."""
    if not entry.by_id:
        return find_file(entry, locator)
    return locator.find_stem(entry.path) or locator.find_stem(f"v_{entry.path}")


def _cut_names(entry: Entry) -> tuple[str, ...]:
    """Names of the clip that the usual download tools of Kinetics cut out of the whole video."""
    if entry.start is None or entry.end is None:
        return ()
    start, end = int(entry.start), int(entry.end)
    return (f"{entry.path}_{start:06d}_{end:06d}", f"{entry.path}_{start}_{end}")


def merge(found: Iterable[tuple[Entry, str | None, tuple[int, ...]]]) -> list[VideoRecord]:
    """Records; rows of the same file and segment become one with all their labels."""
    records: dict[tuple[str, float | None, float | None], VideoRecord] = {}
    for entry, path, labels in found:
        if path is None:
            continue
        key = (path, entry.start, entry.end)
        if (first := records.get(key)) is not None:
            labels = tuple(dict.fromkeys((*first.labels, *labels)))
        group = first.group if first is not None else entry.group
        records[key] = VideoRecord(path, labels, entry.start, entry.end, group)
    return list(records.values())


def ucf101_folders(entries: list[Entry]) -> ClassNames | None:
    """UCF101's numbers stand for the class folders before the files; None for other lists."""
    folders: dict[str, str] = {}
    for entry in entries:
        folder = os.path.basename(os.path.dirname(entry.path))
        if not entry.others or len(entry.labels) != 1 or not folder:
            return None
        label = entry.labels[0]
        if label != folder and (
            as_integer(label) is None or folders.setdefault(label, folder) != folder
        ):
            return None
    if not folders:
        return None
    pairs = sorted((int(label), folder) for label, folder in folders.items())
    return numbered_classes(pairs, "the class folders")
