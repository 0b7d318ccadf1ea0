"""Parts of a data set: training, validation, test."""

from __future__ import annotations

from collections.abc import Iterable

from kvideo.data.entries import Entry, split_name
from kvideo.data.formats import HMDB51_FILE, UCF101_FILE
from kvideo.data.listing import Folders, is_video, join
from kvideo.errors import UsageError

ALL = "all"


def split_files(files: Iterable[str]) -> dict[str, list[str]]:
    """Parts of a folder of UCF101's or HMDB51's split files; empty for any other folder.

    Returns:
        `"train1"`, `"val1"`, `"test1"` (the same as `"val1"`), `"train2"` …, and without a number
        those of the first split, each with its files.
    """
    parts: dict[str, list[str]] = {}
    numbers: set[int] = set()
    sides: tuple[str, ...]
    for file in files:
        if match := UCF101_FILE.fullmatch(file):
            sides = ("train",) if match["part"].lower() == "train" else ("val", "test")
        elif match := HMDB51_FILE.fullmatch(file):
            sides = ("train", "val", "test")
        else:
            continue
        numbers.add(int(match["number"]))
        for side in sides:
            parts.setdefault(f"{side}{int(match['number'])}", []).append(file)
    for side in ("train", "val", "test"):
        if numbers and (first := parts.get(f"{side}{min(numbers)}")):
            parts[side] = first
    return dict(sorted(parts.items()))


def split_folders(top: str, listing: Folders) -> dict[str, list[str]]:
    """Parts of a folder with `train` and `val` folders of class folders; empty for any other.

    A class may be called "train", too. So all folders must be parts, or another part must share a
    class folder with `train`, which holds no videos directly.
    """
    named: dict[str, list[str]] = {}
    inner: dict[str, set[str]] = {}
    others = False
    for name in listing.entries(top)[1]:
        part, path = split_name(name), join(top, name)
        if part in ("train", "val", "test"):
            files, folders = listing.entries(path)
            if part == "train" and any(is_video(join(path, file)) for file in files):
                return {}
            named.setdefault(part, []).append(path)
            inner.setdefault(part, set()).update(folders)
        elif not name.startswith("."):
            others = True
    classes = inner.pop("train", set())
    shared = any(classes & folders for folders in inner.values())
    return with_validation(named) if classes and (shared or not others) else {}


def with_validation(parts: dict[str, list[str]]) -> dict[str, list[str]]:
    """The parts in their usual order. Without a validation part, the test part serves as one."""
    if "train" in parts and "val" not in parts and "test" in parts:
        parts["val"] = parts["test"]
    order = ("train", "val", "test")
    return {
        name: parts[name] for name in (*order, *sorted(set(parts) - set(order))) if name in parts
    }


def choose_part(entries: list[Entry], split: str | None, name: str) -> list[Entry]:
    """The entries of one part; by default the training part, where there are parts.

    Raises:
        UsageError: there is no such part, or it is not clear which one is meant.
    """
    found = {entry.split for entry in entries} - {None}
    if split == ALL or (not found and split is None):
        return entries
    if not found:
        raise UsageError(f"{name} has no column `split`, so there is no part {split!r} of it.")
    wanted = split_name(split) if split else "train"
    if split is None and wanted not in found:
        if len(found) > 1:
            raise UsageError(
                f"{name} has the parts {', '.join(sorted(map(str, found)))}: name one."
            )
        return entries
    if wanted == "val" and "val" not in found:
        wanted = "test"
    if wanted not in found:
        known = ", ".join(sorted(str(part) for part in found))
        raise UsageError(f"{name} has no part {split!r}; it has {known} (or all).")
    return [entry for entry in entries if entry.split == wanted]
