"""Figures on validation videos after each epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvideo.clip_spec import Views
from kvideo.cluster import Cluster
from kvideo.cluster.messages import shared_out
from kvideo.data.annotations import VideoRecord, VideoSet
from kvideo.data.clip_reader import ClipReader, iterate_views
from kvideo.data.failures import Failures
from kvideo.data.tracks import UNLABELLED
from kvideo.data.windows import Block, iterate_blocks
from kvideo.errors import DataError, DecodeError
from kvideo.inference import Predictor
from kvideo.metrics import confusion_matrix, mean_average_precision, top_k_accuracy
from kvideo.results import VideoResult
from kvideo.scores import average_views
from kvideo.segmentation import segmentation_metrics
from kvideo.segmentation.results import (
    FrameResult,
    exclude_background,
    frame_losses,
    label_pairs,
)
from kvideo.segmentation.scoring import is_per_frame, score_frames

if TYPE_CHECKING:
    import keras

# Test-time clips are the same in every epoch; those of small sets are decoded only once.
_KEEP_BYTES = 512 * 2**20


class Validation:
    """Evaluates a model on a few clips of each video; call it after each epoch.

    Args:
        model: the model, whose weights change in between.
        videos: validation videos.
        reader: reads their clips.
        num_clips: clips of each video, where it has one label.
        batch_size: clips that are run at once.
        workers: decoding threads.
        failures: receives the videos that cannot be read.
        cluster: the processes that share out the videos; all get the same figures.
        extract: what clips become before they are kept and given to the model: the features of a
            frozen backbone.

    Attributes:
        confusion: (C, C) counts of the last call, of videos or frames, rows are true classes; None
            for several labels a video.
    """

    def __init__(
        self,
        model: keras.Model,
        videos: VideoSet,
        reader: ClipReader,
        num_clips: int,
        batch_size: int,
        workers: int,
        failures: Failures | None = None,
        cluster: Cluster | None = None,
        extract: Callable[[np.ndarray], np.ndarray] = lambda clips: clips,
    ) -> None:
        self._extract, self.cluster = extract, cluster or Cluster()
        self.predictor = Predictor(model, batch_size, fold=False)
        self.per_frame = is_per_frame(model)
        self.videos, self.reader, self.workers = videos, reader, workers
        self.views = Views(num_clips, 1)
        # An empty collection counts as false, so `or` would not do.
        self.failures = Failures() if failures is None else failures
        total = len(videos.records) * num_clips * int(np.prod(reader.spec.shape))
        self.confusion: np.ndarray | None = None
        self._kept: list[tuple[VideoRecord, np.ndarray]] | None = None
        self._kept_blocks: list[Block] | None = None
        self._keep = total <= _KEEP_BYTES

    def __call__(self) -> dict[str, float]:
        """`val_loss`, and `val_accuracy` or, for multi-label sets, `val_mAP`.

        With a label for each frame the whole of every video is looked at, as `kvideo evaluate`
        does: `val_loss` and `val_accuracy` are those of its frames, and `val_edit` and `val_f1@25`
        those of its segments.

        Raises:
            DataError: none of the videos can be read.
        """
        if self.per_frame:
            return self._frame_figures()
        results = shared_out(self.cluster, self._score, self.videos.records, VideoResult)
        read = [result for result in results if result.probabilities is not None]
        if not read:
            raise DataError(f"no validation video can be read. {self.failures.summary()}")
        return self._figures(read)

    def _score(self, records: Sequence[VideoRecord]) -> Iterator[VideoResult]:
        """One result for each record; those of this process only, always the same ones."""
        shown: list[VideoRecord] = []

        def groups() -> Iterator[np.ndarray]:
            for record, clips in self._clips(records):
                shown.append(record)
                yield clips

        scores = dict(zip(shown, average_views(list(self.predictor.ragged(groups()))), strict=True))
        for record in records:
            yield VideoResult(record.path, record.labels, scores.get(record))

    def _frame_figures(self) -> dict[str, float]:
        def score(records: Sequence[VideoRecord]) -> Iterator[FrameResult]:
            return score_frames(self.predictor, records, self._blocks(records))

        scored = shared_out(self.cluster, score, self.videos.records, FrameResult)
        results = [result for result in scored if result.probabilities is not None]
        if not results:
            raise DataError(f"no validation video can be read. {self.failures.summary()}")
        losses = [frame_losses(result) for result in results]
        pairs = label_pairs(results)
        truth, said = (np.concatenate(each) for each in zip(*pairs, strict=True))
        known = truth != UNLABELLED
        classes = len(self.videos.class_names)
        self.confusion = confusion_matrix(said[known], truth[known], classes)
        figures = segmentation_metrics(
            pairs,
            exclude=exclude_background(self.videos.class_names),
            overlaps=(0.25,),
        )
        return {
            "val_loss": float(np.concatenate(losses).mean()),
            "val_accuracy": figures["frame_accuracy"],
            "val_edit": figures["edit"],
            "val_f1@25": figures["f1@25"],
        }

    def _blocks(self, records: Sequence[VideoRecord]) -> Iterator[Block]:
        if self._kept_blocks is not None:
            yield from self._kept_blocks
            return
        kept: list[Block] = []
        size = 0
        for block in iterate_blocks(records, self.reader, self.workers):
            if block.error is not None:
                self.failures.add(block.error)
            if block.clips is not None:
                clips = self._extract(block.clips)
                block, size = dataclasses.replace(block, clips=clips), size + clips.nbytes
            if size <= _KEEP_BYTES:
                kept.append(block)
            else:
                kept.clear()
            yield block
        if size <= _KEEP_BYTES:
            self._kept_blocks = kept

    def _clips(self, records: Sequence[VideoRecord]) -> Iterator[tuple[VideoRecord, np.ndarray]]:
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        results = iterate_views(records, self.reader, self.views, self.workers)
        for record, clips in zip(records, results, strict=True):
            if isinstance(clips, DecodeError):
                self.failures.add(clips)
                continue
            clips = self._extract(clips)
            if self._keep:
                kept.append((record, clips))
            yield record, clips
        if self._keep:
            self._kept = kept

    def _figures(self, results: Sequence[VideoResult]) -> dict[str, float]:
        tiny = np.finfo(np.float32).tiny
        scores = np.stack([np.asarray(result.probabilities) for result in results])
        if self.videos.multi_label:
            truth = np.zeros(scores.shape, bool)
            for row, result in zip(truth, results, strict=True):
                row[list(result.labels)] = True
            chosen = np.where(truth, scores, 1 - scores)
            loss = -np.log(np.maximum(chosen, tiny)).mean()
            return {
                "val_loss": float(loss),
                "val_mAP": float(mean_average_precision(scores, truth)),
            }
        labels = np.array([result.labels[0] for result in results])
        self.confusion = confusion_matrix(np.argmax(scores, axis=1), labels, scores.shape[1])
        loss = -np.log(np.maximum(scores[np.arange(len(labels)), labels], tiny)).mean()
        return {"val_loss": float(loss), "val_accuracy": float(top_k_accuracy(scores, labels))}
