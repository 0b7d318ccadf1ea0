"""The index of a folder of features: which video, which file, which label. NumPy only."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kvideo import __version__
from kvideo.data.records import VideoRecord
from kvideo.errors import DataError
from kvideo.feature_files import CachedFile
from kvideo.files import write_text_atomic
from kvideo.results import json_text, plain
from kvideo.text import plural

INDEX, TABLE = "index.json", "index.csv"
_FORMAT = 1
_COLUMNS = ("path", "label", "start", "end", "file", "shape")
_SEPARATOR = "|"  # between several labels, as in annotation files


@dataclasses.dataclass(frozen=True)
class VideoFeatures:
    """The features of one video, or why there are none.

    Args:
        path: the video.
        labels: class indices; none where nobody knows.
        start: seconds, where only a part of the video is meant.
        end: seconds, likewise.
        file: its `.npy` file in the folder; None if the video failed.
        shape: of the array; the first axis counts clips.
        times: beginning and end of each clip, seconds.
        reason: one word, if it failed.
        error: a sentence, if it failed.
        computed: whether this run has computed it rather than found it.
    """

    path: str
    labels: tuple[int, ...] = ()
    start: float | None = None
    end: float | None = None
    file: str | None = None
    shape: tuple[int, ...] = ()
    times: tuple[tuple[float, float], ...] = ()
    reason: str | None = None
    error: str | None = None
    computed: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def of(cls, record: VideoRecord, file: CachedFile, computed: bool = False) -> VideoFeatures:
        """Of a video whose file is there."""
        return cls(
            record.path,
            record.labels,
            record.start,
            record.end,
            file.file,
            file.shape,
            file.times,
            computed=computed,
        )

    @classmethod
    def failed(cls, record: VideoRecord, reason: str, error: str) -> VideoFeatures:
        """Of a video that gave none."""
        return cls(record.path, record.labels, record.start, record.end, reason=reason, error=error)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureSet:
    """The features of a data set, in files.

    Args:
        folder: holds the files, `index.json` and `index.csv`.
        class_names: names of the classes; a label is an index into them.
        multi_label: whether a video may have several labels.
        videos: in the data's order, failed ones too.
        details: how they were made: model, layer, pool, views, clip.
    """

    folder: Path
    class_names: tuple[str, ...]
    multi_label: bool
    videos: tuple[VideoFeatures, ...]
    details: dict[str, Any]

    def __len__(self) -> int:
        """How many videos have features."""
        return len(self.found)

    @property
    def found(self) -> tuple[VideoFeatures, ...]:
        """The videos that have features, in the data's order."""
        return tuple(video for video in self.videos if video.file is not None)

    @property
    def failures(self) -> tuple[VideoFeatures, ...]:
        """The videos that have none."""
        return tuple(video for video in self.videos if video.file is None)

    def arrays(self) -> Iterator[np.ndarray]:
        """The array of each video that has one, (clips, ...) float32, one after the other."""
        for video in self.found:
            yield np.load(self.folder / str(video.file), allow_pickle=False)

    def means(self) -> np.ndarray:
        """The mean over each video's clips (and positions), (N, C) float32.

        Raises:
            DataError: the videos' features have different lengths.
        """
        lengths = {video.shape[-1] for video in self.found}
        if len(lengths) != 1:
            raise DataError(f"{self.folder} has no features of one length, but {sorted(lengths)}.")
        rows = (array.reshape(-1, array.shape[-1]) for array in self.arrays())
        return np.stack([row.mean(axis=0, dtype=np.float64).astype(np.float32) for row in rows])

    def labels(self) -> np.ndarray:
        """Class indices (N,) int64, or, multi-label, (N, classes) uint8 of 0 and 1.

        Raises:
            DataError: a video has no label.
        """
        if self.multi_label:
            hot = np.zeros((len(self), len(self.class_names)), np.uint8)
            for row, video in zip(hot, self.found, strict=True):
                row[list(video.labels)] = 1
            return hot
        for video in self.found:
            if len(video.labels) != 1:
                raise DataError(f"{video.path} has {plural(len(video.labels), 'label')}, not one.")
        return np.array([video.labels[0] for video in self.found], np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: the document `index.json`, with labels by name."""
        return plain(
            {
                "format": _FORMAT,
                "kvideo_version": __version__,
                "details": self.details,
                "multi_label": self.multi_label,
                "class_names": self.class_names,
                "videos": [self._video_json(video) for video in self.videos],
            }
        )

    def save(self) -> None:
        """Writes `index.json` and `index.csv` into the folder.

        Raises:
            KVideoError: they cannot be written.
        """
        write_text_atomic(self.folder / INDEX, json_text(self.to_json()))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        for video in self.found:
            label = _SEPARATOR.join(self.class_names[label] for label in video.labels)
            shape = "x".join(map(str, video.shape))
            table.writerow([video.path, label, video.start, video.end, video.file, shape])
        write_text_atomic(self.folder / TABLE, text.getvalue())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> FeatureSet:
        """The features that `kvideo features` has written into a folder.

        Raises:
            DataError: there is no index, or a damaged one.
        """
        path = Path(folder) / INDEX
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            names = tuple(document["class_names"])
            places = {name: place for place, name in enumerate(names)}
            videos = tuple(_from_json(values, places) for values in document["videos"])
            multi_label, details = document["multi_label"], document["details"]
        except FileNotFoundError:
            raise DataError(f"{folder} holds no features: it has no {INDEX}.") from None
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise DataError(f"{path} is damaged: {cause!r}.") from cause
        return cls(Path(folder), names, multi_label, videos, details)

    @staticmethod
    def forget(folder: Path) -> None:
        """Removes the index, not the files."""
        for name in (INDEX, TABLE):
            (folder / name).unlink(missing_ok=True)

    def _video_json(self, video: VideoFeatures) -> dict[str, Any]:
        values: dict[str, Any] = {"path": video.path}
        values["labels"] = [self.class_names[label] for label in video.labels]
        if video.start is not None or video.end is not None:
            values |= {"start": video.start, "end": video.end}
        if video.file is None:
            return {**values, "reason": video.reason, "error": video.error}
        return {**values, "file": video.file, "shape": video.shape, "times": video.times}


def _from_json(values: dict[str, Any], places: dict[str, int]) -> VideoFeatures:
    return VideoFeatures(
        values["path"],
        tuple(places[name] for name in values["labels"]),
        values.get("start"),
        values.get("end"),
        values.get("file"),
        tuple(values.get("shape", ())),
        tuple((first, last) for first, last in values.get("times", ())),
        values.get("reason"),
        values.get("error"),
    )
