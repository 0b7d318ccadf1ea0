"""Clips around annotated moments, with the boxes of the actors that are seen there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from kvideo.data.actors import Actor, ActorSet
from kvideo.data.between import Between
from kvideo.data.boxes import boxes_in_clip, clipped
from kvideo.data.clip_reader import ClipReader
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.sampling import Window, random_window, view_windows
from kvideo.data.threads import MAX_AHEAD_BYTES, ordered_map
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import DecodeError

# The first number of a row of `KeyframeClips`' labels: nobody; an actor; one who is mostly cut off.
NOBODY, ACTOR, HIDDEN = 0.0, 1.0, 2.0
# Where the other numbers are: the true box, the box that actions are learnt in, the classes.
BOX, SHOWN, ACTIONS = slice(1, 5), slice(5, 9), slice(9, None)
_BLOCK = 8  # moments decoded at once


@dataclasses.dataclass(frozen=True, slots=True)
class Keyframe(VideoRecord):
    """One annotated moment of a video.

    Args:
        time: seconds from the video's beginning.
        actors: who is there.
    """

    time: float = 0.0
    actors: tuple[Actor, ...] = ()

    def identity(self) -> tuple:
        """See `VideoRecord`."""
        return (*VideoRecord.identity(self), self.time, self.actors)


@dataclasses.dataclass(frozen=True)
class KeyframeSet(VideoSet):
    """Annotated moments, a `Keyframe` each.

    Args:
        numbers: what stands for the classes in AVA's files.
    """

    numbers: tuple[int, ...] = ()


def keyframes(actors: ActorSet) -> KeyframeSet:
    """The annotated moments whose videos are there as records, without those left out of tests."""
    records = [
        Keyframe(
            actors.paths[video],
            tuple(sorted({label for actor in found for label in actor.labels})),
            group=video,
            time=time,
            actors=found,
        )
        for (video, time), found in actors.frames.items()
        if video in actors.paths and (video, time) not in actors.excluded
    ]
    return KeyframeSet(
        tuple(records),
        actors.class_names,
        multi_label=True,
        source=actors.source,
        notes=actors.notes,
        numbers=actors.numbers,
    )


def thinned(videos: KeyframeSet, seconds: float) -> KeyframeSet:
    """The moments of each video that are at least so far apart, the first one first."""
    last: dict[str, float] = {}
    kept = []
    for number, record in enumerate(videos.records):
        time = record.time if isinstance(record, Keyframe) else 0.0
        if time - last.get(record.path, -np.inf) >= seconds - 1e-6:
            last[record.path] = time
            kept.append(number)
    return dataclasses.replace(videos, records=tuple(videos.records[number] for number in kept))


@dataclasses.dataclass
class KeyframeClips(TrainingClips):
    """Clips around the moments of `keyframes`, whose labels are boxes with actions.

    The labels of a clip are (N, 9 + C) float32, a row for each actor: whether there is one
    (`NOBODY`, `ACTOR`, `HIDDEN`); x1, y1, x2, y2 as fractions of the clip (`BOX`); the same moved a
    little at random (`SHOWN`); and 1 for each of its C classes (`ACTIONS`). N is the largest number
    of actors in a moment. Of a clip that only fills up a batch all numbers are -1.

    Args:
        jitter: share of a box's width and height by which its sides are moved, at most.
        mirror: whether half of the clips are mirrored, boxes included; `augmentation.flip`, which
            knows nothing of boxes, must be off.
        shift: seconds by which a labelled moment is moved, at most, where `Between` knows who is
            there; in steps of the clip's frames.
    """

    jitter: float = 0.1
    mirror: bool = False
    shift: float = 0.0

    def __post_init__(self) -> None:
        self._between = Between(self._keyframes if self.shift else ())

    @property
    def label_element(self) -> tuple[tuple[int, ...], str]:
        """See `TrainingClips`."""
        rows = max((len(record.actors) for record in self._keyframes), default=1)
        return (max(1, rows), ACTIONS.start + len(self.videos.class_names)), "float32"

    @property
    def _keyframes(self) -> Sequence[Keyframe]:
        return self.videos.records  # type: ignore[return-value]

    def read(
        self, record: VideoRecord, rngs: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Random clips around a moment, each with its labels; see the class."""
        if not isinstance(record, Keyframe):
            raise TypeError("KeyframeClips are made of the records that keyframes() gives")
        found: list[tuple[np.ndarray, np.ndarray | None]] = []
        for rng in rngs:

            def window_of(picture: tuple[int, int], rng: np.random.Generator = rng) -> Window:
                return random_window(picture, self.reader.spec, self.augmentation, rng)

            time, actors = record.time, record.actors
            if self.shift:
                rate = self.reader.spec.frame_rate
                seconds = round(rng.uniform(-self.shift, self.shift) * rate) / rate
                time, actors = self._between.moved(record, seconds)
            clips, window = self.reader.clips_with_keyframes(record, np.array([time]), window_of)
            mirrored = self.mirror and rng.random() < 0.5
            clip = mirror_clip(clips[0], self.reader.spec.has_flow) if mirrored else clips[0]
            found.append((clip, self._rows(actors, window, mirrored, rng)))
        return found

    def _rows(
        self,
        actors: Sequence[Actor],
        window: Window,
        mirrored: bool,
        rng: np.random.Generator,
    ) -> np.ndarray:
        rows = np.zeros(self.label_element[0], np.float32)
        boxes, seen = boxes_in_clip(
            np.array([actor.box for actor in actors]), window, self.reader.spec.size,
            mirrored=mirrored,
        )  # fmt: skip
        for row, actor, box, visible in zip(rows, actors, boxes, seen, strict=False):
            row[0] = ACTOR if visible else HIDDEN
            row[BOX] = box
            sizes = np.tile(box[2:] - box[:2], 2)
            row[SHOWN] = clipped(box + rng.uniform(-self.jitter, self.jitter, 4) * sizes)
            row[[ACTIONS.start + label for label in actor.labels]] = 1
        return rows


