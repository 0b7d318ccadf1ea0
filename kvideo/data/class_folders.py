"""DATA as a folder with one folder of videos for each class."""

from __future__ import annotations

import os

from kvideo.data.class_names import ClassNames
from kvideo.data.entries import group_of
from kvideo.data.listing import PICTURE_ENDINGS, Folders, ending, is_video, join
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.errors import DataError
from kvideo.text import plural

LIST_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".lst", ".list")  # of annotation files


def read_class_folders(
    tops: list[str], listing: Folders, expected: ClassNames | None, source: str
) -> VideoSet:
    """The videos below class folders, each with its folder's class.

    Args:
        tops: the folders of class folders.
        listing: lists folders.
        expected: the classes asked for; None: those that the folders are named after.
        source: what the user typed.

    Raises:
        DataError: there are no videos, a class folder without any, or one of no known class.
    """
    found: dict[str, list[str]] = {}
    notes: list[str] = []
    for top in tops:
        files, folders = listing.entries(top)
        stray = [join(top, file) for file in files if is_video(join(top, file))]
        for name in folders:
            if not name.startswith(".") and name != "__MACOSX":
                found.setdefault(name, []).extend(listing.videos(join(top, name)))
        if not any(found.values()):
            raise DataError(_nothing_found(top, files, stray, listing))
        if stray:
            notes.append(
                f"{plural(len(stray), 'video')} directly in {top}, outside any class folder, "
                f"left out (first: {os.path.basename(stray[0])})."
            )
    names = expected or ClassNames(tuple(sorted(found)), source=source)
    records = []
    for name in sorted(found):
        label = names.index(name)
        if label is None:
            raise DataError(f"{source}, folder {name}: {names.unknown(name)}")
        if not found[name]:
            if expected is None:
                raise DataError(
                    f"the class folder {join(tops[0], name)} holds no videos. Put some into "
                    "it, or remove it."
                )
            notes.append(f"class folder {name} holds no videos.")
        for path in found[name]:
            group = group_of(os.path.basename(path))
            records.append(VideoRecord(path, (label,), group=group))
    return VideoSet(tuple(records), names.names, source=source, notes=tuple(notes))


def _nothing_found(top: str, files: list[str], stray: list[str], listing: Folders) -> str:
    want = "DATA is a folder with one folder of videos for each class"
    if stray:
        if lists := [file for file in files if file.lower().endswith(LIST_ENDINGS)]:
            return (
                f"{top} holds {plural(len(stray), 'video')} and no class folders. Give the "
                f"annotation file itself as DATA: {join(top, lists[0])}."
            )
        return (
            f"{top} holds {plural(len(stray), 'video')} without labels: {want}. Move the "
            "videos into folders named after their classes, or write a list `PATH LABEL`."
        )
    if not files and not listing.entries(top)[1]:
        return f"{top} is empty. {want}."
    inside = (name for _, names in listing.walk(top) for name in names)
    if any(ending(name) in PICTURE_ENDINGS for name in inside):
        return f"{top} holds pictures, but no videos. {want}; frames as pictures are not read."
    return f"{top} holds no videos. {want}."
