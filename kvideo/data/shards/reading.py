"""Opens the videos of shards, as `kvideo.data.decode.open_video` opens files."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from kvideo.data.decode import Pictures, VideoInfo, VideoReader
from kvideo.data.listing import is_url
from kvideo.data.shards.layout import parent, read_index, split_stored
from kvideo.data.shards.messages import encoded_frames
from kvideo.errors import DataError, DecodeError, UsageError

# A stored frame that begins up to 1 ms later than asked is taken, as of files.
_TOLERANCE_SECONDS = 1e-3


class StoredVideoReader(VideoReader):
    """An open record of a shard; only the frames asked for are decoded.

    Its pictures are the stored ones: their shape is `info.height` × `info.width`, time 0 is the
    first stored frame.

    Args:
        path: `….tfrecord#17`.
        opener: opens URL-like paths.

    Raises:
        DecodeError: the record is missing, cut off or damaged.
    """

    def __init__(self, path: str, opener: Callable[[str], BinaryIO] | None = None) -> None:
        self._path, self._opener = path, opener
        self._source, self._file = None, None
        shard, _ = split_stored(path)
        try:
            _, stored = read_index(parent(shard), opener).find(path)
        except DataError as error:
            raise DecodeError(path, "missing", str(error)) from error
        record = self._read_record(shard, stored.offset, stored.length)
        if len(record) < stored.length:
            raise DecodeError(path, "truncated", "the shard is cut off before the record's end")
        if zlib.crc32(record) != stored.crc32:
            raise DecodeError(path, "damaged", "the record's checksum is wrong: it has changed")
        try:
            self._frames: list[memoryview] | None = encoded_frames(record)
        except ValueError as error:
            raise DecodeError(path, "damaged", f"the record cannot be read ({error})") from error
        self.info = VideoInfo(
            path=path,
            width=stored.width,
            height=stored.height,
            frame_rate=stored.frame_rate,
            duration=stored.duration,
            num_frames=stored.frames,
            codec="mjpeg",
            pixel_format="yuvj420p",
        )

    def close(self) -> None:
        """Frees the record; harmless when done before."""
        self._frames = None

    def read_all(self, requests: Sequence[Pictures]) -> list[np.ndarray]:
        """See `VideoReader.read_all`."""
        return [self._read_one(request) for request in requests]

    def frame_times(self) -> np.ndarray:
        """Presentation times of all frames, in seconds from the first."""
        return np.arange(len(self._stored())) / self.info.frame_rate

    def frames(self, *, size: tuple[int, int] | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """See `VideoReader.frames`."""
        _, _, height, width = self._window(size, None)
        for number in range(len(self._stored())):
            picture = self._decode(number, (height, width))
            yield number / self.info.frame_rate, picture

    def _read_one(self, request: Pictures) -> np.ndarray:
        top, left, rows, columns = self._window(request.size, request.crop)
        size = request.size or (self.info.height, self.info.width)
        seconds = np.asarray(request.times, np.float64).reshape(-1)
        if np.isnan(seconds).any():
            raise UsageError("times must be numbers of seconds; got NaN")
        tolerance = min(_TOLERANCE_SECONDS, 0.25 / self.info.frame_rate)
        last = len(self._stored()) - 1
        numbers = np.floor((seconds + tolerance) * self.info.frame_rate)
        numbers = np.clip(numbers, 0, last).astype(int)
        clip = np.empty((len(numbers), rows, columns, 3), np.uint8)
        done: dict[int, int] = {}
        for row, number in enumerate(numbers.tolist()):
            if number in done:
                clip[row] = clip[done[number]]
                continue
            picture = self._decode(number, size)
            clip[row] = picture[top : top + rows, left : left + columns]
            done[number] = row
        return clip

    def _decode(self, number: int, size: tuple[int, int]) -> np.ndarray:
        """One frame as RGB, resized to (height, width)."""
        import cv2

        picture = cv2.imdecode(
            np.frombuffer(self._stored()[number], np.uint8),
            cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
        )
        if picture is None or picture.shape[:2] != (self.info.height, self.info.width):
            raise DecodeError(self._path, "damaged", f"frame {number} cannot be decoded")
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        height, width = size
        if picture.shape[:2] == size:
            return picture
        # The mean over an area does not alias where pictures shrink; it is no filter for growing.
        shrinks = height <= picture.shape[0] and width <= picture.shape[1]
        return cv2.resize(
            picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )

    def _stored(self) -> list[memoryview]:
        if self._frames is None:
            raise UsageError(f"{self._path}: the reader is closed; open the video again")
        return self._frames

    def _read_record(self, shard: str, offset: int, length: int) -> bytes:
        remote = is_url(shard)
        if not remote and not os.path.exists(shard):
            raise DecodeError(self._path, "missing", f"there is no file {shard}")
        try:
            if remote and self._opener is None:
                raise DecodeError(self._path, "unreadable", "it cannot be opened here")
            with self._opener(shard) if remote and self._opener else open(shard, "rb") as file:
                file.seek(offset)
                return file.read(length)
        except DecodeError:
            raise
        except Exception as error:  # of whatever library stands behind the opener
            text = getattr(error, "strerror", None) or str(error)
            raise DecodeError(self._path, "unreadable", text) from error
