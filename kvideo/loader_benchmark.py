"""Where the time of loading clips goes, and how many threads should do it.

Two measurements over the way that `kvideo fit` takes. First each stage by itself, one clip after
the other in one thread; then the whole of it, with more and more decoding threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvideo.benchmarking import load_before, much_load
from kvideo.clip_spec import ClipSpec
from kvideo.data.clip_reader import ClipReader
from kvideo.data.failures import Failures
from kvideo.data.pipeline import batches
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.sampling import Augmentation
from kvideo.data.shards.layout import is_stored
from kvideo.data.threads import default_workers
from kvideo.data.timing import (
    CONVERT,
    DECODE,
    FLOW,
    OPEN,
    READ,
    SEEK,
    Stopwatch,
    TimedFlow,
    timed,
)
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import DataError, DecodeError, UsageError

TRANSFORM, BATCH, OTHER = "transform", "batch", "other"
STAGES = (READ, OPEN, SEEK, DECODE, CONVERT, FLOW, TRANSFORM, BATCH, OTHER)
_WORTH = 0.9  # of the best speed: more threads than that takes are not suggested
_KEPT_BYTES = 256 * 2**20
_KEPT_CLIPS = 32
_ROUNDS = 3
_STEADY = 4096  # clips in an epoch of a measurement, so that starting it does not count
_LARGE = 2.0  # short side of a picture over the clip's


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Clips and frames per second with a number of decoding threads."""

    workers: int
    clips_per_second: float
    frames_per_second: float


@dataclasses.dataclass(frozen=True)
class LoaderResult:
    """Where the time goes.

    Args:
        source: the data.
        num_videos: in it.
        clip_spec: what a clip is.
        batch_size: clips in a batch.
        picture: (height, width) that most videos have.
        num_clips: that were read one by one.
        stages: seconds of one clip in each stage, in one thread; those that took none are left out.
        frames_decoded: for each frame that a clip shows; None where the decoder does not tell.
        throughput: with more and more threads.
        failures: the videos that could not be read.
        load: programs that wanted to run, on average over the minute before; None: nobody tells.
    """

    source: str
    num_videos: int
    clip_spec: ClipSpec
    batch_size: int
    picture: tuple[int, int]
    num_clips: int
    stages: dict[str, float]
    frames_decoded: float | None
    throughput: tuple[Throughput, ...]
    failures: tuple[DecodeError, ...]
    load: float | None = None

    @property
    def disturbed(self) -> bool:
        """Whether other programs were at work, which makes all figures too slow."""
        return much_load(self.load)

    @property
    def seconds(self) -> float:
        """Of one clip, in one thread."""
        return sum(self.stages.values())

    @property
    def dominant(self) -> str:
        """The stage that takes the most time."""
        return max(self.stages, key=lambda name: self.stages[name])

    @property
    def workers(self) -> int:
        """The fewest threads that come near the best speed."""
        best = max(each.clips_per_second for each in self.throughput)
        return next(t.workers for t in self.throughput if t.clips_per_second >= _WORTH * best)

    @property
    def advice(self) -> str:
        """What takes most of the time, and what to do about it."""
        share = self.stages[self.dominant] / self.seconds
        return f"{_PHRASES[self.dominant]} takes {share:.0%} of the time. {self._remedy()}"

    def _remedy(self) -> str:
        spec, ratio = self.clip_spec, self.frames_decoded or 1.0
        height, width = self.picture
        side = min(height, width)
        if self.dominant == SEEK:
            return (
                f"{ratio:.1f} frames are decoded for each one that a clip shows. Key frames that "
                "are closer together help (`ffmpeg -g 12`), and so does `kvideo shard`."
            )
        enough = max(spec.test_short_side, round(1.5 * min(spec.size)))
        if self.dominant in (DECODE, CONVERT) and side > _LARGE * min(spec.size) and side > enough:
            return (
                f"The pictures are {width}×{height}, the clips {spec.size[1]}×{spec.size[0]}: a "
                f"short side of {enough} would do (`kvideo shard`, or `ffmpeg -vf scale`)."
            )
        if self.dominant == DECODE and ratio >= 2:
            return (
                f"{ratio:.1f} frames are decoded for each one that a clip shows; `kvideo shard` "
                "keeps only the frames that clips show."
            )
        if self.dominant == FLOW:
            return f"`kvideo flow DATA --frame-rate {spec.frame_rate:g}` does it beforehand."
        return _REMEDIES[self.dominant]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "data": self.source,
            "num_videos": self.num_videos,
            "clip_spec": self.clip_spec.to_json(),
            "batch_size": self.batch_size,
            "picture": list(self.picture),
            "num_clips": self.num_clips,
            "ms_per_clip": {name: round(1000 * s, 4) for name, s in self.stages.items()},
            "shares": {name: round(s / self.seconds, 4) for name, s in self.stages.items()},
            "frames_decoded_per_frame": self.frames_decoded and round(self.frames_decoded, 3),
            "throughput": [
                {
                    "workers": each.workers,
                    "clips_per_s": round(each.clips_per_second, 3),
                    "frames_per_s": round(each.frames_per_second, 2),
                }
                for each in self.throughput
            ],
            "dominant": self.dominant,
            "suggested_workers": self.workers,
            "advice": self.advice,
            "load_before": self.load and round(self.load, 2),
            "failures": [str(error) for error in self.failures],
        }


