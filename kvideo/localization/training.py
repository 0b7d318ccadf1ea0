"""Trains a `tal_net` on the features of untrimmed videos, both stages at once.

A step takes one video, or a window of it that is short enough. The first stage proposes segments;
of these and of the anchors examples are drawn, on which the losses of both stages are computed
together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.errors import DataError, UsageError
from kvideo.localization import anchors
from kvideo.localization.metrics import temporal_iou
from kvideo.localization.proposals import Stages, best_proposals
from kvideo.models.tal_net import (
    ANCHOR_OFFSETS,
    FEATURES,
    LOGITS,
    NORMALIZATION,
    OBJECTNESS,
    SEGMENT_OFFSETS,
    SEGMENTS,
)
from kvideo.training.optimizers import AdamW
from kvideo.training.schedules import warmup_cosine

# Chao et al. 2018, section 4: overlaps of examples, and their numbers and shares.
_ANCHOR_OVERLAPS = {"positive": 0.7, "negative": 0.3}
_SEGMENT_OVERLAPS = {"positive": 0.5, "negative": 0.5}
_NUM_ANCHORS, _ANCHOR_SHARE = 256, 0.5
_NUM_SEGMENTS, _SEGMENT_SHARE = 64, 0.25
_PROPOSALS = 200
_INSIDE = 0.75  # of a segment that a window cuts, to be an example


@dataclasses.dataclass(frozen=True)
class Example:
    """The features of one video, and what happens in it.

    Args:
        features: (T, D).
        segments: (M, 2) in steps; M may be 0.
        labels: (M,) class indices.
        hidden: (K, 2) segments of which so little is to be seen that they are no examples, nor is
            what lies near them one of background.
    """

    features: np.ndarray
    segments: np.ndarray
    labels: np.ndarray
    hidden: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How a head is trained.

    Args:
        epochs: times that each video is seen.
        learning_rate: at its highest.
        weight_decay: see `AdamW`.
        window: most steps of a video that a training step sees.
        seed: of the drawing of examples, and of dropout.

    Raises:
        UsageError: a value is out of its range.
    """

    epochs: int = 40
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    window: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.window < 1:
            raise UsageError(f"epochs and window must be at least 1, not {self.epochs}.")
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"the learning rate must be above 0, not {self.learning_rate}.")


def adapt_normalization(model: keras.Model, examples: Sequence[Example]) -> None:
    """Gives a `tal_net` the mean and variance of the features, from all steps of all videos."""
    count, total, squares = 0, 0.0, 0.0
    for example in examples:
        rows = np.asarray(example.features, np.float64)
        count, total = count + len(rows), total + rows.sum(axis=0)
        squares = squares + (rows**2).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 1e-6)
    layer = model.get_layer(NORMALIZATION)
    layer.adapt_mean.assign(mean)
    layer.adapt_variance.assign(variance)
    layer.finalize_state()


