"""A detector on the moments of videos: decoded in blocks, memory does not grow with length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kvideo.data.boxes import boxes_in_clip, boxes_in_picture
from kvideo.data.clip_reader import ClipReader
from kvideo.data.keyframes import KeyframeBlock, keyframe_blocks
from kvideo.data.proposals import Found
from kvideo.data.records import VideoRecord
from kvideo.data.sampling import Window
from kvideo.detection.detector import Detector
from kvideo.detection.metrics import Floats
from kvideo.detection.results import Moment, VideoActors

# From a video's path, its name, and moments (N,) to the boxes, as fractions of the picture, and
# scores of each moment.
BoxSource = Callable[[str, str, Floats], list[Found]]


def detect(
    detector: Detector,
    videos: Sequence[tuple[str, VideoRecord, Sequence[float]]],
    reader: ClipReader,
    workers: int,
    *,
    boxes: BoxSource | None = None,
    on_moments: Callable[[int], None] | None = None,
) -> Iterator[VideoActors]:
    """What is seen at given moments of each video, in order.

    Args:
        detector: finds and classifies.
        videos: name, record and moments of each; a video without moments gives nothing seen.
        reader: reads clips as the detector takes them.
        workers: decoding threads.
        boxes: where boxes come from; None: the detector's person head.
        on_moments: is called after each block with the number of its moments.
    """
    wanted = [(record, times) for _, record, times in videos]
    blocks = keyframe_blocks(wanted, reader, workers)
    grouped = itertools.groupby(blocks, lambda block: block.index)
    number, own = next(grouped, (None, None))
    for index, (name, record, _) in enumerate(videos):
        if own is None or number != index:
            yield VideoActors(record.path, name)
            continue
        yield _video(detector, name, record, own, reader, boxes, on_moments)
        number, own = next(grouped, (None, None))


def _video(
    detector: Detector,
    name: str,
    record: VideoRecord,
    blocks: Iterator[KeyframeBlock],
    reader: ClipReader,
    boxes: BoxSource | None,
    on_moments: Callable[[int], None] | None,
) -> VideoActors:
    moments: list[Moment] = []
    error = None
    for block in blocks:
        if block.error is not None:
            error = error or str(block.error.detail)
        if block.clips is None or block.window is None:
            continue
        given = None if boxes is None else boxes(record.path, name, block.times)
        moments += _moments(detector, block.clips, block.times, block.window, reader, given)
        if on_moments is not None:
            on_moments(len(block.times))
    last = moments[-1].time if moments else 0.0
    return VideoActors(record.path, name, last, tuple(moments), error)


def _moments(
    detector: Detector,
    clips: np.ndarray,
    times: Floats,
    window: Window,
    reader: ClipReader,
    given: list[Found] | None,
) -> list[Moment]:
    size = reader.spec.size
    if given is None:
        found = []
        for time, (boxes, scores, actions) in zip(times, detector(clips), strict=True):
            pictured = boxes_in_picture(boxes, window, size)
            there = (pictured[:, 2] > pictured[:, 0]) & (pictured[:, 3] > pictured[:, 1])
            found.append(Moment(float(time), pictured[there], scores[there], actions[there]))
        return found
    seen: list[Found] = []
    shown: list[Found] = []
    for boxes, scores in given:
        inside, visible = boxes_in_clip(boxes, window, size)
        seen.append((inside[visible], scores[visible]))
        shown.append((np.asarray(boxes).reshape(-1, 4)[visible], scores[visible]))
    results = detector(clips, seen)
    return [
        Moment(float(time), own[0], own[1], actions)
        for time, own, (_, _, actions) in zip(times, shown, results, strict=True)
    ]
