"""Videos with labels: the records that every part of kvideo passes on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from kvideo.data.tracks import LabelTrack
from kvideo.errors import DataError
from kvideo.text import plural


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or one segment of a video, with its labels.

    Args:
        path: absolute path, or a URL-like one (`gs://…`).
        labels: class indices: one, several (multi-label), or none (unlabelled).
        start: seconds from the video's beginning; None: from the beginning.
        end: seconds from the video's beginning; None: to the end.
        group: videos of one group are never split over training and validation.
        track: classes over time, where the data set has a label for each frame; `labels` are then
            the classes that occur. None: the labels are those of the whole record.
    """

    path: str
    labels: tuple[int, ...] = ()
    start: float | None = None
    end: float | None = None
    group: str | None = None
    track: LabelTrack | None = None

    def identity(self) -> tuple:
        """What makes it this record, but not where its file lies."""
        name = os.path.basename(self.path)
        facts = (name, self.labels, self.start, self.end)
        return facts if self.track is None else (*facts, self.track)


@dataclasses.dataclass(frozen=True)
class VideoSet:
    """Videos with labels, in a fixed order.

    Args:
        records: the videos.
        class_names: names of the classes; a label is an index into them.
        multi_label: whether a video may have several labels.
        source: what the user typed.
        flip_safe: False where a mirrored video may belong to another class.
        missing: paths (or identifiers) that are annotated, but are not there.
        notes: sentences for the user about what was found and what was left out.
    """

    records: tuple[VideoRecord, ...]
    class_names: tuple[str, ...]
    multi_label: bool = False
    source: str = ""
    flip_safe: bool = True
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @property
    def per_frame(self) -> bool:
        """Whether the videos have a label for each frame rather than one for the whole."""
        return bool(self.records) and all(record.track is not None for record in self.records)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, each once, in the order in which they first appear."""
        return tuple(dict.fromkeys(record.path for record in self.records))

    def labels_array(self) -> np.ndarray:
        """Labels of all records.

        Returns:
            int64 (N,) of class indices; for a multi-label set uint8 (N, classes), 1 where a record
            has the label.

        Raises:
            DataError: a record has no label, or several in a set that is not multi-label.
        """
        if self.multi_label:
            hot = np.zeros((len(self), len(self.class_names)), np.uint8)
            for row, record in zip(hot, self.records, strict=True):
                row[list(record.labels)] = 1
            return hot
        for record in self.records:
            if len(record.labels) != 1:
                count = len(record.labels) or "no"
                raise DataError(f"{record.path} has {count} labels in {self.source}; it needs one.")
        return np.array([record.labels[0] for record in self.records], np.int64)

    def class_counts(self) -> np.ndarray:
        """Records of each class, int64 (classes,)."""
        counts = Counter(label for record in self.records for label in record.labels)
        return np.array([counts[label] for label in range(len(self.class_names))], np.int64)

    def select(self, indices: Iterable[int]) -> VideoSet:
        """The records at these positions, in this order."""
        return dataclasses.replace(self, records=tuple(self.records[i] for i in indices))

    def without(self, paths: Iterable[str | os.PathLike[str]]) -> VideoSet:
        """The records whose file is not among `paths` (see `kvideo.data.check.read_quarantine`)."""
        left_out = {os.fspath(path) for path in paths}
        return dataclasses.replace(
            self, records=tuple(r for r in self.records if r.path not in left_out)
        )


def mirrored_classes(class_names: Sequence[str]) -> tuple[str, str] | None:
    """Two classes that a mirror turns into each other, by their names ("turn_left", "turn_right").

    Returns:
        The first such pair, or None.
    """
    known = {name.lower() for name in class_names}
    for name in class_names:
        low = name.lower()
        swapped = low.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if swapped != low and swapped in known:
            return name, next(other for other in class_names if other.lower() == swapped)
    return None


def fingerprint(videos: VideoSet) -> str:
    """Identifies records and labels, but not where the files lie."""
    digest = hashlib.sha256(repr(videos.class_names).encode())
    for record in videos.records:
        digest.update(repr(record.identity()).encode())
    return digest.hexdigest()


def describe_videos(*parts: VideoSet | None) -> str:
    """How many videos there are, and their fingerprints, in a few words."""
    return " and ".join(
        f"{plural(len(part), 'video')} ({fingerprint(part)[:16]})"
        for part in parts
        if part is not None
    )
