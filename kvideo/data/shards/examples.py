"""One video as a `tf.train.SequenceExample`, in the keys of MediaSequence.

These are read by the video pipeline of tensorflow/models (`image/encoded`, `clip/label/index`:
official/vision/dataloaders/video_input.py), by DMVR (`clip/label/text` too), and by MediaPipe (the
rest: mediapipe/util/sequence/README.md). Times are whole microseconds.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvideo.data.decode import open_video
from kvideo.data.records import VideoRecord
from kvideo.data.remote import open_remote
from kvideo.data.sampling import clip_span
from kvideo.data.shards.layout import StoredVideo
from kvideo.data.shards.plan import ShardSettings
from kvideo.errors import DataError, DecodeError

FRAMES = "image/encoded"
LABELS = "clip/label/index"
# `tf.strings.to_hash_bucket_fast` counts up to here: it has to fit into an int64.
FINGERPRINTS = 2**62
_BLOCK = 32  # frames decoded at once


def encode_video(
    record: VideoRecord,
    name: str,
    group: str | None,
    class_names: Sequence[str],
    settings: ShardSettings,
) -> tuple[bytes, StoredVideo]:
    """Decodes a video and stores it.

    Args:
        record: of the video.
        name: to remember it by.
        group: see `VideoRecord`.
        class_names: of its labels.
        settings: how it is stored.

    Returns:
        The serialized example, and what the index says of it (its offset is still 0).

    Raises:
        DecodeError: the video gives no frames, or its labels do not fit it.
    """
    opener = open_remote if "://" in record.path else None
    with open_video(record.path, opener=opener) as video:
        info = video.info
        try:
            first, last = clip_span(record.start, record.end, info.duration)
        except DataError as error:
            raise DecodeError(record.path, "too_short", str(error)) from error
        rate = min(settings.frame_rate or info.frame_rate, info.frame_rate)
        count = max(1, round((last - first) * rate))
        size = _size((info.height, info.width), settings.short_side)
        track = _track(record, video)
        # The middle of a frame's time on display is on the safe side of rounded stamps.
        middle = 0.5 / info.frame_rate if rate == info.frame_rate else 0.0
        times = first + np.arange(count) / rate + middle
        pictures = _pictures(video, times, size)
        frames = [_jpeg(picture, settings.quality) for picture in pictures]
    example = _example(frames, rate, size, record, name, class_names, (first, last), track)
    data = example.SerializeToString(deterministic=True)
    return data, StoredVideo(
        name=name,
        labels=record.labels,
        group=group,
        frames=count,
        frame_rate=rate,
        height=size[0],
        width=size[1],
        offset=0,
        length=len(data),
        crc32=zlib.crc32(data),
        fingerprint=int(tf.strings.to_hash_bucket_fast(data, FINGERPRINTS).numpy()),
        track=track,
    )


def placed(video: StoredVideo, offset: int) -> StoredVideo:
    """The same with its place in the file."""
    return dataclasses.replace(video, offset=offset)


def _size(picture: tuple[int, int], short_side: int) -> tuple[int, int]:
    scale = min(1.0, short_side / min(picture))
    return max(1, round(picture[0] * scale)), max(1, round(picture[1] * scale))


def _pictures(video: Any, times: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    for begin in range(0, len(times), _BLOCK):
        yield from video.read(times[begin : begin + _BLOCK], size=size)


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), flags)
    return data.tobytes()


def _track(
    record: VideoRecord, video: Any
) -> tuple[tuple[tuple[float, float, int], ...], int] | None:
    """The record's labels over time in seconds of the stored video."""
    if record.track is None:
        return None
    info = video.info

    def count() -> int:
        return sum(1 for _ in video.frames(size=(16, 16)))

    try:
        fitted = record.track.fitted(info.duration, info.frame_rate, info.num_frames, count)
    except DataError as error:
        raise DecodeError(record.path, "labels", str(error)) from error
    segments = tuple((s.start, min(s.end, info.duration), s.label) for s in fitted.segments)
    return segments, fitted.background


def _example(
    frames: list[bytes],
    rate: float,
    size: tuple[int, int],
    record: VideoRecord,
    name: str,
    class_names: Sequence[str],
    span: tuple[float, float],
    track: tuple[tuple[tuple[float, float, int], ...], int] | None,
) -> tf.train.SequenceExample:
    texts = [class_names[label].encode() for label in record.labels]
    context: dict[str, Any] = {
        LABELS: list(record.labels),
        "clip/label/text": texts,
        "clip/label/string": texts,
        "clip/media_id": [name.encode(errors="backslashreplace")],
        "clip/start/timestamp": [round(1e6 * span[0])],
        "clip/end/timestamp": [round(1e6 * span[1])],
        "clip/frames": [len(frames)],
        "image/format": [b"JPEG"],
        "image/height": [size[0]],
        "image/width": [size[1]],
        "image/channels": [3],
        "image/frame_rate": [float(rate)],
    }
    if track is not None:
        segments, background = track
        context |= {
            "segment/start/timestamp": [round(1e6 * start) for start, _, _ in segments],
            "segment/end/timestamp": [round(1e6 * end) for _, end, _ in segments],
            "segment/label/index": [label for _, _, label in segments],
            "segment/label/background": [background],
        }
    stamps = [round(1e6 * number / rate) for number in range(len(frames))]
    lists: dict[str, list[list[Any]]] = {
        FRAMES: [[frame] for frame in frames],
        "image/timestamp": [[s] for s in stamps],
    }
    return tf.train.SequenceExample(
        context=tf.train.Features(feature={key: _feature(v) for key, v in context.items()}),
        feature_lists=tf.train.FeatureLists(
            feature_list={
                key: tf.train.FeatureList(feature=[_feature(value) for value in values])
                for key, values in lists.items()
            }
        ),
    )


def _feature(values: list[Any]) -> tf.train.Feature:
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
