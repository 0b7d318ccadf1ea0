"""Training clips from shards, in TensorFlow's own operations: read, decode, cut, change.

Each record is read by itself, from its place in the file: so an epoch is shuffled over all files
without a buffer, a run is resumed where it was, and a damaged record spoils no other.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.clip_reader import GREY
from kvideo.data.records import VideoSet
from kvideo.data.remote import open_remote
from kvideo.data.sampling import Augmentation
from kvideo.data.shards.examples import FINGERPRINTS, FRAMES, LABELS
from kvideo.data.shards.layout import ShardIndex, parent, read_index, split_stored
from kvideo.data.shards.windows import DRAWS, cut, draw_frames, draw_window
from kvideo.data.tracks import UNLABELLED
from kvideo.data.transforms import augment_clip

_BUFFER = 1 << 20  # bytes read at once
# Records that are read at the same time. A worker of a data service that goes away takes with it
# what it has begun, so it is to begin with fewer.
_READS, _READS_UNORDERED = 16, 4


@dataclasses.dataclass(frozen=True)
class ClipRecipe:
    """All that turns a record into a clip.

    Args:
        spec: what a clip is; pictures only, no flow.
        augmentation: random changes.
        num_classes: of the labels.
        multi_label: see `VideoSet`.
        per_frame: labels over time.
        classes: (stored classes,) int: the class index that a stored one means here.
    """

    spec: ClipSpec
    augmentation: Augmentation
    num_classes: int
    multi_label: bool
    per_frame: bool
    classes: tuple[int, ...]

    def clip(self, record: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A random clip of a record and its label.

        Args:
            record: scalar string, a serialized `SequenceExample`.
            seed: (2,) int32; the same seed gives the same clip.

        Returns:
            (T, H, W, 3) uint8, and a label as `kvideo.data.pipeline.batches` gives them.
        """
        context, frames = _parse(record, self.per_frame)
        draws = tf.random.stateless_uniform((1 + DRAWS,), seed, dtype=tf.float64)
        rate = context["image/frame_rate"]
        numbers, times, padding = draw_frames(tf.shape(frames)[0], rate, self.spec, draws[0])
        pictures = tf.map_fn(
            lambda frame: tf.io.decode_jpeg(frame, channels=3),
            tf.gather(frames, numbers),
            fn_output_signature=tf.TensorSpec((None, None, 3), tf.uint8),
        )
        full, place = draw_window(tf.shape(pictures)[1:3], self.spec, self.augmentation, draws[1:])
        clip = tf.ensure_shape(cut(pictures, full, place, self.spec.size), self.spec.shape)
        # Other numbers than those for time and place.
        seed = tf.bitwise.bitwise_xor(seed, tf.constant([0, 0x5EED]))
        clip = augment_clip(clip, seed, self.augmentation, self.spec.modality)
        return clip, self._label(context, times, padding)

    @property
    def label_spec(self) -> tf.TensorSpec:
        """Of one clip's label."""
        if self.per_frame:
            return tf.TensorSpec((self.spec.num_frames,), tf.int32)
        if self.multi_label:
            return tf.TensorSpec((self.num_classes,), tf.float32)
        return tf.TensorSpec((), tf.int32)

    def _label(
        self, context: dict[str, tf.Tensor], times: tf.Tensor, padding: tf.Tensor
    ) -> tf.Tensor:
        classes = tf.constant(self.classes, tf.int32)
        if self.per_frame:
            labels = _labels_at(context, times)
            known = tf.gather(classes, tf.maximum(labels, 0))
            return tf.where(padding | (labels < 0), UNLABELLED, known)
        labels = tf.gather(classes, tf.cast(context[LABELS], tf.int32))
        if self.multi_label:
            hot = tf.one_hot(labels, self.num_classes)
            return tf.maximum(tf.reduce_max(hot, axis=0), 0.0)
        return labels[0]


