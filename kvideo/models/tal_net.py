"""TAL-Net: Faster R-CNN turned to one dimension, on the features of an untrimmed video.

A first stage says of many anchors, segments of a few lengths at every step, whether something
happens there, and moves their ends; a second one says what happens in the segments it is shown.
It is a head: its input are features (`kvideo features --stride`), not clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.layers.dropout import Dropout
from kvideo.layers.segment_pool import SegmentPool

BINS = 7
CONTEXT = 0.5  # of a segment's length, on either side
# Names of inputs and outputs, and of the layers at which the two stages meet.
FEATURES, SEGMENTS = "features", "segments"
OBJECTNESS, ANCHOR_OFFSETS = "objectness", "anchor_offsets"
LOGITS, SEGMENT_OFFSETS = "logits", "segment_offsets"
NORMALIZATION = "normalization"


def tal_net(
    num_classes: int,
    *,
    input_shape: Sequence[int | None],
    scales: Sequence[float],
    filters: int = 256,
    context: bool = True,
    dropout: float = 0.5,
    name: str = "tal_net",
) -> keras.Model:
    """Proposes segments and classifies them.

    The first stage has a tower of its own for each anchor scale: two convolutions over time with
    holes so wide that together they see just the anchor (or, with context, half of its length more
    on either side), after a maximum over a sixth of the anchor. The second stage divides a segment,
    with half of its length on either side, into 7 parts, and takes the maximum of each.

    Both share a normalization, which is to be adapted to the features, and a projection of each
    step to `filters` channels; the paper has neither, since its features are always the same.

    Args:
        num_classes: C, without background.
        input_shape: (steps, channels) of a video's features; steps are None for any number.
        scales: lengths of the A anchors at each step, in steps.
        filters: channels of the layers between.
        context: whether the towers see what is around an anchor.
        dropout: share of the features that training leaves out.
        name: of the model.

    Returns:
        A model of `{"features": (B, T, D), "segments": (B, N, 2)}`, segments in steps (step t
        reaches from t to t + 1), that gives a dictionary:

        - `objectness` (B, T, A): logits of the anchors, anchor a of step t having its middle at
            t + 1/2 and the length `scales[a]`.
        - `anchor_offsets` (B, T, A, 2): shift of the middle in lengths of the anchor, and logarithm
            of the new length over the old one.
        - `logits` (B, N, 1 + C): background first.
        - `segment_offsets` (B, N, C, 2): the same for the segments, of each class.

    Raises:
        UsageError: an argument is out of its range.

    References:
        Chao et al. 2018, "Rethinking the Faster R-CNN Architecture for Temporal Action
        Localization" (CVPR).
    """
    _check(num_classes, input_shape, scales, filters)
    features = keras.Input(tuple(input_shape), name=FEATURES)
    segments = keras.Input((None, 2), name=SEGMENTS)
    x = keras.layers.Normalization(axis=-1, name=NORMALIZATION)(features)
    x = Dropout(dropout, name="features_dropout")(x)
    x = keras.layers.Dense(filters, activation="relu", name="projection")(x)  # (B, T, F)
    objectness, offsets = [], []
    for index, scale in enumerate(scales):
        y = _tower(x, float(scale), filters, context, f"tower{index}")
        objectness.append(keras.layers.Dense(1, name=f"tower{index}_objectness")(y))
        offsets.append(keras.layers.Dense(2, name=f"tower{index}_offsets")(y))
    joined = _join(objectness, OBJECTNESS)  # (B, T, A)
    moved = keras.layers.Reshape((-1, len(scales), 2), name=ANCHOR_OFFSETS)(
        _join(offsets, "tower_offsets")
    )
    logits, class_offsets = _classification(x, segments, num_classes, filters, dropout)
    outputs = {OBJECTNESS: joined, ANCHOR_OFFSETS: moved}
    outputs |= {LOGITS: logits, SEGMENT_OFFSETS: class_offsets}
    return keras.Model({FEATURES: features, SEGMENTS: segments}, outputs, name=name)


def _tower(x: Any, scale: float, filters: int, context: bool, name: str) -> Any:
    """(B, T, F) → (B, T, F); with kernels of 3, holes of s/6 and 2s/6 see s + 1 steps."""
    hole = _hole(scale) * (2 if context else 1)
    x = keras.layers.MaxPooling1D(_pool(scale), strides=1, padding="same", name=f"{name}_pool")(x)
    for number, rate in enumerate((hole, 2 * hole), 1):
        x = keras.layers.Conv1D(
            filters, 3, dilation_rate=rate, padding="same", activation="relu",
            name=f"{name}_conv{number}",
        )(x)  # fmt: skip
    return x


def _hole(scale: float) -> int:
    return max(1, round(scale / 6))


def _pool(scale: float) -> int:
    return max(1, round(scale / 6))


def _classification(
    x: Any, segments: Any, num_classes: int, filters: int, dropout: float
) -> tuple[Any, Any]:
    y = SegmentPool(BINS, context=CONTEXT, name="segment_pool")([x, segments])
    y = keras.layers.Reshape((-1, BINS * x.shape[-1]), name="flat")(y)
    y = keras.layers.Dense(2 * filters, activation="relu", name="segment_fc")(y)
    y = Dropout(dropout, name="segment_dropout")(y)
    logits = keras.layers.Dense(1 + num_classes, name=LOGITS)(y)
    offsets = keras.layers.Dense(2 * num_classes, name="class_offsets")(y)
    return logits, keras.layers.Reshape((-1, num_classes, 2), name=SEGMENT_OFFSETS)(offsets)


def _join(parts: list[Any], name: str) -> Any:
    if len(parts) == 1:
        return keras.layers.Identity(name=name)(parts[0])
    return keras.layers.Concatenate(name=name)(parts)


def _check(
    num_classes: int, input_shape: Sequence[int | None], scales: Sequence[float], filters: int
) -> None:
    if num_classes < 1:
        raise UsageError(f"num_classes must be at least 1, not {num_classes}.")
    if filters < 1:
        raise UsageError(f"filters must be at least 1, not {filters}.")
    if len(input_shape) != 2 or not input_shape[1]:
        raise UsageError(f"input_shape must be (steps or None, channels), not {input_shape}.")
    if not len(scales) or not all(scale > 0 and math.isfinite(scale) for scale in scales):
        raise UsageError(f"scales must be lengths above 0, in steps, not {scales}.")
