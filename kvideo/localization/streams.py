"""Features of whole videos for localization: kept in a folder, or passing through a file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.errors import DecodeError
from kvideo.feature_files import write_rows
from kvideo.features import (
    Block,
    extract_features,
    feature_extractor,
    stream_features,
    window_blocks,
)
from kvideo.files import make_folder
from kvideo.inference import Predictor
from kvideo.saving import model_info

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Reading:
    """How features are made.

    Args:
        layer: of the classifier; its output, averaged over places, is a row.
        stride: seconds from row to row.
        batch_size: most clips that are run at once.
        workers: decoding threads.
        decoder: the name of a `kvideo.decoders` entry point.
        precision: of the classifier, a part of what identifies kept features.
    """

    layer: str
    stride: float
    batch_size: int = 8
    workers: int = 2
    decoder: str = "pyav"
    precision: str = "float32"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The features of one video, or why there are none.

    Attributes:
        file: a `.npy` file, (T, D) float32; None if the video failed.
        duration: seconds.
        error: a sentence, if the video failed.
    """

    file: Path | None
    duration: float = 0.0
    error: str | None = None

    def load(self) -> np.ndarray:
        """(T, D), as a memory map."""
        return np.load(str(self.file), mmap_mode="r", allow_pickle=False)


def keep_features(
    extractor: keras.Model,
    paths: Sequence[str],
    folder: Path,
    reading: Reading,
    *,
    on_rows: Callable[[int], None] | None = None,
) -> list[Rows]:
    """The features of videos, in a folder where they are found again.

    Args:
        extractor: a classifier that carries its `ModelInfo`.
        paths: the videos.
        folder: see `extract_features`.
        reading: how.
        on_rows: is called after each video with the number of its rows.

    Raises:
        DataError: no video gave features.
    """
    videos = VideoSet(tuple(VideoRecord(path) for path in dict.fromkeys(paths)), ())
    kept = extract_features(
        extractor,
        videos,
        clip_reader(model_info(extractor).clip_spec, reading.decoder),
        folder,
        layer=reading.layer,
        stride=reading.stride,
        root=os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths]),
        batch_size=reading.batch_size,
        workers=reading.workers,
        details={"decoder": reading.decoder, "precision": reading.precision},
        on_video=None if on_rows is None else lambda video: on_rows(sum(video.shape[:1])),
    )
    found = {
        video.path: Rows(None, error=video.error)
        if video.file is None
        else Rows(folder / video.file, _duration(video.times[-1][1], video.shape[0], reading))
        for video in kept.videos
    }
    return [found[path] for path in paths]


def pass_features(
    extractor: keras.Model,
    paths: Sequence[str],
    folder: Path,
    reading: Reading,
    *,
    on_rows: Callable[[int], None] | None = None,
) -> Iterator[Rows]:
    """The features of one video after the other; each file is gone when the next but one comes.

    Args:
        extractor: a classifier that carries its `ModelInfo`.
        paths: the videos.
        folder: for the files; it should be a temporary one.
        reading: how.
        on_rows: is called now and then with the number of new rows.
    """
    make_folder(folder)
    records = [VideoRecord(path) for path in paths]
    reader = clip_reader(model_info(extractor).clip_spec, reading.decoder)
    predictor = Predictor(feature_extractor(extractor, reading.layer), reading.batch_size)
    blocks = window_blocks(records, reader, reading.stride, reading.workers)
    parts = stream_features(predictor, blocks)
    for number, own in groupby(parts, lambda part: part[0].video):
        yield _write(folder / f"{number % 2}.npy", own, reading, on_rows)


def _write(
    path: Path,
    parts: Iterator[tuple[Block, Any]],
    reading: Reading,
    on_rows: Callable[[int], None] | None,
) -> Rows:
    end = 0.0

    def rows() -> Iterator[np.ndarray]:
        nonlocal end
        for block, features in parts:
            if block.error is not None:
                raise block.error
            if not np.isfinite(np.sum(features, dtype=np.float64)):
                raise DecodeError("", "not_finite", "the layer's output is not a finite number")
            end = float(np.asarray(block.times)[-1, 1])
            if on_rows is not None:
                on_rows(len(features))
            yield features

    try:
        shape = write_rows(path, rows())
    except DecodeError as error:
        return Rows(None, error=error.detail)
    return Rows(path, _duration(end, shape[0], reading))


def _duration(end: float, rows: int, reading: Reading) -> float:
    """The last clip may be over before the video is, by less than half a stride."""
    return max(end, (rows - 0.5) * reading.stride)
