"""One row of an annotation file, whatever its format."""

from __future__ import annotations

import dataclasses
import os
import re

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation"),
    "test": ("test", "testing", "holdout", "holdout_test"),
}
UCF101_VIDEO = re.compile(r"(?P<group>v_.+_g\d+)_c\d+")
_HMDB51_VIDEO = re.compile(r"(?P<group>.+)_[fluh]_[cn]m_np\d_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+")


@dataclasses.dataclass(slots=True)
class Entry:
    """One annotated video.

    Args:
        where: file and line (or number of the entry, in JSON), for messages.
        path: path relative to the root; for `by_id` an identifier.
        labels: names or numbers of classes; empty: unlabelled.
        start: seconds, or None.
        end: seconds, or None.
        group: see `VideoRecord`.
        split: `"train"`, `"val"`, `"test"`, or what else the file says.
        by_id: the video is called after the identifier, anywhere below the root.
        others: further paths at which the file may lie.
        label_text: the label as written, before it was taken for several.
        frames: a label for each frame, where the entry names a file of them.
        over_time: the entry is from a list of segments of untrimmed videos.
        has_segment: the file has a place for start and end, even if they are empty here.
        duration: of the video in seconds, where the file tells.
        fault: a sentence, where the entry has no label, or its segment is none: it ends before it
            starts, or begins before the video does.
    """

    where: str
    path: str
    labels: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    group: str | None = None
    split: str | None = None
    by_id: bool = False
    others: tuple[str, ...] = ()
    label_text: str = ""
    frames: tuple[str, ...] = ()
    over_time: bool = False
    has_segment: bool = False
    duration: float | None = None
    fault: str = ""


def split_name(name: str) -> str:
    """`"train"`, `"val"` or `"test"` for the usual words; any other word as it is."""
    low = name.strip().lower()
    for canonical, words in _SPLIT_NAMES.items():
        if low in words:
            return canonical
    return name.strip()


def group_of(file: str) -> str | None:
    """The group that a file's name tells: `v_Class_gNN` in UCF101, the film in HMDB51."""
    stem = os.path.splitext(file)[0]
    match = UCF101_VIDEO.fullmatch(stem) or _HMDB51_VIDEO.fullmatch(stem)
    return match["group"] if match else None


def unquote(text: str) -> str:
    """Without the quotes around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def short(text: str, width: int = 60) -> str:
    """The beginning of a line, for a message."""
    text = text.strip()
    return text if len(text) <= width else text[: width - 1] + "…"
