"""`tf.data` pipelines over videos: batches of clips and labels."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import VideoRecord, VideoSet, read_data
from kvideo.data.clip_flow import ClipFlow
from kvideo.data.clip_reader import ClipReader
from kvideo.data.failures import Failures
from kvideo.data.flow_cache import FlowCache
from kvideo.data.remote import list_remote, open_remote
from kvideo.data.sampling import Augmentation
from kvideo.data.shares import WHOLE, Share
from kvideo.data.threads import default_workers, ordered_map
from kvideo.data.training_clips import TrainingClips
from kvideo.data.transforms import augment_clip
from kvideo.errors import DataError, DecodeError
from kvideo.registry import get_decoder


def clip_reader(spec: ClipSpec, decoder: str = "pyav", *, keep_flow: bool = False) -> ClipReader:
    """A reader of clips as `spec` says, with the decoder of that name.

    Args:
        spec: what a clip is.
        decoder: the name of a `kvideo.decoders` entry point.
        keep_flow: whether the optical flow of whole videos is computed and kept, for videos that
            are read again and again; see `ClipFlow`.

    Raises:
        UnknownNameError: there is no such decoder.
        PluginLoadError: it cannot be imported.
    """
    flow = None
    if spec.has_flow:
        flow = ClipFlow(spec, FlowCache(spec.flow, opener=open_remote), keep_flow)
    return ClipReader(spec, get_decoder(decoder), open_remote, flow)


def clip_readers(specs: Sequence[ClipSpec], decoder: str = "pyav") -> list[ClipReader]:
    """A reader for each of several kinds of clips of the same videos, see `clip_reader`.

    Where several are of flow, it is computed once, and kept.
    """
    several = sum(spec.has_flow for spec in specs) > 1
    return [clip_reader(spec, decoder, keep_flow=several) for spec in specs]


def batches(
    clips: TrainingClips,
    rows: int,
    begin: Callable[[], tuple[int, Iterable[int] | None]],
    *,
    full: bool = False,
) -> tf.data.Dataset:
    """Random clips as a dataset of (clips, labels): mostly (B, T, H, W, C).

    Labels are (B,) int32; (B, num_classes) float32 for multi-label sets; (B, T) int32, -1 where
    nothing is known, for sets with labels over time.

    The same dataset serves for all epochs: TensorFlow does not give back all the memory of a
    dataset that is made anew for each.

    Args:
        clips: where clips come from.
        rows: clips in a batch.
        begin: says at the beginning of each iteration which epoch it is, and which of its places
            come; see `TrainingClips.epoch`.
        full: whether all batches will be full.
    """
    shape, dtype = clips.element
    dataset = tf.data.Dataset.from_generator(
        lambda: clips.epoch(*begin()),
        output_signature=(
            tf.TensorSpec(shape, dtype),
            tf.TensorSpec(*clips.label_element),
            tf.TensorSpec((2,), tf.int32),
        ),
    )

    def prepare(clip, label, seed):
        if clips.modality is not None:
            clip = augment_clip(clip, seed, clips.augmentation, clips.modality)
        return clip, label

    dataset = dataset.map(
        prepare,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    dataset = dataset.batch(rows, drop_remainder=full)
    options = tf.data.Options()
    # The clips come from one Python generator: there are no files to share out.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(2).with_options(options)


class ClipSource(Protocol):
    """Where a training loop's batches come from.

    Attributes:
        failures: the videos that could not be read.
    """

    failures: Failures

    @property
    def error(self) -> Exception | None:
        """What ended the last iteration early."""

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""

    def batches(
        self, batch_size: int, *, epoch: int, first_batch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """The rest of an epoch, in full batches, of which one process reads its share.

        A last batch is filled up with clips whose labels are -1, which do not count. To be
        iterated before the next call.

        Args:
            batch_size: clips in a step, over all devices.
            epoch: its number, from 0.
            first_batch: batches at its beginning to leave out.
            share: which rows of each batch, and in how many pieces.

        Returns:
            Dataset of (clips, labels) of `batch_size` / `share.parts` rows; for each step as many
            elements as `share.pieces`.
        """


class VideoSource:
    """Random clips of video files, decoded by threads of this process.

    Args:
        clips: which ones.
    """

    def __init__(self, clips: TrainingClips) -> None:
        self.clips, self.failures = clips, clips.failures
        self._datasets: dict[int, tf.data.Dataset] = {}
        self._next: dict[int, tuple[int, list[int]]] = {}

    @property
    def error(self) -> Exception | None:
        """What ended the last iteration early."""
        return self.clips.error

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""
        return self.clips.num_clips

    def batches(
        self, batch_size: int, *, epoch: int, first_batch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """See `ClipSource`."""
        num_batches = math.ceil(self.num_clips / batch_size)
        rows = batch_size // share.parts
        self._next[rows] = epoch, list(share.places(batch_size, first_batch, num_batches))
        if rows not in self._datasets:
            self._datasets[rows] = batches(self.clips, rows, lambda: self._next[rows], full=True)
        return self._datasets[rows]


def clip_dataset(
    data: Any,
    spec: ClipSpec,
    *,
    batch_size: int = 8,
    per_frame: bool = False,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int | None = None,
    strict: bool = False,
    decoder: str = "pyav",
) -> tf.data.Dataset:
    """A plain dataset of (clip, label) batches, for `model.fit(dataset)`.

    Each iteration is another epoch: another order and other random clips, all determined by
    `seed`. Cardinality is the number of batches; a last batch that is not full is kept.

    Args:
        data: anything that `kvideo.data.read_data` takes, or a `VideoSet`; videos without a label
            are left out.
        spec: what a clip is.
        batch_size: clips in a batch.
        per_frame: read labels over time, see `kvideo.data.read_data`.
        augmentation: random changes; by default the usual ones, without mirroring where the data
            set says that direction carries the label.
        seed: determines order, clips and changes.
        workers: decoding threads; by default as many as processors.
        strict: end with an error at the first video that fails, instead of replacing it.
        decoder: the name of a `kvideo.decoders` entry point.

    Returns:
        Dataset of ((B, T, H, W, 3) uint8 in 0..255, labels (B,) int32 or (B, C) float32 or, with
        labels over time, (B, T) int32, -1 where nothing is known). Clips with flow (see
        `ClipSpec.modality`) are float32; that of each video is computed once, and kept.

    Raises:
        DataError: no labelled videos.
    """
    videos = (
        data
        if isinstance(data, VideoSet)
        else read_data(data, per_frame=per_frame, listdir=list_remote, opener=open_remote)
    )
    labelled = tuple(record for record in videos.records if record.labels)
    if not labelled:
        raise DataError(f"{videos.source or 'the data set'} has no labelled videos.")
    videos = dataclasses.replace(videos, records=labelled)
    if augmentation is None:
        augmentation = Augmentation(flip=videos.flip_safe)
    clips = TrainingClips(
        videos,
        clip_reader(spec, decoder, keep_flow=True),
        augmentation,
        seed=seed,
        workers=workers or default_workers(),
        strict=strict,
    )
    epochs = itertools.count()
    dataset = batches(clips, batch_size, lambda: (next(epochs), None))
    number = math.ceil(clips.num_clips / batch_size)
    return dataset.apply(tf.data.experimental.assert_cardinality(number))


def class_counts(videos: VideoSet) -> np.ndarray:
    """Videos of each class, (num_classes,) int."""
    counts = np.zeros(len(videos.class_names), int)
    for record in videos.records:
        counts[list(record.labels)] += 1
    return counts


def class_shares(videos: VideoSet, reader: ClipReader, workers: int = 2) -> np.ndarray:
    """How much of the labelled time is of each class, (num_classes,), for labels over time.

    Every video counts alike, since each gives one clip an epoch: the sum over the videos of the
    share of its labelled time. Each file is opened once; those that cannot be read do not count.
    """
    classes = len(videos.class_names)
    each = ordered_map(
        lambda record: _seconds(record, reader, classes), videos.records, workers, 2 * workers
    )
    return sum((s / max(s.sum(), 1e-9) for s in each), start=np.zeros(classes))


def _seconds(record: VideoRecord, reader: ClipReader, num_classes: int) -> np.ndarray:
    try:
        first, last, track = reader.span(record)
    except DecodeError:
        return np.zeros(num_classes)
    return np.zeros(num_classes) if track is None else track.seconds(num_classes, last - first)