def train_head(
    model: keras.Model,
    examples: Sequence[Example],
    scales: Sequence[float],
    settings: HeadSettings,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Trains in place.

    Args:
        model: a `tal_net`.
        examples: the training videos; those without segments teach what background is.
        scales: the model's, in steps.
        settings: see there.
        on_epoch: is called with the mean losses of each epoch.

    Raises:
        DataError: no video has a segment, or the loss is not finite.
    """
    if not any(len(example.segments) for example in examples):
        raise DataError("none of the training videos has a segment.")
    rng = np.random.default_rng(settings.seed)
    keras.utils.set_random_seed(settings.seed)
    optimizer = AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
    optimizer.build(model.trainable_variables)
    stages, step = Stages(model), _training_step(model, optimizer)
    total = settings.epochs * len(examples)
    warmup, done = min(100, total // 10), 0
    for epoch in range(settings.epochs):
        losses = np.zeros(4)
        for index in rng.permutation(len(examples)):
            cut = _window(examples[index], settings.window, rng)
            optimizer.learning_rate.assign(
                warmup_cosine(
                    done, peak=settings.learning_rate, warmup_steps=warmup, total_steps=total
                )
            )
            losses += step(*_draw(stages, cut, scales, rng)).numpy()
            done += 1
        mean = losses / len(examples)
        if not np.isfinite(mean).all():
            raise DataError("the loss of the localizer is not finite; try a lower learning rate.")
        if on_epoch is not None:
            names = ("objectness", "anchor_offsets", "classes", "segment_offsets")
            row = dict(zip(names, mean.tolist(), strict=True))
            on_epoch({"epoch": epoch + 1, "loss": float(mean.sum()), **row})


def _training_step(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Any:
    channels = model.input[FEATURES].shape[-1]
    signature = [
        tf.TensorSpec((None, channels), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None, 2), tf.float32),
        tf.TensorSpec((None, 2), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None, 2), tf.float32),
    ]

    @tf.function(input_signature=signature, jit_compile=False)
    def step(features: Any, state: Any, shifts: Any, segments: Any, labels: Any, moves: Any) -> Any:
        with tf.GradientTape() as tape:
            out = model({FEATURES: features[None], SEGMENTS: segments[None]}, training=True)
            losses = tf.stack(
                [
                    *_anchor_losses(out, state, shifts),
                    *_segment_losses(out, labels, moves),
                ]
            )
            total = tf.reduce_sum(losses)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(total, variables), variables)
        return losses

    return step


def _anchor_losses(out: Any, state: Any, shifts: Any) -> tuple[Any, Any]:
    """Of `state` (T·A,) 1, 0 or -1, and `shifts` (T·A, 2)."""
    logits = tf.reshape(tf.cast(out[OBJECTNESS], "float32"), (-1,))
    moved = tf.reshape(tf.cast(out[ANCHOR_OFFSETS], "float32"), (-1, 2))
    chosen, good = tf.where(state >= 0)[:, 0], tf.where(state == 1)[:, 0]
    wanted = tf.cast(tf.gather(state, chosen), "float32")
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(wanted, tf.gather(logits, chosen))
    apart = tf.gather(moved, good) - tf.gather(shifts, good)
    return _mean(entropy), _mean(tf.reduce_sum(_smooth(apart), axis=-1))


def _segment_losses(out: Any, labels: Any, moves: Any) -> tuple[Any, Any]:
    """Of `labels` (N,), 0 being background, and `moves` (N, 2)."""
    logits = tf.cast(out[LOGITS][0], "float32")
    moved = tf.cast(out[SEGMENT_OFFSETS][0], "float32")  # (N, C, 2)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    good = tf.where(labels > 0)[:, 0]
    own = tf.gather(labels, good) - 1
    apart = tf.gather(tf.gather(moved, good), own, batch_dims=1) - tf.gather(moves, good)
    return _mean(entropy), _mean(tf.reduce_sum(_smooth(apart), axis=-1))


def _smooth(difference: Any) -> Any:
    """Smooth L1 (Girshick 2015)."""
    size = tf.abs(difference)
    return tf.where(size < 1, 0.5 * size**2, size - 0.5)


def _mean(values: Any) -> Any:
    """0 of none."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), "float32"))


def _window(example: Example, most: int, rng: np.random.Generator) -> Example:
    """A part of a long video; segments that lie outside for more than a quarter are hidden."""
    steps = len(example.features)
    if steps <= most:
        return example
    first = int(rng.integers(steps - most + 1))
    moved = example.segments - first
    inside = np.clip(moved, 0, most)
    length = np.maximum(moved[:, 1] - moved[:, 0], 1e-6)
    share = (inside[:, 1] - inside[:, 0]) / length
    kept, hidden = share >= _INSIDE, (share < _INSIDE) & (share > 0)
    features = example.features[first : first + most]
    return Example(features, inside[kept], example.labels[kept], inside[hidden])


def _ignore(state: anchors.Ints, segments: anchors.Floats, hidden: anchors.Floats) -> None:
    """Takes what overlaps with a hidden segment out of the examples of background."""
    if len(hidden):
        near = temporal_iou(segments, hidden).max(axis=1) >= _ANCHOR_OVERLAPS["negative"]
        state[near & (state == 0)] = anchors.IGNORED


def _draw(
    stages: Stages, example: Example, scales: Sequence[float], rng: np.random.Generator
) -> tuple[Any, ...]:
    """What a training step takes: features, examples among anchors and among segments."""
    features = np.ascontiguousarray(example.features, np.float32)
    truth = example.segments
    grid = anchors.make_anchors(len(features), scales)
    nearest, state = anchors.match(grid, truth, best=True, **_ANCHOR_OVERLAPS)
    _ignore(state, grid, example.hidden)
    drawn = anchors.sample(state, _NUM_ANCHORS, _ANCHOR_SHARE, rng)
    kept = np.full(len(grid), anchors.IGNORED, np.int32)
    kept[drawn] = state[drawn]
    shifts = np.zeros((len(grid), 2), np.float32)
    if len(truth):
        shifts[drawn] = anchors.encode(grid[drawn], truth[nearest[drawn]])
    found, _ = best_proposals([stages.propose(features)], scales, _PROPOSALS)
    offered = np.concatenate([found, truth]) if len(truth) else found
    owner, kind = anchors.match(offered, truth, best=False, **_SEGMENT_OVERLAPS)
    _ignore(kind, offered, example.hidden)
    chosen = anchors.sample(kind, _NUM_SEGMENTS, _SEGMENT_SHARE, rng)
    labels = np.zeros(len(chosen), np.int32)
    moves = np.zeros((len(chosen), 2), np.float32)
    if len(truth):
        own = owner[chosen]
        labels = np.where(kind[chosen] == 1, example.labels[own] + 1, 0).astype(np.int32)
        moves = anchors.encode(offered[chosen], truth[own]).astype(np.float32)
    return features, kept, shifts, offered[chosen].astype(np.float32), labels, moves
