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
    focal_gamma: float = 0.0,
    class_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of each example, or its focal form, not yet averaged.

    Args:
        labels: (B,) int class indices, or (B, C) float 0/1 if `multi_label`.
        logits: (B, C) float32.
        multi_label: sigmoid cross-entropy, summed over classes divided by their number, rather
            than softmax cross-entropy.
        label_smoothing: ε: the truth becomes (1 − ε)·truth + ε/C (Szegedy et al. 2016); with
            `multi_label` (1 − ε)·truth + ε/2.
        focal_gamma: γ: each term −log p of the cross-entropy becomes −(1 − p)^γ · log p, so that
            what is answered surely counts less (Lin et al. 2017; their α are class weights). With
            label smoothing the terms of all classes are weighted so, each by its own p. 0: the
            plain cross-entropy.
        class_weights: (C,); an example counts as its class does. With `multi_label` each class's
            term is weighted.

    Returns:
        (B,) float32.
    """
    logits = tf.cast(logits, tf.float32)
    num_classes = logits.shape[-1]
    if multi_label:
        targets = labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
        if focal_gamma:
            terms = targets * _focal(tf.math.log_sigmoid(logits), focal_gamma)
            terms += (1.0 - targets) * _focal(tf.math.log_sigmoid(-logits), focal_gamma)
        else:
            terms = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        if class_weights is not None:
            terms = terms * class_weights
        return tf.reduce_mean(terms, axis=-1)
    targets = tf.one_hot(labels, num_classes) * (1.0 - label_smoothing)
    targets += label_smoothing / num_classes
    if focal_gamma:
        terms = targets * _focal(tf.nn.log_softmax(logits), focal_gamma)
        losses = tf.reduce_sum(terms, axis=-1)
    else:
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    if class_weights is not None:
        losses = losses * tf.gather(class_weights, labels)
    return losses


def _focal(log_chance: tf.Tensor, gamma: float) -> tf.Tensor:
    """−(1 − p)^γ · log p, from log p.

    1 − p is taken as −expm1(log p), and never as 0, where its power has no gradient for γ below 1.
    """
    missing = tf.maximum(-tf.math.expm1(log_chance), 1e-7)
    return -(missing**gamma) * log_chance


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
    focal_gamma: float = 0.0,
    class_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of each frame, not yet averaged; 0 where the label is -1 (nothing is known).

    Args:
        labels: (B, T) int class indices, or -1.
        logits: (B, T, C) float32.
        label_smoothing: see `classification_loss`.
        focal_gamma: likewise.
        class_weights: (C,); a frame counts as its class does.

    Returns:
        (B, T) float32.
    """
    losses = classification_loss(
        tf.maximum(labels, 0),
        logits,
        label_smoothing=label_smoothing,
        focal_gamma=focal_gamma,
        class_weights=class_weights,
    )
    return tf.where(labels >= 0, losses, tf.zeros_like(losses))


def distillation_loss(
    teacher: tf.Tensor, logits: tf.Tensor, temperature: float, *, multi_label: bool = False
) -> tf.Tensor:
    """How far the answers are from a teacher's: T² times the Kullback-Leibler divergence.

    Both models' logits are divided by T first; T² keeps the gradient's size (Hinton et al. 2015).

    Args:
        teacher: logits (..., C).
        logits: (..., C).
        temperature: T.
        multi_label: each class is a yes or no of its own, over which the mean is taken, rather
            than all classes one distribution.

    Returns:
        (...) float32.
    """
    wanted = tf.cast(teacher, tf.float32) / temperature
    found = tf.cast(logits, tf.float32) / temperature
    if multi_label:
        sides = [
            tf.sigmoid(sign * wanted)
            * (tf.math.log_sigmoid(sign * wanted) - tf.math.log_sigmoid(sign * found))
            for sign in (1.0, -1.0)
        ]
        return temperature**2 * tf.reduce_mean(tf.add_n(sides), axis=-1)
    difference = tf.nn.log_softmax(wanted) - tf.nn.log_softmax(found)
    return temperature**2 * tf.reduce_sum(tf.nn.softmax(wanted) * difference, axis=-1)


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
