"""The temporal-shift test: does a model still know what it sees when it comes a little later?

A 3D convolution has the same kernel at all times; early fusion needs one for each. So the accuracy
of early fusion falls when what happens is moved in time, and that of a 3D network does not (the
lecture's comparison of the two).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kvideo.data.clip_reader import ClipReader
from kvideo.data.records import VideoSet
from kvideo.data.sampling import Window, view_windows
from kvideo.errors import DataError, DecodeError, UsageError
from kvideo.inference import Predictor


@dataclasses.dataclass(frozen=True, eq=False)
class ShiftTest:
    """Accuracy against shift.

    Attributes:
        name: of the model.
        shifts: (S,) frames of the clip, rising; below 0 the clip begins earlier.
        accuracy: (S,) shares of the videos.
        num_videos: how many could be read.
        failures: sentences about the others.
    """

    name: str
    shifts: np.ndarray
    accuracy: np.ndarray
    num_videos: int
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.name,
            "shifts": self.shifts.tolist(),
            "accuracy": self.accuracy.tolist(),
            "videos": self.num_videos,
            "failures": list(self.failures),
        }


def shift_test(
    model: keras.Model,
    name: str,
    videos: VideoSet,
    reader: ClipReader,
    shifts: Sequence[int],
    *,
    on_video: Callable[[int], None] | None = None,
) -> ShiftTest:
    """Tests a classifier on one clip of each video, moved in time.

    Without a shift the clip lies in the video's middle. Where a moved clip would reach beyond the
    video's ends, its first or last frame is held.

    Args:
        model: gives probabilities (B, C), or for each frame, of which the mean counts.
        name: for the result.
        videos: with labels.
        reader: reads clips as the model takes them.
        shifts: frames of the clip.
        on_video: is called after each video with 1.

    Raises:
        UsageError: no shift.
        DataError: no video can be read.
    """
    if not len(shifts):
        raise UsageError("there must be at least one shift.")
    predictor = Predictor(model)

    def whole(picture: tuple[int, int]) -> Window:
        return view_windows(picture, reader.spec, 1)[0]

    offsets = np.asarray(sorted(set(shifts)))
    right, failures = [], []
    for record in videos.records:
        try:
            first, last, _ = reader.span(record)
            moments = (first + last) / 2 + offsets / reader.spec.frame_rate
            clips, _ = reader.clips_with_keyframes(record, np.clip(moments, first, last), whole)
        except DecodeError as error:
            failures.append(str(error))
            continue
        scores = predictor(clips)
        if scores.ndim == 3:
            scores = scores.mean(axis=1)
        right.append(np.isin(scores.argmax(axis=1), record.labels))
        if on_video is not None:
            on_video(1)
    if not right:
        raise DataError(f"no video can be read. The first: {failures[0]}")
    return ShiftTest(name, offsets, np.mean(right, axis=0), len(right), tuple(failures))