def _parse(record: tf.Tensor, per_frame: bool) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The context that a clip needs, and the frames (N,) as JPEG."""
    numbers = tf.io.RaggedFeature(tf.int64)
    features: dict[str, Any] = {
        LABELS: numbers,
        "image/frame_rate": tf.io.FixedLenFeature((), tf.float32),
    }
    if per_frame:
        names = ("start/timestamp", "end/timestamp", "label/index")
        features |= {f"segment/{name}": numbers for name in names}
        features["segment/label/background"] = tf.io.FixedLenFeature((), tf.int64)
    context, lists = tf.io.parse_single_sequence_example(
        record, features, {FRAMES: tf.io.FixedLenSequenceFeature((), tf.string)}
    )
    return context, lists[FRAMES]


def _labels_at(context: dict[str, tf.Tensor], times: tf.Tensor) -> tf.Tensor:
    """The stored class at each time, see `LabelTrack.at`."""
    background = tf.cast(context["segment/label/background"], tf.int32)
    # One segment more, which never is the one, so that there is one.
    never = tf.constant([2**62], tf.int64)
    starts = tf.concat([context["segment/start/timestamp"], never], 0)
    ends = tf.concat([context["segment/end/timestamp"], never], 0)
    labels = tf.concat([context["segment/label/index"], [0]], 0)
    stamps = tf.cast(tf.round((times + 1e-3) * 1e6), tf.int64)
    last = tf.maximum(tf.searchsorted(starts, stamps, side="right") - 1, 0)
    inside = (stamps >= tf.gather(starts, last)) & (stamps < tf.gather(ends, last))
    return tf.where(inside, tf.cast(tf.gather(labels, last), tf.int32), background)


@dataclasses.dataclass(frozen=True)
class RecordTable:
    """Where the records of a set of stored videos lie: arrays (N,).

    Args:
        files: paths (F,).
        sizes: bytes (F,) that are there now; -1: the file is missing.
        file: of each record.
        offset: of its bytes.
        length: of its bytes.
        fingerprint: of its bytes.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    fingerprint: np.ndarray

    @classmethod
    def of(cls, videos: VideoSet, sizes: Any) -> RecordTable:
        """Of the records of a set.

        Args:
            videos: all of them stored ones.
            sizes: gives the bytes of files, from a list of paths.
        """
        index = index_of(videos)
        known: dict[str, int] = {}
        rows = []
        for record in videos.records:
            path, _ = split_stored(record.path)
            _, stored = index.find(record.path)
            number = known.setdefault(path, len(known))
            rows.append((number, stored.offset, stored.length, stored.fingerprint))
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        files = tuple(known)
        return cls(files, np.asarray(sizes(files), np.int64), *columns)

    def whole(self) -> np.ndarray:
        """Which records the files still hold, bool (N,)."""
        return self.offset + self.length <= self.sizes[self.file]

    def rows(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Of some records what `read_records` needs."""
        file = self.file[numbers]
        behind = self.sizes[file] - self.offset[numbers] - self.length[numbers]
        return {
            "number": numbers.astype(np.int64),
            "file": file,
            "offset": self.offset[numbers],
            "length": self.length[numbers],
            "behind": behind,
            "fingerprint": self.fingerprint[numbers],
        }


def index_of(videos: VideoSet) -> ShardIndex:
    """The index of the shards that stored videos are in."""
    return read_index(parent(split_stored(videos.records[0].path)[0]), open_remote)


def read_records(rows: tf.data.Dataset, files: tuple[str, ...], ordered: bool) -> tf.data.Dataset:
    """Adds each record's bytes to a row, as `"record"`, and whether they are damaged, as `"bad"`.

    Args:
        rows: of a `RecordTable`, with anything else.
        files: of the table.
        ordered: keep the order.
    """
    paths = tf.constant(files)
    none = tf.data.Dataset.from_tensors(b"")

    def read(row: dict[str, tf.Tensor]) -> tf.data.Dataset:
        data = tf.data.FixedLengthRecordDataset(
            tf.gather(paths, row["file"]),
            record_bytes=row["length"],
            header_bytes=row["offset"],
            footer_bytes=row["behind"],
            buffer_size=_BUFFER,
        )
        # A file that cannot be read any more counts as damaged, too.
        data = data.ignore_errors().concatenate(none).take(1)
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(row), data))

    def check(row: dict[str, tf.Tensor], record: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.strings.to_hash_bucket_fast(record, FINGERPRINTS)
        return {**row, "record": record, "bad": found != row["fingerprint"]}

    dataset = rows.interleave(
        read,
        cycle_length=_READS if ordered else _READS_UNORDERED,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=ordered,
    )
    return dataset.map(check, num_parallel_calls=tf.data.AUTOTUNE, deterministic=ordered)


def replace_damaged(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """In the place of a damaged record another clip of the last whole one.

    Adds `"damaged"`, the number of the record that was replaced or -1; `"bad"` stays true where
    there was no whole one before.
    """
    first = (tf.constant(b""), tf.constant(False), tf.constant(-1, tf.int64))

    def step(kept: Any, row: dict[str, tf.Tensor]) -> Any:
        record, whole, number = kept
        bad = row["bad"]
        new = tf.cond(bad, lambda: record, lambda: row["record"])
        damaged = tf.where(bad, row["number"], tf.constant(-1, tf.int64))
        known = whole | ~bad
        shown = tf.where(bad, number, row["number"])
        result = {**row, "record": new, "damaged": damaged, "bad": ~known}
        return (new, known, shown), result

    return dataset.scan(first, step)


def make_clips(dataset: tf.data.Dataset, recipe: ClipRecipe, ordered: bool) -> tf.data.Dataset:
    """Rows with records to (clip, label, number, damaged, bad).

    Args:
        dataset: rows with `"record"`, `"seed"`, `"counts"`, `"number"`, `"damaged"` and `"bad"`.
        recipe: how a clip is made. Where `"counts"` is false, its label becomes -1.
        ordered: keep the order.
    """
    shape, label_spec = recipe.spec.shape, recipe.label_spec

    def make(row: dict[str, tf.Tensor]) -> Any:
        def nothing() -> tuple[tf.Tensor, tf.Tensor]:
            labels = tf.cast(tf.fill(label_spec.shape, UNLABELLED), label_spec.dtype)
            return tf.fill(shape, tf.constant(GREY, tf.uint8)), labels

        clip, label = tf.cond(row["bad"], nothing, lambda: recipe.clip(row["record"], row["seed"]))
        clip = tf.ensure_shape(clip, shape)
        label = tf.where(row["counts"], label, tf.cast(UNLABELLED, label.dtype))
        label = tf.ensure_shape(label, label_spec.shape)
        return clip, label, row["number"], row["damaged"], row["bad"]

    return dataset.map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=ordered)
