"""Losses per example, on logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from kvideo.errors import UsageError


def classification_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    *,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
    class_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of each example, not yet averaged.

    Args:
        labels: (B,) int class indices, or (B, C) float 0/1 if `multi_label`.
        logits: (B, C) float32.
        multi_label: sigmoid cross-entropy, summed over classes divided by their number, rather
            than softmax cross-entropy.
        label_smoothing: ε: the truth becomes (1 − ε)·truth + ε/C (Szegedy et al. 2016); with
            `multi_label` (1 − ε)·truth + ε/2.
        class_weights: (C,); an example counts as its class does. With `multi_label` each class's
            term is weighted.

    Returns:
        (B,) float32.
    """
    logits = tf.cast(logits, tf.float32)
    num_classes = logits.shape[-1]
    if multi_label:
        targets = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
        terms = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if class_weights is not None:
            terms = terms * class_weights
        return tf.reduce_mean(terms, axis=-1)
    targets = tf.one_hot(labels, num_classes) * (1.0 - label_smoothing)
    targets += label_smoothing / num_classes
    losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    if class_weights is not None:
        losses = losses * tf.gather(class_weights, labels)
    return losses


def video_loss(labels: tf.Tensor, logits: tf.Tensor, **options: Any) -> tf.Tensor:
    """`classification_loss`, but 0 for clips that only fill up a batch: their labels are -1.

    Args:
        labels: (B,) int class indices, or (B, C) float 0/1; -1 for clips that do not count.
        logits: (B, C) float32.
        **options: see `classification_loss`.

    Returns:
        (B,) float32.
    """
    losses = classification_loss(tf.maximum(labels, 0), logits, **options)
    counts = tf.reduce_all(tf.reshape(labels >= 0, [tf.shape(labels)[0], -1]), axis=1)
    return tf.where(counts, losses, tf.zeros_like(losses))


def frame_loss(
    labels: tf.Tensor,
    logits: tf.Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of each frame, not yet averaged; 0 where the label is -1 (nothing is known).

    Args:
        labels: (B, T) int class indices, or -1.
        logits: (B, T, C) float32.
        label_smoothing: see `classification_loss`.
        class_weights: (C,); a frame counts as its class does.

    Returns:
        (B, T) float32.
    """
    losses = classification_loss(
        tf.maximum(labels, 0), logits, label_smoothing=label_smoothing, class_weights=class_weights
    )
    return tf.where(labels >= 0, losses, tf.zeros_like(losses))


def num_hits(labels: tf.Tensor, logits: tf.Tensor, multi_label: bool) -> tf.Tensor:
    """How many examples have their best class among the right ones (hit@1), float32 scalar.

    With labels over time, (B, T) and logits (B, T, C), it is the number of frames; a label of -1
    is never hit, that of a clip that only fills up a batch neither.
    """
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    if multi_label:
        hits = tf.maximum(tf.gather(labels, best, axis=1, batch_dims=1), 0.0)
    else:
        hits = tf.cast(tf.equal(best, tf.cast(labels, tf.int32)), tf.float32)
    return tf.reduce_sum(hits)


def balanced_class_weights(counts: np.ndarray) -> np.ndarray:
    """Weights that let every class count alike: N / (C · n_c), as scikit-learn's "balanced".

    Args:
        counts: (C,) examples of each class.

    Raises:
        UsageError: a class has no example.
    """
    if (counts == 0).any():
        raise UsageError(
            f"class weights cannot be balanced: class number {int(np.argmin(counts))} has no "
            "training video."
        )
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)
