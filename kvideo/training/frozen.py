"""A frozen backbone's features: computed once for each frame, kept on disk, trained on.

A network whose backbone stays as it is need not run it in every epoch. What it says of a video's
frames (at the clip's frame rate, centre crop) is computed when the video is first needed, and read
from then on, in later runs too. So there are no random crops, mirrorings or changes of colour; what
is random is which part of the video a clip takes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kvideo.data.clip_reader import ClipReader
from kvideo.data.records import VideoRecord
from kvideo.data.tracks import UNLABELLED
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import UsageError
from kvideo.features import file_stamp, model_digest
from kvideo.files import atomic_path, cache_folder, make_folder
from kvideo.inference import Predictor

LAYER = "frame_features"
"""The layer, (B, T, C), up to which the backbone reaches."""


@dataclasses.dataclass(frozen=True)
class FrozenParts:
    """A model in two.

    Attributes:
        backbone: from clips to (B, T, C); none of its weights is trained.
        head: from (B, T, C) to the model's output; its layers are the model's own.
    """

    backbone: keras.Model
    head: keras.Model

    @classmethod
    def of(cls, model: keras.Model) -> FrozenParts:
        """The parts of a model before and behind its layer `frame_features`.

        Raises:
            UsageError: it has no such layer, or layers before it are trained.
        """
        if LAYER not in [layer.name for layer in model.layers]:
            raise UsageError(
                f'"{model.name}" has no layer "{LAYER}" that a frozen backbone could end with.'
            )
        between = model.get_layer(LAYER).output
        backbone = keras.Model(model.input, between, name=f"{model.name}_backbone")
        if backbone.trainable_variables:
            raise UsageError(
                f'the layers of "{model.name}" before "{LAYER}" are trained; with '
                'frozen_backbone they need states="vector".'
            )
        return cls(backbone, keras.Model(between, model.output, name=model.name))


class FrozenFrames:
    """What a frozen backbone says of each frame of a video.

    Args:
        backbone: see `FrozenParts`.
        reader: reads clips as the whole model takes them.
        batch_size: clips that are run at once.
        folder: where to keep the features; by default a folder in `$KVIDEO_CACHE` or
            `~/.cache/kvideo`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        reader: ClipReader,
        batch_size: int,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.reader = reader
        self._predictor, self._lock = Predictor(backbone, batch_size), threading.Lock()
        settings = json.dumps([model_digest(backbone, LAYER), reader.spec.to_json()])
        digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
        self.folder = make_folder(Path(folder or cache_folder() / "frames") / digest)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """(N, T, C) float32 of clips (N, T, H, W, C)."""
        with self._lock:  # the processors are busy with one call
            return self._predictor(clips)

    def of(self, record: VideoRecord) -> np.ndarray:
        """(N, C) float32: frames from the record's beginning to its end, at the clip's rate.

        Raises:
            DecodeError: the video gives no frames.
            KVideoError: the disk is full, or the folder is not writable.
        """
        stamp = json.dumps([record.path, file_stamp(record.path), record.start, record.end])
        path = self.folder / f"{hashlib.sha256(stamp.encode()).hexdigest()}.npy"
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError):  # not there, or cut off
            features = self._compute(record)
        with atomic_path(path) as temporary:
            np.save(temporary, features)
        return features

    def _compute(self, record: VideoRecord) -> np.ndarray:
        spec = self.reader.spec
        first, last, _ = self.reader.span(record)
        count = max(1, math.ceil((last - first) * spec.frame_rate - 1e-6))
        clips = math.ceil(count / spec.num_frames)
        starts = first + np.arange(clips) * (spec.num_frames / spec.frame_rate)
        blocks = [self(block) for block in self.reader.clips_at(record, starts, last)]
        return np.concatenate(blocks).reshape(-1, blocks[0].shape[-1])[:count]


@dataclasses.dataclass
class FrozenClips(TrainingClips):
    """Random clips of features instead of pictures; for the rest as `TrainingClips`."""

    frames: FrozenFrames | None = None

    @property
    def element(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of a clip."""
        channels = self._frames._predictor.model.output_shape[-1]
        return (self.reader.spec.num_frames, channels), "float32"

    @property
    def modality(self) -> None:
        """Features have no direction or colour that could be changed."""

    @property
    def _frames(self) -> FrozenFrames:
        if self.frames is None:
            raise UsageError("FrozenClips needs frames.")
        return self.frames

    def read(
        self, record: VideoRecord, rngs: Sequence[np.random.Generator]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """(T, C) at random places, and labels as `ClipReader.labelled_training_clip` gives them.

        A clip longer than the video holds its last frame.
        """
        spec, features = self.reader.spec, self._frames.of(record)
        first, _, track = self.reader.span(record) if record.track else (0.0, 0.0, None)
        found: list[tuple[np.ndarray, np.ndarray | None]] = []
        for rng in rngs:
            begin = int(rng.integers(0, max(0, len(features) - spec.num_frames) + 1))
            places = begin + np.arange(spec.num_frames)
            clip = features[np.minimum(places, len(features) - 1)]
            labels = None
            if track is not None:
                labels = track.at(first + places / spec.frame_rate)
                labels[places >= len(features)] = UNLABELLED
            found.append((clip, labels))
        return found
