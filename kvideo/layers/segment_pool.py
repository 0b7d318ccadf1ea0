"""Maximum pooling over segments of a sequence: RoI pooling in one dimension."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kvideo.errors import UsageError

_LEVELS = 13  # a bin may be 2 ** 13 steps long


@keras.saving.register_keras_serializable("kvideo")
class SegmentPool(keras.layers.Layer):
    """Segments of interest: every segment, whatever its length, as the same number of maxima.

    A segment is divided into `bins` equal parts; of each the maximum over the steps that it touches
    is taken. Parts that lie outside the sequence are 0.

    It works from maxima over 1, 2, 4, 8 … steps, which any range is covered by two of, so that its
    cost does not depend on the segments' lengths.

    Args:
        bins: parts of a segment.
        context: share of its length by which a segment is made longer on either side before.

    Input shape:
        A list of features (B, T, C) and segments (B, N, 2): beginnings and ends in steps; step t
        reaches from t to t + 1.

    Output shape:
        (B, N, bins, C).

    References:
        Chao et al. 2018, "Rethinking the Faster R-CNN Architecture for Temporal Action
        Localization", SoI pooling; Girshick 2015, "Fast R-CNN".
    """

    def __init__(self, bins: int = 7, context: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1 or context < 0:
            raise UsageError(
                f"bins must be at least 1 and context from 0, not {bins} and {context}."
            )
        self.bins, self.context = bins, context

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """See the class."""
        features, segments = input_shape
        return (features[0], segments[1], self.bins, features[2])

    def call(self, inputs: Any) -> Any:
        """See the class."""
        features, segments = inputs
        shape = ops.shape(features)
        batch, steps = shape[0], shape[1]
        first, last, inside = self._ranges(segments, steps)  # (B, N, bins) each
        level = ops.cast(ops.floor(ops.log2(ops.cast(last - first, "float32") + 0.5)), "int32")
        level = ops.clip(level, 0, _LEVELS - 1)
        table = ops.reshape(_maxima(features), (-1, features.shape[-1]))  # (L·B·T, C)
        row = ops.reshape(ops.arange(batch, dtype="int32"), (-1, 1, 1))
        base = (level * batch + row) * steps
        second = last - ops.left_shift(ops.ones_like(level), level)
        pooled = ops.maximum(
            ops.take(table, base + first, axis=0),
            ops.take(table, base + ops.maximum(second, first), axis=0),
        )
        return pooled * ops.cast(inside, pooled.dtype)[..., None]

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "bins": self.bins, "context": self.context}

    def _ranges(self, segments: Any, steps: Any) -> tuple[Any, Any, Any]:
        """First step, the one after the last, and whether any lies in the sequence, of each bin."""
        segments = ops.cast(segments, "float32")
        start, end = segments[..., :1], segments[..., 1:]
        length = ops.maximum(end - start, 1e-6)
        start = start - self.context * length
        width = (1 + 2 * self.context) * length / self.bins
        left = start + width * ops.arange(self.bins, dtype="float32")
        # A bin that ends exactly at a step's beginning does not touch that step.
        first = ops.cast(ops.floor(left + 1e-4), "int32")
        last = ops.cast(ops.ceil(left + width - 1e-4), "int32")
        last = ops.maximum(last, first + 1)
        inside = ops.logical_and(last > 0, first < steps)
        first = ops.clip(first, 0, steps - 1)
        return first, ops.maximum(ops.minimum(last, steps), first + 1), inside


def _maxima(features: Any) -> Any:
    """(L, B, T, C): at level l the maximum over the 2 ** l steps from each on, up to the end."""
    levels = [features]
    for level in range(_LEVELS - 1):
        known, shift = levels[-1], 2**level
        # Where there is nothing so much further on, the maximum reaches the end already.
        further = ops.concatenate(
            [known[:, shift:], ops.full_like(known[:, :shift], float("-inf"))], axis=1
        )
        levels.append(ops.maximum(known, further))
    return ops.stack(levels)