def mirror_clip(clip: np.ndarray, has_flow: bool) -> np.ndarray:
    """(..., W, C) mirrored from left to right; the x of flow changes its sign."""
    mirrored = clip[..., ::-1, :].copy()
    if has_flow:
        mirrored[..., -2] *= -1
    return mirrored


@dataclasses.dataclass(frozen=True, eq=False)
class KeyframeBlock:
    """Clips around some neighbouring moments of a video, or why there are none.

    Attributes:
        index: number of the record.
        times: (n,) seconds; without those that lie beyond the video's end.
        clips: (n, T, H, W, C); None if they could not be read.
        window: how the picture lies in a clip.
        error: the reason, or why some of the moments are missing.
    """

    index: int
    times: np.ndarray
    clips: np.ndarray | None = None
    window: Window | None = None
    error: DecodeError | None = None


def keyframe_blocks(
    videos: Iterable[tuple[VideoRecord, Sequence[float]]], reader: ClipReader, workers: int
) -> Iterator[KeyframeBlock]:
    """Clips around moments of videos, in order, at test-time framing; memory does not grow.

    Args:
        videos: records and the moments wanted of each, in seconds, rising.
        reader: reads clips as a model takes them.
        workers: decoding threads.
    """

    def pieces() -> Iterator[tuple[int, VideoRecord, np.ndarray]]:
        for index, (record, times) in enumerate(videos):
            moments = np.asarray(times, np.float64)
            for first in range(0, len(moments), _BLOCK):
                yield index, record, moments[first : first + _BLOCK]

    def load(piece: tuple[int, VideoRecord, np.ndarray]) -> KeyframeBlock:
        index, record, times = piece
        try:
            clips, window = reader.clips_with_keyframes(record, times, _whole(reader))
        except DecodeError as error:
            if error.reason == "too_short" and len(times) > 1:
                return _joined([load((index, record, each)) for each in times[:, np.newaxis]])
            return KeyframeBlock(index, times, error=error)
        return KeyframeBlock(index, times, clips, window)

    size = _BLOCK * int(np.prod(reader.spec.shape)) * np.dtype(reader.spec.dtype).itemsize
    ahead = max(workers, min(2 * workers, MAX_AHEAD_BYTES // size))
    return ordered_map(load, pieces(), workers, ahead)


def _joined(blocks: Sequence[KeyframeBlock]) -> KeyframeBlock:
    """Blocks of one moment each as one, with the error of those that are missing."""
    error = next((block.error for block in blocks if block.error is not None), None)
    there = [block for block in blocks if block.clips is not None]
    if not there:
        return dataclasses.replace(blocks[0], error=error)
    return KeyframeBlock(
        blocks[0].index,
        np.concatenate([block.times for block in there]),
        np.concatenate([np.asarray(block.clips) for block in there]),
        there[0].window,
        error,
    )


def _whole(reader: ClipReader) -> Callable[[tuple[int, int]], Window]:
    return lambda picture: view_windows(picture, reader.spec, 1)[0]


def moments_of(duration: float, step: float) -> np.ndarray:
    """Moments every `step` seconds over a video, from its beginning, (N,), N at least 1."""
    return np.arange(max(1, int(np.ceil(duration / step - 1e-6)))) * step
