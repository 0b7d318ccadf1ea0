"""Whole videos as clips, block by block: memory does not grow with length.

The clips overlap by half (`iterate_blocks`), or are any number of seconds apart (`sliding_blocks`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from kvideo.clip_spec import ClipSpec
from kvideo.data.clip_reader import ClipReader
from kvideo.data.records import VideoRecord
from kvideo.data.sampling import covering_times, sliding_times
from kvideo.data.threads import ordered_map
from kvideo.data.tracks import UNLABELLED
from kvideo.errors import DecodeError

# From a span and a clip to the `times` and `firsts` of a `Cover`.
CoverSpan = Callable[[tuple[float, float], ClipSpec], tuple[np.ndarray, np.ndarray]]

_BLOCK = 16  # clips decoded at once, at most
_BLOCK_BYTES = 64 * 2**20
_MAX_AHEAD_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Cover:
    """How a video is covered by clips.

    Attributes:
        index: number of the record.
        times: (K,) seconds at which the video is sampled, 1 / `frame_rate` apart, or at which clips
            begin.
        firsts: (N,) numbers of the times at which the clips begin.
        end: of the video, seconds.
        labels: (K,) int32 true classes, -1 where nothing is known; None without labels.
    """

    index: int
    times: np.ndarray
    firsts: np.ndarray
    end: float
    labels: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Some neighbouring clips of one video, or why there are none.

    Attributes:
        index: number of the record.
        last: whether no more blocks of this video come.
        cover: of the whole video; None if it could not be opened.
        first: number of the first clip in the cover.
        clips: (n, T, H, W, 3) uint8; None if they could not be read.
        error: then the reason.
    """

    index: int
    last: bool
    cover: Cover | None = None
    first: int = 0
    clips: np.ndarray | None = None
    error: DecodeError | None = None


def iterate_blocks(
    records: Sequence[VideoRecord], reader: ClipReader, workers: int
) -> Generator[Block, None, None]:
    """All videos, in order, each covered by clips that overlap by half.

    Blocks are decoded by several threads, and handed out in order.

    Args:
        records: videos, with labels over time or without any.
        reader: reads clips as a model takes them.
        workers: decoding threads.
    """
    return _blocks(records, reader, workers, covering_times)


def sliding_blocks(
    records: Sequence[VideoRecord], reader: ClipReader, workers: int, stride: float
) -> Generator[Block, None, None]:
    """All videos, in order, each as clips with their middles `stride` seconds apart.

    Args:
        records: videos.
        reader: reads clips as a model takes them.
        workers: decoding threads.
        stride: seconds; see `sliding_times`.
    """

    def cover(span: tuple[float, float], spec: ClipSpec) -> tuple[np.ndarray, np.ndarray]:
        starts = sliding_times(span, spec, stride)
        return starts, np.arange(len(starts))

    return _blocks(records, reader, workers, cover)


def _blocks(
    records: Sequence[VideoRecord],
    reader: ClipReader,
    workers: int,
    cover_span: CoverSpan,
) -> Generator[Block, None, None]:
    clip_bytes = int(np.prod(reader.spec.shape))
    size = max(1, min(_BLOCK, _BLOCK_BYTES // clip_bytes))
    ahead = max(workers, min(2 * workers, _MAX_AHEAD_BYTES // (size * clip_bytes)))

    def pieces() -> Iterator[Block]:
        numbered = enumerate(records)
        for block in ordered_map(lambda item: _plan(*item, reader, cover_span), numbered, 1, 2):
            if block.cover is None:
                yield block
                continue
            count = len(block.cover.firsts)
            for first in range(0, count, size):
                yield dataclasses.replace(block, first=first, last=first + size >= count)

    def load(block: Block) -> Block:
        if block.cover is None:
            return block
        cover = block.cover
        starts = cover.times[cover.firsts[block.first : block.first + size]]
        try:
            (clips,) = reader.clips_at(records[block.index], starts, cover.end, size)
        except DecodeError as error:
            return dataclasses.replace(block, error=error)
        return dataclasses.replace(block, clips=clips)

    return ordered_map(load, pieces(), workers, ahead)


def _plan(
    index: int,
    record: VideoRecord,
    reader: ClipReader,
    cover_span: CoverSpan,
) -> Block:
    try:
        first, last, track = reader.span(record)
    except DecodeError as error:
        return Block(index, True, error=error)
    times, firsts = cover_span((first, last), reader.spec)
    labels = None if track is None else track.at(times)
    if labels is not None and not (labels != UNLABELLED).any():
        unlabelled = DecodeError(record.path, "labels", "none of its frames has a label")
        return Block(index, True, error=unlabelled)
    return Block(index, False, Cover(index, times, firsts, last, labels))
