"""Batches of training clips from shards, for the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.epochs import balanced_order, epoch_order
from kvideo.data.failures import Failures
from kvideo.data.records import VideoSet
from kvideo.data.sampling import Augmentation
from kvideo.data.shards.clips import (
    ClipRecipe,
    RecordTable,
    index_of,
    make_clips,
    read_records,
    replace_damaged,
)
from kvideo.data.shards.layout import is_stored, split_stored
from kvideo.data.shares import WHOLE, Share
from kvideo.errors import DataError, DecodeError
from kvideo.text import plural

# So many records before the first one are looked at, so that a damaged one has a predecessor.
_LEAD_IN = 4
_STATS = 16  # files asked for their size at the same time


class ShardSource:
    """Random clips of stored videos, read and decoded by TensorFlow; see `ClipSource`.

    Every clip is determined by (seed, epoch, place in the epoch). A damaged record is replaced by
    another clip of the video before it, and noted in `failures`; with `strict` it ends the
    iteration instead.

    Args:
        videos: stored videos, of one folder of shards.
        spec: what a clip is.
        augmentation: random changes.
        seed: of everything random.
        strict: see above.
        failures: receives the files that are damaged.
        by_file: of several processes each reads its own files, as far as there are enough;
            otherwise rows of the same batches that a single process reads.
        say: takes lines for a person.
        repeats: clips of each video in an epoch.
        sampling: `"random"` or `"balanced"`, see `TrainingClips`.

    Raises:
        DataError: no file is there.
        DecodeError: in strict mode: a file is missing or cut off.
    """

    def __init__(
        self,
        videos: VideoSet,
        spec: ClipSpec,
        augmentation: Augmentation,
        seed: int = 0,
        strict: bool = False,
        failures: Failures | None = None,
        by_file: bool = True,
        say: Callable[[str], None] = lambda line: None,
        repeats: int = 1,
        sampling: str = "random",
    ) -> None:
        self.videos, self.seed, self.strict, self.by_file = videos, seed, strict, by_file
        self.failures = Failures() if failures is None else failures
        self.error: Exception | None = None
        self.say, self.repeats, self.sampling = say, repeats, sampling
        index = index_of(videos)
        number = {name: place for place, name in enumerate(videos.class_names)}
        classes = tuple(number.get(name, -1) for name in index.class_names)
        self.recipe = ClipRecipe(
            spec,
            augmentation,
            len(videos.class_names),
            videos.multi_label,
            videos.per_frame,
            classes,
        )
        self.table = RecordTable.of(videos, _sizes)
        self._whole = self.table.whole()
        self._note_cut_off()
        self._said = False
        self._datasets: dict[int, tf.data.Dataset] = {}
        self._next: dict[int, dict[str, np.ndarray]] = {}

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""
        return len(self.videos.records) * self.repeats

    def batches(
        self, batch_size: int, *, epoch: int, first_batch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """See `ClipSource`."""
        num_batches = math.ceil(self.num_clips / batch_size)
        every = np.fromiter(share.places(batch_size, 0, num_batches), np.int64)
        begin = first_batch * (batch_size // share.workers)
        # The first ones lead in, and are left out behind.
        places = every.take(np.arange(begin - _LEAD_IN, len(every)), mode="wrap")
        rows = batch_size // share.parts
        self._next[rows] = self.rows(places, batch_size, epoch, share)
        if rows not in self._datasets:
            self._datasets[rows] = self._dataset(rows)
        return self._datasets[rows]

    def _dataset(self, rows: int) -> tf.data.Dataset:
        """Batches of so many rows of what is in `_next`: one dataset for all epochs."""
        types = {name: values.dtype for name, values in self._next[rows].items()}

        def of_epoch(_: tf.Tensor) -> tf.data.Dataset:
            values = tf.numpy_function(
                lambda: list(self._next[rows].values()), [], list(types.values()), stateful=True
            )
            for value, like in zip(values, self._next[rows].values(), strict=True):
                value.set_shape((None, *like.shape[1:]))
            return tf.data.Dataset.from_tensor_slices(dict(zip(types, values, strict=True)))

        dataset = tf.data.Dataset.from_tensors(0).flat_map(of_epoch)
        dataset = read_records(dataset, self.table.files, ordered=True)
        dataset = replace_damaged(dataset).skip(_LEAD_IN)
        dataset = make_clips(dataset, self.recipe, ordered=True)
        return self.finish(dataset, rows)

    def rows(
        self, places: np.ndarray, batch_size: int, epoch: int, share: Share
    ) -> dict[str, np.ndarray]:
        """What is to be read for some places of an epoch, see `read_records` and `make_clips`."""
        order = self._order(batch_size, epoch, share)
        numbers = order[places % len(order)]
        num_places = math.ceil(self.num_clips / batch_size) * batch_size
        rng = np.random.default_rng([self.seed, epoch, 1])
        spare = rng.choice(np.flatnonzero(self._whole), num_places)
        seeds = rng.integers(0, 2**31 - 1, (num_places, 2), dtype=np.int32)
        numbers = np.where(self._whole[numbers], numbers, spare[places])
        return {
            **self.table.rows(numbers),
            "seed": seeds[places],
            "counts": places < self.num_clips,
        }

    def finish(self, dataset: tf.data.Dataset, rows: int) -> tf.data.Dataset:
        """Batches of `rows` (clips, labels), of which this process takes note."""

        def note(clips, labels, numbers, damaged, bad):
            noted = tf.numpy_function(self._note, (numbers, damaged, bad), tf.int64)
            with tf.control_dependencies([noted]):
                return tf.identity(clips), tf.identity(labels)

        dataset = dataset.batch(rows, drop_remainder=True).map(note)
        options = tf.data.Options()
        # Which files and rows this process reads has been decided.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return dataset.prefetch(2).with_options(options)

    def _note(self, numbers: np.ndarray, damaged: np.ndarray, bad: np.ndarray) -> np.int64:
        try:
            self.took(numbers)
            for number in damaged[damaged >= 0].tolist():
                self._damaged(number)
            if bad.any():
                self.unreadable(bad)
        except Exception as error:
            self.error = error
            raise
        return np.int64(0)

    def took(self, numbers: np.ndarray) -> None:
        """Is told the records of each batch."""

    def unreadable(self, bad: np.ndarray) -> None:
        """Is called where a damaged record has no whole one before it."""
        raise DataError(
            f"{plural(_LEAD_IN + 1, 'record')} in a row of the shards in {self.videos.source} "
            "cannot be read. `kvideo check` lists what is wrong."
        )

    def _damaged(self, number: int) -> None:
        path, place = split_stored(self.videos.records[number].path)
        error = DecodeError(
            path, "damaged", f"record {place} is not what was written; the others are used"
        )
        self.failures.add(error)
        if self.strict:
            raise error

    def _note_cut_off(self) -> None:
        for number in np.unique(self.table.file[~self._whole]).tolist():
            of_file = self.table.file == number
            gone, size = int((of_file & ~self._whole).sum()), self.table.sizes[number]
            path, total = self.table.files[number], int(of_file.sum())
            if size < 0:
                error = DecodeError(path, "missing", f"the file with {total} videos is not there")
            else:
                detail = (
                    f"the file is cut off: {gone} of its {plural(total, 'video')} are not whole; "
                    "the others are used"
                )
                error = DecodeError(path, "truncated", detail)
            self.failures.add(error)
            if self.strict:
                raise error
        if not self._whole.any():
            raise DataError(f"none of the videos in {self.videos.source} can be read.")

    def _order(self, batch_size: int, epoch: int, share: Share) -> np.ndarray:
        """Which record is at each place of the epoch, see `TrainingClips`."""
        if self.sampling == "balanced":
            order = balanced_order([r.labels for r in self.videos.records], self.seed, epoch)
        else:
            order = epoch_order(len(self.videos.records), self.seed, epoch)
        order = np.repeat(order, self.repeats)
        if share.workers == 1 or not self.by_file:
            return order
        files = len(self.table.files)
        if files < share.workers:
            if not self._said:
                self.say(
                    f"Note: {plural(files, 'shard')} for {share.workers} processes: each process "
                    "reads from all of them. `kvideo shard --num-shards` makes more."
                )
                self._said = True
            return order
        return order_by_file(order, self.table.file, batch_size, share.workers)


def order_by_file(order: np.ndarray, file: np.ndarray, batch_size: int, workers: int) -> np.ndarray:
    """An order in which each process reads mostly from files of its own.

    Files are given out so that processes have about as many records. Where one has fewer than
    there are places for it, it takes some that others have too many of.

    Args:
        order: (N,) records in random order.
        file: (N,) the file of each record.
        batch_size: rows of a batch, of which each process takes as many.
        workers: processes.

    Returns:
        (N,) the same records in another order.
    """
    counts = np.bincount(file)
    owner, load = np.zeros(len(counts), int), np.zeros(workers, int)
    for number in np.argsort(-counts, kind="stable"):
        owner[number] = np.argmin(load)
        load[owner[number]] += counts[number]
    reader = np.arange(len(order)) % batch_size // (batch_size // workers)  # of each place
    result = np.full(len(order), -1, np.int64)
    surplus = []
    for worker in range(workers):
        own = order[owner[file[order]] == worker]
        places = np.flatnonzero(reader == worker)
        fits = min(len(own), len(places))
        result[places[:fits]] = own[:fits]
        surplus.append(own[fits:])
    result[result < 0] = np.concatenate(surplus)
    return result


def reads_as_shards(videos: VideoSet, spec: ClipSpec) -> bool:
    """Whether clips of these videos can come from a `ShardSource`."""
    return (
        not spec.has_flow
        and bool(videos.records)
        and all(is_stored(record.path) for record in videos.records)
    )


def _sizes(files: Sequence[str]) -> list[int]:
    def size(path: str) -> int:
        try:
            return int(tf.io.gfile.stat(path).length)
        except (tf.errors.OpError, OSError):
            return -1

    with ThreadPoolExecutor(_STATS) as pool:
        return list(pool.map(size, files))