_PHRASES = {
    READ: "Reading the files",
    OPEN: "Opening the files",
    SEEK: "Getting to a clip's first frame",
    DECODE: "Decoding",
    CONVERT: "Turning frames into RGB pictures of the clip's size",
    FLOW: "Optical flow",
    TRANSFORM: "Changing the clips at random",
    BATCH: "Putting clips together",
    OTHER: "Choosing and copying",
}
_REMEDIES = {
    READ: "A local disk helps, and `kvideo shard`, since shards are read from end to end.",
    OPEN: "`kvideo shard` puts many videos into one file.",
    DECODE: "`kvideo shard` keeps frames that are quick to decode.",
    CONVERT: "Fewer or smaller frames in a clip take less.",
    TRANSFORM: "`--jitter 0` leaves the colours as they are.",
    BATCH: "Smaller clips take less; there is little else to gain.",
    OTHER: "Smaller clips take less; there is little else to gain.",
}


def benchmark_loader(
    videos: VideoSet,
    reader: ClipReader,
    *,
    batch_size: int = 8,
    augmentation: Augmentation | None = None,
    workers: int | None = None,
    seconds: float = 4.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> LoaderResult:
    """Measures the loading of training clips; like `kvideo benchmark loader`.

    Args:
        videos: with or without labels.
        reader: see `kvideo.data.pipeline.clip_reader`.
        batch_size: clips in a batch.
        augmentation: random changes; by default the usual ones.
        workers: the most decoding threads to try; by default twice as many as processors.
        seconds: how long each measurement takes, about.
        seed: determines which clips are read.
        say: takes a line when a measurement begins.

    Raises:
        UsageError: a value out of its range, or stored videos.
        DataError: there are no videos, or none that can be read.
    """
    most = 2 * default_workers() if workers is None else workers
    if most < 1 or batch_size < 1:
        raise UsageError(f"workers and batch_size must be at least 1, not {most} and {batch_size}.")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be a number above 0, not {seconds}.")
    if not videos.records:
        raise DataError(f"{videos.source or 'the data set'} has no videos.")
    if any(is_stored(record.path) for record in videos.records):
        raise UsageError(
            f"{videos.source} holds shards; the stages that are measured are those of video files."
        )
    clips = TrainingClips(
        _labelled(videos),
        reader,
        augmentation or Augmentation(),
        seed=seed,
        failures=Failures(),
    )
    load = load_before()
    say("measuring the stages, in one thread …")
    stopwatch, kept = _one_by_one(clips, seconds)
    number = stopwatch.counts["clips"]
    stages = {name: stopwatch.seconds[name] / number for name in STAGES}
    stages |= _in_tensorflow(clips, kept, batch_size, seconds)
    throughput = []
    for count in worker_counts(most):
        say(f"measuring {count} decoding thread{'s' if count > 1 else ''} …")
        rate = _throughput(dataclasses.replace(clips, workers=count), batch_size, seconds)
        throughput.append(Throughput(count, rate, rate * reader.spec.num_frames))
    decoded, wanted = stopwatch.counts["decoded"], stopwatch.counts["wanted"]
    return LoaderResult(
        source=videos.source,
        num_videos=len(videos.paths),
        clip_spec=reader.spec,
        batch_size=batch_size,
        picture=stopwatch.pictures.most_common(1)[0][0],
        num_clips=number,
        stages={name: stages[name] for name in STAGES if stages[name] > 0},
        frames_decoded=decoded / wanted if decoded and wanted else None,
        throughput=tuple(throughput),
        failures=tuple(clips.failures.errors()),
        load=load,
    )


def worker_counts(most: int) -> list[int]:
    """Numbers of threads to try: powers of two, the processors, and `most` itself."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({min(count, most) for count in (*powers, len(_processors()), most)})


def _processors() -> Any:
    affinity = getattr(os, "sched_getaffinity", None)
    return range(os.cpu_count() or 1) if affinity is None else affinity(0)


def _labelled(videos: VideoSet) -> VideoSet:
    """The videos, each with some label, and over again to the length of a large data set."""
    records = tuple(
        record if record.labels else dataclasses.replace(record, labels=(0,))
        for record in videos.records
    )
    again = math.ceil(_STEADY / len(records))
    names = videos.class_names or ("unlabelled",)
    return dataclasses.replace(videos, records=records * again, class_names=names)


Clip = tuple[np.ndarray, Any, np.ndarray]


@dataclasses.dataclass
class _TimedClips(TrainingClips):
    """Reports what decoding leaves of the time as `OTHER`, and counts clips."""

    stopwatch: Stopwatch = dataclasses.field(default_factory=Stopwatch)

    def read(
        self, record: VideoRecord, rngs: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        with self.stopwatch(OTHER):
            clips = super().read(record, rngs)
        self.stopwatch.counts["clips"] += len(clips)
        return clips


@dataclasses.dataclass
class _ReadyClips(TrainingClips):
    """Clips that are in memory already, again and again."""

    ready: list[Clip] = dataclasses.field(default_factory=list)
    augmented: bool = True

    @property
    def modality(self) -> str | None:
        return super().modality if self.augmented else None

    def epoch(self, epoch: int, places: Iterable[int] | None = None) -> Iterator[Clip]:
        places = range(len(self.videos.records)) if places is None else places
        return (self.ready[place % len(self.ready)] for place in places)


def _fields(clips: TrainingClips) -> dict[str, Any]:
    return {field.name: getattr(clips, field.name) for field in dataclasses.fields(TrainingClips)}


def _one_by_one(clips: TrainingClips, limit: float) -> tuple[Stopwatch, list[Clip]]:
    """Reads clips in one thread for `limit` seconds, at least one.

    Returns:
        The times of the stages, and some of the clips.

    Raises:
        DataError: none can be read.
    """
    for _ in clips.epoch(0, [0]):  # imports, and sets up what later clips find
        break
    stopwatch, reader = Stopwatch(), clips.reader
    flow: Any = None if reader.flow is None else TimedFlow(reader.flow, stopwatch)
    reader = dataclasses.replace(reader, open_video=timed(reader.open_video, stopwatch), flow=flow)
    values = {**_fields(clips), "reader": reader, "workers": 1}
    shape, dtype = clips.element
    room = _KEPT_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize)
    kept: list[Clip] = []
    begun = time.perf_counter()
    elements: Any = _TimedClips(**values, stopwatch=stopwatch).epoch(0)
    with contextlib.closing(elements):  # waits for the thread
        for element in elements:
            if len(kept) < max(1, min(_KEPT_CLIPS, room)):
                kept.append(element)
            if time.perf_counter() - begun > limit:
                break
    return stopwatch, kept


def _in_tensorflow(
    clips: TrainingClips, ready: list[Clip], batch_size: int, limit: float
) -> dict[str, float]:
    """Seconds of a clip for the random changes and for the way into batches, in one thread."""
    alone = tf.data.Options()
    alone.threading.private_threadpool_size = 1
    alone.threading.max_intra_op_parallelism = 1
    seconds = {}
    for augmented in (False, True):
        source = _ReadyClips(**_fields(clips), ready=ready, augmented=augmented)
        dataset = batches(source, batch_size, lambda: (0, None)).with_options(alone)
        rates = [_rate(iter(dataset), limit / (2 * _ROUNDS)) for _ in range(_ROUNDS)]
        seconds[augmented] = 1 / statistics.median(rates) / batch_size
    return {TRANSFORM: max(0.0, seconds[True] - seconds[False]), BATCH: seconds[False]}


def _throughput(clips: TrainingClips, batch_size: int, limit: float) -> float:
    """Clips per second with as many threads as `clips` has."""
    epochs = itertools.count()
    dataset = batches(clips, batch_size, lambda: (next(epochs), None)).repeat()
    try:
        return batch_size * _rate(iter(dataset), limit)
    except tf.errors.OpError as error:  # TensorFlow loses the class of the loader's own error
        raise clips.error or error from error


def _rate(iterator: Iterator[Any], limit: float) -> float:
    """Elements per second, over `limit` seconds or two elements at least, after the first."""
    next(iterator)
    begun = time.perf_counter()
    for number, _ in enumerate(iterator, 1):
        passed = time.perf_counter() - begun
        if passed > limit and number > 1:
            return number / passed
    raise DataError("the data set ended while it was measured.")
