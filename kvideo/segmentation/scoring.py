"""Models with an output for each frame on whole videos of any length.

A video is covered by clips of the model's length that overlap by half; each sampled time gets the
mean over the clips that see it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvideo.data.records import VideoRecord
from kvideo.data.windows import Block, Cover
from kvideo.errors import DecodeError
from kvideo.inference import Predictor
from kvideo.segmentation.results import FrameResult

if TYPE_CHECKING:
    import keras


def is_per_frame(model: keras.Model) -> bool:
    """Whether a model has an output for each frame, (B, T, C), rather than one for the clip."""
    return len(model.output_shape) == 3


def score_frames(
    predictor: Predictor, records: Sequence[VideoRecord], blocks: Iterable[Block]
) -> Iterator[FrameResult]:
    """The probabilities of each video over time, or its error, in the order of the records.

    Args:
        predictor: a model with an output for each frame.
        records: the videos.
        blocks: of `kvideo.data.windows.iterate_blocks`, of the same records.
    """
    waiting: deque[Block] = deque()
    failed: set[int] = set()
    sums, seen = np.zeros((0, 0)), np.zeros(0)

    def groups() -> Iterator[np.ndarray]:
        for block in blocks:
            waiting.append(block)
            if block.clips is not None:
                yield block.clips

    def failures() -> Iterator[FrameResult]:
        while waiting and waiting[0].error is not None:
            block = waiting.popleft()
            if block.index not in failed:
                failed.add(block.index)
                yield _failed(records[block.index], block.error)

    for probabilities in predictor.ragged(groups()):
        yield from failures()
        block = waiting.popleft()
        cover = block.cover
        if cover is None or block.index in failed:
            continue
        if not block.first:
            sums = np.zeros((len(cover.times), probabilities.shape[-1]))
            seen = np.zeros(len(cover.times))
        for first, rows in zip(cover.firsts[block.first :], probabilities, strict=False):
            rows = rows[: len(sums) - first]  # the rest is padding
            sums[first : first + len(rows)] += rows
            seen[first : first + len(rows)] += 1
        if block.last:
            yield _result(records[block.index], cover, sums / seen[:, None])
    yield from failures()


def _result(record: VideoRecord, cover: Cover, probabilities: np.ndarray) -> FrameResult:
    if not np.isfinite(probabilities).all():
        return FrameResult(
            record.path, error="the model's output is not a finite number", reason="not_finite"
        )
    return FrameResult(record.path, cover.times, cover.end, probabilities, cover.labels)


def _failed(record: VideoRecord, error: DecodeError | None) -> FrameResult:
    if error is None:
        return FrameResult(record.path, error="unknown", reason="unreadable")
    return FrameResult(record.path, error=error.detail, reason=error.reason)
