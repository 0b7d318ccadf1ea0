"""The two stages of `tal_net` on features: proposals, and what happens in them.

Streams (RGB, flow) have a network each with the same anchors; what they say is averaged, in both
stages: late fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvideo.localization import anchors
from kvideo.localization.suppression import nms
from kvideo.models.tal_net import (
    ANCHOR_OFFSETS,
    FEATURES,
    LOGITS,
    OBJECTNESS,
    SEGMENT_OFFSETS,
    SEGMENTS,
)

Floats = NDArray[np.floating]

_BEFORE_NMS = 2000  # most anchors of a thousand steps that go into suppression
_NMS = 0.7  # Chao et al. 2018
_SHORTEST = 0.1  # steps


class Stages:
    """A `tal_net` as two compiled functions of NumPy arrays.

    Args:
        model: weights may change afterwards.
    """

    def __init__(self, model: keras.Model) -> None:
        inputs, outputs = model.input, model.output
        first = keras.Model(inputs[FEATURES], [outputs[OBJECTNESS], outputs[ANCHOR_OFFSETS]])
        second = keras.Model(inputs, [outputs[LOGITS], outputs[SEGMENT_OFFSETS]])

        rows = tf.TensorSpec((None, None, inputs[FEATURES].shape[-1]), tf.float32)
        spans = tf.TensorSpec((None, None, 2), tf.float32)

        @tf.function(input_signature=[rows], jit_compile=False)
        def propose(features: Any) -> Any:
            logits, offsets = first(features, training=False)
            return tf.sigmoid(tf.cast(logits, "float32")), tf.cast(offsets, "float32")

        @tf.function(input_signature=[rows, spans], jit_compile=False)
        def classify(features: Any, segments: Any) -> Any:
            given = {FEATURES: features, SEGMENTS: segments}
            logits, offsets = second(given, training=False)
            return tf.nn.softmax(tf.cast(logits, "float32")), tf.cast(offsets, "float32")

        self._propose, self._classify = propose, classify

    def propose(self, features: Floats) -> tuple[Floats, Floats]:
        """Probabilities (T, A) and offsets (T, A, 2) of the anchors, of features (T, D)."""
        scores, offsets = self._propose(_batch(features))
        return scores[0].numpy(), offsets[0].numpy()

    def classify(self, features: Floats, segments: Floats) -> tuple[Floats, Floats]:
        """Probabilities (N, 1 + C), background first, and offsets (N, C, 2), of segments (N, 2)."""
        scores, offsets = self._classify(_batch(features), _batch(segments))
        return scores[0].numpy(), offsets[0].numpy()


def _batch(values: Floats) -> Any:
    return tf.constant(np.ascontiguousarray(values, np.float32)[np.newaxis])


def best_proposals(
    said: Sequence[tuple[Floats, Floats]], scales: Sequence[float], most: int
) -> tuple[Floats, Floats]:
    """Segments in which something may happen.

    Args:
        said: of each stream what `Stages.propose` gives for the same T steps.
        scales: of the anchors, in steps.
        most: at most so many.

    Returns:
        (P, 2) in steps, by falling probability, inside the video; and (P,) probabilities.
    """
    scores = np.mean([each for each, _ in said], axis=0)
    offsets = np.mean([each for _, each in said], axis=0)
    steps = len(scores)
    flat = scores.reshape(-1)
    count = min(len(flat), _BEFORE_NMS * max(1, steps // 1000))
    order = np.argpartition(-flat, count - 1)[:count]
    grid = anchors.make_anchors(steps, scales)[order]
    moved = np.clip(anchors.decode(grid, offsets.reshape(-1, 2)[order]), 0, steps)
    long = moved[:, 1] - moved[:, 0] >= _SHORTEST
    moved, flat = moved[long], flat[order][long]
    kept = nms(moved, flat, _NMS, most)
    return moved[kept], flat[kept]
