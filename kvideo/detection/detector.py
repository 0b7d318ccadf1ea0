"""An `actor_detector` on clips: boxes of its own or given ones, and what happens in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.clip_spec import clip_dtype
from kvideo.data.proposals import Found
from kvideo.detection.cells import boxes_of_cells
from kvideo.detection.metrics import Floats
from kvideo.detection.stages import has_person_head, split
from kvideo.detection.suppression import suppress
from kvideo.errors import UsageError
from kvideo.models.actor_detector import ACTORNESS, FEATURE_MAP, LOGITS, SIDES

_CANDIDATES = 200  # cells of a clip that go into suppression


@dataclasses.dataclass(frozen=True)
class ActorSettings:
    """Which boxes of the person head are taken.

    Args:
        threshold: least score.
        nms: of boxes that overlap by more, the best is taken.
        most: boxes of a clip.

    Raises:
        UsageError: a value is out of its range.
    """

    threshold: float = 0.05
    nms: float = 0.5
    most: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"the least score of a box is from 0 to 1, not {self.threshold}.")
        if not 0 < self.nms <= 1:
            raise UsageError(f"nms must be above 0 and up to 1, not {self.nms}.")
        if self.most < 1:
            raise UsageError(f"there must be at least 1 box of a moment, not {self.most}.")


class Detector:
    """An `actor_detector` as functions of NumPy arrays.

    Args:
        model: its weights may change in between.
        settings: of the person head's boxes.
        batch_size: most clips that are run at once.
    """

    def __init__(
        self, model: keras.Model, settings: ActorSettings | None = None, batch_size: int = 8
    ) -> None:
        self.model, self.settings = model, settings or ActorSettings()
        self.batch_size, self.has_head = batch_size, has_person_head(model)
        first, second = split(model)
        shape = (None, *first.input_shape[1:])
        clips = tf.TensorSpec(shape, clip_dtype(shape))
        map_shape = (None, *second.input_shape[0][1:])
        of_map = tf.TensorSpec(map_shape, model.get_layer(FEATURE_MAP).compute_dtype)

        @tf.function(input_signature=[clips], jit_compile=False)
        def find(clips: Any) -> Any:
            found = first(clips, training=False)
            scores = boxes = tf.zeros((tf.shape(clips)[0], 0, 0))
            if ACTORNESS in found:
                scores = tf.sigmoid(tf.cast(found[ACTORNESS], tf.float32))
                boxes = boxes_of_cells(found[SIDES])
            return found[FEATURE_MAP], scores, boxes

        @tf.function(
            input_signature=[of_map, tf.TensorSpec((None, None, 4), tf.float32)], jit_compile=False
        )
        def classify(found: Any, boxes: Any) -> Any:
            return tf.sigmoid(tf.cast(second([found, boxes], training=False), tf.float32))

        self._find, self._classify = find, classify

    def __call__(
        self, clips: np.ndarray, given: Sequence[Found] | None = None
    ) -> list[tuple[Floats, Floats, Floats]]:
        """Actors of clips.

        Args:
            clips: (N, T, H, W, C).
            given: of each clip boxes (K, 4), as fractions of the clip, and scores (K,); None: the
                person head finds them.

        Returns:
            Of each clip boxes (K, 4), scores (K,) and probabilities of the actions (K, C).

        Raises:
            UsageError: there is no person head, and no boxes came.
        """
        if given is None and not self.has_head:
            raise UsageError("this detector has no person head; give it boxes.")
        found: list[tuple[Floats, Floats, Floats]] = []
        for first in range(0, len(clips), self.batch_size):
            part = slice(first, first + self.batch_size)
            found += self._batch(clips[part], None if given is None else given[part])
        return found

    def _batch(
        self, clips: np.ndarray, given: Sequence[Found] | None
    ) -> list[tuple[Floats, Floats, Floats]]:
        maps, scores, boxes = self._find(clips)
        if given is None:
            how, pairs = self.settings, zip(scores.numpy(), boxes.numpy(), strict=True)
            given = [_best(s.reshape(-1), b.reshape(-1, 4), how) for s, b in pairs]
        most = max(len(own) for own, _ in given)
        if not most:
            classes = self.model.output[LOGITS].shape[-1]
            return [(own, score, np.zeros((0, classes))) for own, score in given]
        padded = np.zeros((len(given), _rounded(most), 4), np.float32)
        for row, (own, _) in zip(padded, given, strict=True):
            row[: len(own)] = own
        actions = self._classify(maps, padded).numpy()
        return [
            (own, score, row[: len(own)]) for (own, score), row in zip(given, actions, strict=True)
        ]


def _best(scores: Floats, boxes: Floats, how: ActorSettings) -> Found:
    order = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    order = order[scores[order] >= how.threshold]
    kept = order[suppress(boxes[order], how.nms, how.most)]
    return boxes[kept].astype(np.float64), scores[kept].astype(np.float64)


def _rounded(count: int) -> int:
    """A few sizes only, so that memory is not laid out anew for each batch."""
    return -(-count // 4) * 4
