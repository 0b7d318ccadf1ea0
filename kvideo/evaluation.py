"""Testing a model: every video decoded once for all its views, probabilities averaged."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kvideo.clip_spec import Views
from kvideo.cluster import Cluster
from kvideo.cluster.messages import shared_out
from kvideo.data.annotations import VideoRecord, VideoSet
from kvideo.data.clip_reader import ClipReader, iterate_views
from kvideo.data.over_time import check_match
from kvideo.data.windows import iterate_blocks
from kvideo.errors import DecodeError
from kvideo.files import make_folder, write_bytes_atomic
from kvideo.inference import Predictor
from kvideo.members import fuse_scores, members_of
from kvideo.results import EvaluationResult, VideoResult
from kvideo.saving import model_info
from kvideo.scores import check_labels, summarize
from kvideo.segmentation.results import FrameResult, summarize_frames
from kvideo.segmentation.scoring import is_per_frame, score_frames

if TYPE_CHECKING:
    import keras

Progress = Callable[[VideoResult | FrameResult], None]
Result = TypeVar("Result", VideoResult, FrameResult)
_FILM_FRAMES = 12  # of a mistake, for the report


def score_videos(
    predictor: Predictor,
    videos: VideoSet,
    reader: ClipReader,
    views: Views,
    workers: int,
) -> Iterator[VideoResult]:
    """The view-averaged probabilities of each video, or its error, in the data's order.

    Args:
        predictor: the model.
        videos: what to score; labels may be missing.
        reader: reads clips as the model takes them.
        views: how many views a video has.
        workers: decoding threads.
    """
    failed: dict[int, DecodeError] = {}
    started: list[int] = []

    def groups() -> Iterator[np.ndarray]:
        for index, clips in enumerate(iterate_views(videos.records, reader, views, workers)):
            if isinstance(clips, DecodeError):
                failed[index] = clips
            else:
                started.append(index)
                yield clips

    reported = 0
    for done, probabilities in enumerate(predictor.ragged(groups())):
        index = started[done]
        while reported < index:
            yield _failed(videos.records[reported], failed[reported])
            reported += 1
        yield _scored(videos.records[index], probabilities.mean(axis=0, dtype=np.float64))
        reported = index + 1
    for index in range(reported, len(videos.records)):
        yield _failed(videos.records[index], failed[index])


def score_with_members(
    model: keras.Model,
    videos: VideoSet,
    readers: Sequence[ClipReader],
    views: Sequence[Views],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[VideoResult]:
    """As `score_videos`; of a late fusion each member's views are averaged before it is fused.

    Args:
        model: a classifier that carries its `ModelInfo`.
        videos: what to score; labels may be missing.
        readers: for each member, or for the model, one.
        views: likewise.
        batch_size: most clips that are run at once.
        workers: decoding threads.
    """
    each = [
        score_videos(Predictor(member, batch_size), videos, reader, own, workers)
        for member, reader, own in zip(members_of(model), readers, views, strict=True)
    ]
    for results in zip(*each, strict=True):
        failed = next((result for result in results if result.probabilities is None), None)
        if failed is not None:
            yield failed
            continue
        scores = [np.asarray(result.probabilities)[None] for result in results]
        yield dataclasses.replace(results[0], probabilities=fuse_scores(model, scores)[0])


def evaluate_model(
    model: keras.Model,
    videos: VideoSet,
    reader: ClipReader | Sequence[ClipReader],
    *,
    views: Views | Sequence[Views] | None = None,
    batch_size: int = 8,
    workers: int = 2,
    details: Mapping[str, Any] | None = None,
    on_video: Progress | None = None,
    cluster: Cluster | None = None,
) -> EvaluationResult:
    """Tests a model on a data set.

    Args:
        model: a classifier that carries its `ModelInfo`.
        videos: labelled videos; class indices as in the model.
        reader: reads clips as the model takes them; of a late fusion one for each member.
        views: how many views a video has; by default what the model recommends. A model with a
            label for each frame looks at the whole of every video instead. Of a late fusion one
            for each member.
        batch_size: most clips that are run at once.
        workers: decoding threads.
        details: how the figures were made, for the record.
        on_video: is called with the result of each video that this process scores.
        cluster: the processes that share out the videos; all get the same result.

    Returns:
        Figures, per-class table, confusion matrix, and every video's probabilities; of a model
        with a label for each frame a `SegmentationResult`.

    Raises:
        DataError: no video could be scored, or labels are missing; or of model and data one has a
            label for each frame and the other has not.
    """
    info, cluster = model_info(model), cluster or Cluster()
    readers = [reader] if isinstance(reader, ClipReader) else reader
    check_match(f'"{model.name}"', is_per_frame(model), videos.source, videos.per_frame)
    if is_per_frame(model):
        for record in videos.records:
            check_labels(record.path, record.labels, len(info.class_names), multi_label=True)
        predictor = Predictor(model, batch_size)

        def score_frames_of(records: Sequence[VideoRecord]) -> Iterator[FrameResult]:
            blocks = iterate_blocks(records, readers[0], workers)
            return _told(score_frames(predictor, records, blocks), on_video)

        over_time = shared_out(cluster, score_frames_of, videos.records, FrameResult)
        return summarize_frames(over_time, info.class_names, details=details)
    if views is None:
        views = [part.views for part in info.members or (info,)]
    views = [views] if isinstance(views, Views) else views
    for record in videos.records:
        check_labels(record.path, record.labels, len(info.class_names), info.multi_label)
    sized = {"batch_size": batch_size, "workers": workers}

    def score(records: Sequence[VideoRecord]) -> Iterator[VideoResult]:
        share = dataclasses.replace(videos, records=tuple(records))
        return _told(score_with_members(model, share, readers, views, **sized), on_video)

    return summarize(
        shared_out(cluster, score, videos.records, VideoResult),
        info.class_names,
        multi_label=info.multi_label,
        views=views[0] if len(views) == 1 else sum(map(len, views)),
        details=details,
    )


def _told(results: Iterator[Result], on_video: Progress | None) -> Iterator[Result]:
    for result in results:
        if on_video is not None:
            on_video(result)
        yield result


def write_report(
    result: EvaluationResult, folder: str | os.PathLike[str], reader: ClipReader
) -> list[Path]:
    """Writes `evaluation.json`, `report.html` and, for one label a video, `confusion.png`.

    Args:
        result: of `evaluate_model`.
        folder: is made if it is missing.
        reader: gives pictures of the worst mistakes.

    Returns:
        The files written.

    Raises:
        KVideoError: they cannot be written.
    """
    from kvideo.report import write_report as write_page
    from kvideo.report.plots import confusion_png

    def thumbnail(video: VideoResult) -> np.ndarray:
        return reader.thumbnails(
            VideoRecord(video.path, video.labels, start=video.start, end=video.end), _FILM_FRAMES
        )

    folder = make_folder(folder)
    files = [folder / "evaluation.json", folder / "report.html"]
    result.save(files[0])
    write_page(result, files[1], thumbnail=thumbnail)
    if result.confusion is not None:
        files.append(folder / "confusion.png")
        write_bytes_atomic(files[2], confusion_png(result.confusion, result.class_names))
    return files


def _scored(record: VideoRecord, probabilities: np.ndarray) -> VideoResult:
    return VideoResult(
        record.path, record.labels, probabilities, start=record.start, end=record.end
    )


def _failed(record: VideoRecord, error: DecodeError) -> VideoResult:
    return VideoResult.failed(record.path, record.labels, error, start=record.start, end=record.end)
