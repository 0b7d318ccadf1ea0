"""Videos and their labels: what every part of kvideo takes as DATA."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from kvideo.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video, or one segment of a video, with its labels.

    Args:
        path: absolute path, or a URL-like one (`gs://…`).
        labels: class indices: one, several (multi-label), or none (unlabelled).
        start: seconds from the video's beginning; None: from the beginning.
        end: seconds from the video's beginning; None: to the end.
        group: videos of one group are never split over training and validation.
    """

    path: str
    labels: tuple[int, ...] = ()
    start: float | None = None
    end: float | None = None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class VideoSet:
    """Videos with labels, in a fixed order.

    Args:
        records: the videos.
        class_names: names of the classes; a label is an index into them.
        multi_label: whether a video may have several labels.
        source: what the user typed.
        flip_safe: False where a mirrored video may belong to another class.
        missing: paths that are annotated, but are not there.
        notes: sentences for the user about what was read and what was left out.
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

    def labels_array(self) -> np.ndarray:
        """Labels of all records.

        Returns:
            int64 (N,) of class indices; for a multi-label set uint8 (N, classes), 1 where a record
            has the label.

        Raises:
            DataError: a record has no label in a set that is not multi-label.
        """
        if self.multi_label:
            hot = np.zeros((len(self), len(self.class_names)), np.uint8)
            for row, record in zip(hot, self.records, strict=True):
                row[list(record.labels)] = 1
            return hot
        for record in self.records:
            if len(record.labels) != 1:
                raise DataError(f"{record.path} has no label in {self.source}.")
        return np.array([record.labels[0] for record in self.records], np.int64)


def read_data(
    data: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    class_names: tuple[str, ...] | None = None,
) -> VideoSet:
    """Read DATA."""
    data = os.fspath(data)
    if data == "demo":
        from kvideo.data.demo import demo_data

        return demo_data(split or "train")
    folders = sorted(entry.name for entry in os.scandir(data) if entry.is_dir())
    names = tuple(class_names or folders)
    records = []
    for name in folders:
        for folder, _, files in sorted(os.walk(os.path.join(data, name))):
            for file in sorted(files):
                path = os.path.abspath(os.path.join(folder, file))
                records.append(VideoRecord(path=path, labels=(names.index(name),)))
    return VideoSet(records=tuple(records), class_names=names, source=data)


def find_splits(data: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names that `read_data` takes as `split` for this DATA; empty where it has no parts."""
    return ("train", "val") if os.fspath(data) == "demo" else ()
