"""The random clips of an epoch, read in an ordered pool of threads; failures are replaced."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kvideo.data.annotations import VideoRecord, VideoSet
from kvideo.data.clip_reader import ClipReader
from kvideo.data.epochs import balanced_order, epoch_order
from kvideo.data.failures import Failures
from kvideo.data.sampling import (
    Augmentation,
)
from kvideo.data.threads import MAX_AHEAD_BYTES, ordered_map
from kvideo.data.tracks import UNLABELLED
from kvideo.errors import DataError, DecodeError

_MAX_REPLACEMENTS = 20


@dataclasses.dataclass
class TrainingClips:
    """The random clips of an epoch, each determined by (seed, epoch, place in the epoch).

    A video that fails is replaced by another, drawn from the same numbers, and noted in
    `failures`; with `strict` it ends the iteration instead.

    Args:
        videos: all with labels.
        reader: of their clips.
        augmentation: random changes.
        seed: determines all that is random.
        workers: decoding threads.
        strict: see above.
        failures: receives the videos that cannot be read.
        error: what ended the last iteration early.
        repeats: clips of each video in an epoch, one after the other, from one decoding.
        sampling: `"random"`: every video; `"balanced"`: see `kvideo.data.epochs.balanced_order`.
    """

    videos: VideoSet
    reader: ClipReader
    augmentation: Augmentation
    seed: int = 0
    workers: int = 2
    strict: bool = False
    failures: Failures = dataclasses.field(default_factory=Failures)
    error: Exception | None = None
    repeats: int = 1
    sampling: str = "random"

    @property
    def element(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a clip."""
        return self.reader.spec.shape, self.reader.spec.dtype

    @property
    def label_element(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a clip's label, see `epoch`."""
        if self.videos.per_frame:
            return (self.reader.spec.num_frames,), "int32"
        if self.videos.multi_label:
            return (len(self.videos.class_names),), "float32"
        return (), "int32"

    @property
    def modality(self) -> str | None:
        """What the elements show, so that they can be augmented; None: they are no pictures."""
        return self.reader.spec.modality

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""
        return len(self.videos.records) * self.repeats

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of an epoch's records, in its order."""
        if self.sampling == "balanced":
            labels = [record.labels for record in self.videos.records]
            return balanced_order(labels, self.seed, epoch)
        return epoch_order(len(self.videos.records), self.seed, epoch)

    def read(
        self, record: VideoRecord, rngs: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Random clips of a video; see `ClipReader.labelled_training_clips`."""
        return self.reader.labelled_training_clips(record, self.augmentation, rngs)

    def epoch(
        self, epoch: int, places: Iterable[int] | None = None
    ) -> Iterator[tuple[np.ndarray, int | np.ndarray, np.ndarray]]:
        """Clips of an epoch: (clip, label, random seed (2,) int32).

        The label is the class index, for multi-label sets (num_classes,) float32 of 0 and 1, and
        for sets with labels over time (T,) int32, see `ClipReader.labelled_training_clip`.

        Args:
            epoch: its number.
            places: which clips; by default each once. Places behind the last begin again with the
                first, as clips that fill up a batch and do not count: their labels are -1.
        """
        order = self.order(epoch)
        places = range(self.num_clips) if places is None else places
        groups = (list(g) for _, g in itertools.groupby(places, lambda p: p // self.repeats))
        shape, dtype = self.element
        bytes_at_once = int(np.prod(shape)) * np.dtype(dtype).itemsize * self.repeats
        ahead = max(self.workers, min(4 * self.workers, MAX_AHEAD_BYTES // bytes_at_once))
        results = ordered_map(
            lambda places: self._load(epoch, places, order), groups, self.workers, ahead
        )
        try:
            for clips in results:
                yield from clips
        except Exception as error:
            self.error = error
            raise
        finally:
            results.close()

    def _load(
        self, epoch: int, places: Sequence[int], order: np.ndarray
    ) -> list[tuple[np.ndarray, int | np.ndarray, np.ndarray]]:
        """The clips at some places, all of one video."""
        slot = places[0] // self.repeats
        index = int(order[slot % len(order)])
        spare = np.random.default_rng([self.seed, epoch, slot * self.repeats, 1])
        for _ in range(_MAX_REPLACEMENTS):
            record = self.videos.records[index]
            rngs = [np.random.default_rng([self.seed, epoch, place, 0]) for place in places]
            try:
                clips = self.read(record, rngs)
            except DecodeError as error:
                self.failures.add(error)
                if self.strict:
                    raise
                index = int(spare.integers(len(self.videos.records)))
                continue
            loaded = []
            for (clip, labels), rng in zip(clips, rngs, strict=True):
                label = self._label(record) if labels is None else labels
                if slot >= len(order):
                    label = np.full_like(label, UNLABELLED)
                loaded.append((clip, label, rng.integers(0, 2**31 - 1, 2, dtype=np.int32)))
            return loaded
        last = str(self.failures.errors()[-1]).removesuffix(".")
        raise DataError(
            f"no video could be read in {_MAX_REPLACEMENTS} attempts in a row; the last "
            f"failure: {last}. `kvideo check` lists what is wrong with the files."
        )

    def _label(self, record: VideoRecord) -> int | np.ndarray:
        if not self.videos.multi_label:
            return record.labels[0]
        label = np.zeros(len(self.videos.class_names), np.float32)
        label[list(record.labels)] = 1
        return label
