"""Clips of a record's file: opened, sampled, decoded; for training, for testing, over time.

Decoding runs in FFmpeg, outside Python's global lock, so threads are enough. The pool hands
results out in the order of the requests: a run is the same whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.annotations import VideoRecord
from kvideo.data.clip_flow import ClipFlow
from kvideo.data.decode import Pictures
from kvideo.data.sampling import (
    BEFORE_END,
    Augmentation,
    Window,
    clip_span,
    clip_times,
    even_clip_times,
    is_padding,
    on_grid,
    random_clip_times,
    random_window,
    view_windows,
)
from kvideo.data.shards.layout import is_stored
from kvideo.data.shards.reading import StoredVideoReader
from kvideo.data.threads import MAX_AHEAD_BYTES, ordered_map
from kvideo.data.tracks import UNLABELLED, LabelTrack
from kvideo.errors import DataError, DecodeError

GREY = 127
_BLOCK = 16  # clips decoded at once for a timeline
_COUNTING_SIZE = (16, 16)  # pixels, where frames are only counted

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """Opens a record's file and reads clips from it.

    Args:
        spec: what a clip is.
        open_video: a decoder (see `kvideo.data.decode.open_video`).
        opener: makes a binary file object from a path, for paths that the system cannot open.
        flow: for clips with flow.
    """

    spec: ClipSpec
    open_video: Callable[..., Any]
    opener: Callable[[str], Any] | None = None
    flow: ClipFlow | None = None
    _frame_counts: dict[str, int] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    def training_clip(
        self, record: VideoRecord, augmentation: Augmentation, rng: np.random.Generator
    ) -> np.ndarray:
        """One random clip, (T, H, W, C), of the type that `ClipSpec.dtype` says.

        Raises:
            DecodeError: the video gives no frames there.
        """
        return self.labelled_training_clip(record, augmentation, rng)[0]

    def labelled_training_clip(
        self, record: VideoRecord, augmentation: Augmentation, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """What `training_clip` gives, and the classes of its frames where the record has a track.

        Returns:
            The clip, and (T,) int32: the class at each of the clip's times, -1 where it
            goes beyond the video's end or nothing is known; None without a track.

        Raises:
            DecodeError: the video gives no frames there, or its labels do not fit it.
        """
        return self.labelled_training_clips(record, augmentation, [rng])[0]

    def labelled_training_clips(
        self, record: VideoRecord, augmentation: Augmentation, rngs: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Several random clips of a video, in one pass over the file where the decoder can do that.

        Args:
            record: the video.
            augmentation: which part of the picture a clip takes.
            rngs: one for each clip.

        Returns:
            For each what `labelled_training_clip` gives.

        Raises:
            DecodeError: the video gives no frames there, or its labels do not fit it.
        """
        with self._open(record) as reader:
            span = self._span(record, reader.info.duration)
            track = self.track(record, reader)
            picture = reader.info.height, reader.info.width
            labels: list[np.ndarray | None] = []
            wanted: list[np.ndarray] = []
            windows: list[Window] = []
            for rng in rngs:
                times = self._times(random_clip_times(span, self.spec, rng), span)
                wanted.append(times)
                windows.append(random_window(picture, self.spec, augmentation, rng))
                labels.append(None if track is None else self._labels_at(times, track, span))
            clips = self._read_several(reader, record, wanted, windows, span[1])
        placed = [self._placed(*pair) for pair in zip(clips, windows, strict=True)]
        return list(zip(placed, labels, strict=True))

    def _labels_at(
        self, times: np.ndarray, track: LabelTrack, span: tuple[float, float]
    ) -> np.ndarray:
        labels = track.at(times)
        labels[is_padding(times[0], span[1], self.spec)] = UNLABELLED
        return labels

    def track(self, record: VideoRecord, video: Any) -> LabelTrack | None:
        """The record's labels over time, fitted to its open file; None if it has none.

        Raises:
            DecodeError: they do not fit.
        """
        if record.track is None:
            return None

        def count() -> int:
            if record.path not in self._frame_counts:
                frames = video.frames(size=_COUNTING_SIZE)
                self._frame_counts[record.path] = sum(1 for _ in frames)
            return self._frame_counts[record.path]

        info = video.info
        try:
            return record.track.fitted(info.duration, info.frame_rate, info.num_frames, count)
        except DataError as error:
            raise DecodeError(record.path, "labels", str(error)) from error

    def views(self, record: VideoRecord, views: Views) -> np.ndarray:
        """All views of a video from one decode, (num_clips × crops, T, H, W, C).

        The crops of one clip are neighbours.

        Raises:
            DecodeError: the video gives no frames there.
        """
        return self.timed_views(record, views)[1]

    def timed_views(self, record: VideoRecord, views: Views) -> tuple[np.ndarray, np.ndarray]:
        """Beginning and end of each view, (N, 2) in seconds, and what `views` gives, (N, ...).

        Raises:
            DecodeError: the video gives no frames there.
        """
        with self._open(record) as reader:
            span = self._span(record, reader.info.duration)
            times = self._times(even_clip_times(span, self.spec, views.num_clips), span)
            picture = reader.info.height, reader.info.width
            windows = view_windows(picture, self.spec, views.num_crops)
            only = windows[0].crop if len(windows) == 1 else None
            clips = self._read(reader, record, times, windows[0].size, only, span[1])
        ends = np.clip(times[:, 0] + self.spec.span, None, max(span[1], times[0, 0]))
        parts = np.stack([times[:, 0], ends], axis=1).repeat(len(windows), axis=0)
        if only is not None:
            return parts, self._placed(clips, windows[0])
        crops = [_cut(clips, window.crop) for window in windows]
        return parts, np.stack(crops, axis=1).reshape(-1, *self.spec.shape)

    def timeline(self, record: VideoRecord, step: float) -> np.ndarray:
        """Centre times (N,) in seconds of clips every `step` seconds over a video.

        Raises:
            DecodeError: the video gives no frames.
        """
        first, last, _ = self.span(record)
        room = max(0.0, last - first - self.spec.span)
        starts = first + np.arange(int(room / step + 1e-9) + 1) * step
        return starts + min(self.spec.span, last - first) / 2

    def clips_around(self, record: VideoRecord, centres: np.ndarray) -> Iterator[np.ndarray]:
        """Clips in the middle of which given times are, as far as the video reaches, in blocks.

        Blocks (at most 16, T, H, W, C) are decoded one after the other: memory does not grow with
        the video's length.

        Args:
            record: of the video.
            centres: (N,) seconds, in order.

        Raises:
            DecodeError: the video gives no frames.
        """
        first, last, _ = self.span(record)
        latest = max(first, last - self.spec.span)
        return self.clips_at(record, np.clip(centres - self.spec.span / 2, first, latest), last)

    def clips_at(
        self, record: VideoRecord, starts: np.ndarray, end: float, block_size: int = _BLOCK
    ) -> Iterator[np.ndarray]:
        """Clips that begin at given seconds, in order, none of them going past `end`.

        Flow is kept on the way, since neighbouring clips overlap.

        Yields:
            (at most `block_size`, T, H, W, C), centre crop.

        Raises:
            DecodeError: the video gives no frames.
        """
        with self._open(record) as reader:
            picture = reader.info.height, reader.info.width
            window = view_windows(picture, self.spec, 1)[0]
            span = record.start or 0.0, end
            for block in np.array_split(starts, range(block_size, len(starts), block_size)):
                times = self._times(clip_times(block, end, self.spec), span)
                frames = self._read(
                    reader, record, times, window.size, window.crop, end, cover=True
                )
                yield self._placed(frames, window)

    def window(self, record: VideoRecord) -> Window:
        """Which part of the picture `clips_at` shows.

        Raises:
            DecodeError: the video gives no frames.
        """
        with self._open(record) as reader:
            return view_windows((reader.info.height, reader.info.width), self.spec, 1)[0]

    def clips_with_keyframes(
        self,
        record: VideoRecord,
        moments: np.ndarray,
        window_of: Callable[[tuple[int, int]], Window],
    ) -> tuple[np.ndarray, Window]:
        """Clips whose frame T // 2 is that at given moments.

        Where a clip would begin before the video or go on after it, the first or the last frame is
        held; a clip of flow is moved inwards instead.

        Args:
            record: of the video.
            moments: (N,) seconds, rising.
            window_of: chooses the part of a picture of (height, width).

        Returns:
            (N, T, H, W, C), and the part.

        Raises:
            DecodeError: the video gives no frames, or ends before one of the moments.
        """
        spec = self.spec
        with self._open(record) as reader:
            span = self._span(record, reader.info.duration)
            if (beyond := moments[moments > span[1]]).size:
                reason = f"{beyond[0]:g} s is asked for, but it lasts {span[1]:.2f} s"
                raise DecodeError(record.path, "too_short", reason)
            offsets = (np.arange(spec.num_frames) - spec.num_frames // 2) / spec.frame_rate
            times = np.clip(moments[:, None] + offsets, span[0], max(span[0], span[1] - BEFORE_END))
            window = window_of((reader.info.height, reader.info.width))
            frames = self._read(
                reader, record, self._times(times, span), window.size, window.crop, span[1]
            )
        return self._placed(frames, window), window

    def span(self, record: VideoRecord) -> tuple[float, float, LabelTrack | None]:
        """Beginning and end of a record in seconds, and its labels over time.

        Raises:
            DecodeError: the video gives no frames, or its labels do not fit it.
        """
        with self._open(record) as reader:
            first, last = self._span(record, reader.info.duration)
            return first, last, self.track(record, reader)

    def thumbnails(self, record: VideoRecord, count: int = 3, side: int = 192) -> np.ndarray:
        """Whole pictures from over the video, (count, h, w, 3) uint8, h and w at most `side`.

        Raises:
            DecodeError: the video gives no frames.
        """
        with self._open(record) as reader:
            first, last = self._span(record, reader.info.duration)
            times = first + (np.arange(count) + 0.5) / count * (last - first)
            scale = side / max(reader.info.height, reader.info.width)
            size = [
                max(1, round(pixels * scale)) for pixels in (reader.info.height, reader.info.width)
            ]
            return reader.read(times, size=(size[0], size[1]))

    def _times(self, times: np.ndarray, span: tuple[float, float]) -> np.ndarray:
        return times if self.flow is None else on_grid(times, span, self.spec)

    def _read(
        self,
        video: Any,
        record: VideoRecord,
        times: np.ndarray,
        size: tuple[int, int],
        crop: tuple[int, int, int, int] | None,
        end: float,
        cover: bool = False,
    ) -> np.ndarray:
        """The clips (..., h, w, C) at times (...) of an open video."""
        if self.flow is None:
            frames = video.read(times.ravel(), size=size, crop=crop)
            return frames.reshape(*times.shape, *frames.shape[1:])
        flow = dataclasses.replace(self.flow, cover=True) if cover else self.flow
        return flow.read(video, record.path, times, end, size, crop or (0, 0, *size))

    def _read_several(
        self,
        video: Any,
        record: VideoRecord,
        times: Sequence[np.ndarray],
        windows: Sequence[Window],
        end: float,
    ) -> list[np.ndarray]:
        """Clips at times (T,) each, in one pass where they are pictures and the decoder can."""
        pairs = list(zip(times, windows, strict=True))
        if len(pairs) > 1 and self.flow is None and hasattr(video, "read_all"):
            return video.read_all([Pictures(when, w.size, w.crop) for when, w in pairs])
        return [self._read(video, record, when, w.size, w.crop, end) for when, w in pairs]

    def _open(self, record: VideoRecord) -> Any:
        opener = self.opener if "://" in record.path else None
        if is_stored(record.path):  # of a shard, whatever decodes files
            return StoredVideoReader(record.path, opener)
        return self.open_video(record.path, opener=opener)

    def _span(self, record: VideoRecord, duration: float) -> tuple[float, float]:
        try:
            return clip_span(record.start, record.end, duration)
        except DataError as error:
            raise DecodeError(record.path, "too_short", str(error)) from error

    def _placed(self, frames: np.ndarray, window: Window) -> np.ndarray:
        """(..., h, w, C) in the clip's (..., H, W, C); what is left free is grey, without flow."""
        height, width = self.spec.size
        if frames.shape[-3:-1] == (height, width):
            return frames
        blank = np.full(frames.shape[-1], GREY, frames.dtype)
        if self.spec.has_flow:
            blank[-2:] = 0
        canvas = np.broadcast_to(blank, (*frames.shape[:-3], height, width, len(blank))).copy()
        top, left = window.place
        canvas[..., top : top + frames.shape[-3], left : left + frames.shape[-2], :] = frames
        return canvas


def _cut(frames: np.ndarray, crop: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = crop
    return frames[..., top : top + height, left : left + width, :]


def iterate_views(
    records: Iterable[VideoRecord], reader: ClipReader, views: Views, workers: int
) -> Iterator[np.ndarray | DecodeError]:
    """The views of each video, decoded once, in the order of the records; or its error."""
    return _each_video(lambda record: reader.views(record, views), records, reader, views, workers)


def iterate_timed_views(
    records: Iterable[VideoRecord], reader: ClipReader, views: Views, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray] | DecodeError]:
    """As `iterate_views`, with each view's beginning and end (see `ClipReader.timed_views`)."""
    return _each_video(
        lambda record: reader.timed_views(record, views), records, reader, views, workers
    )


def _each_video(
    read: Callable[[VideoRecord], Result],
    records: Iterable[VideoRecord],
    reader: ClipReader,
    views: Views,
    workers: int,
) -> Iterator[Result | DecodeError]:
    def load(record: VideoRecord) -> Result | DecodeError:
        try:
            return read(record)
        except DecodeError as error:
            return error

    spec = reader.spec
    video_bytes = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize * len(views)
    ahead = max(1, min(2 * workers, MAX_AHEAD_BYTES // video_bytes))
    return ordered_map(load, records, min(workers, ahead), ahead)
