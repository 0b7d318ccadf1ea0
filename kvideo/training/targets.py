"""What a batch of clips is to be learnt as: labels, mixed or not, and a teacher's answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from kvideo.training.losses import distillation_loss, frame_loss, num_hits, video_loss
from kvideo.training.objective import Objective

Draw = tuple[tf.Tensor, tf.Tensor]


# What is not there: no tensor at all, for TensorFlow's structures of tensors.
_NOTHING: Any = ()


class Targets(NamedTuple):
    """The right answers for the clips of a batch, or for their frames.

    Labels of -1 do not count: nothing is known, or the clip only fills up a batch. All tensors
    have the clips as their first axis, and where there are frames these as their second.

    Attributes:
        labels: (B,) int, (B, C) float 0/1 for several labels a video, or (B, T) int.
        others: of mixed clips the labels of what was mixed in.
        share: how much `labels` count and `others` do not, (B,) or (B, T) float32.
        teacher: a teacher's logits, (B, C) or (B, T, C).
    """

    labels: tf.Tensor
    others: Any = _NOTHING
    share: Any = _NOTHING
    teacher: Any = _NOTHING

    def part(self, first: Any, count: int) -> Targets:
        """Those of some frames of each clip."""
        return tf.nest.map_structure(lambda x: x[:, first : first + count], self)

    def known(self, per_frame: bool) -> tf.Tensor:
        """Which clips, or which frames, count: bool (B,) or (B, T)."""
        if per_frame:
            return self.labels >= 0
        return _counts(self.labels)

    def losses(self, logits: tf.Tensor, objective: Objective, weights: Any) -> tf.Tensor:
        """The loss of each clip or frame, not yet averaged.

        Args:
            logits: (B, C), or (B, T, C) for labels over time.
            objective: see there.
            weights: its class weights as a tensor, or None.

        Returns:
            (B,) or (B, T) float32; 0 where the label is -1.
        """
        per_frame = len(logits.shape) == 3
        options: dict[str, Any] = {
            "label_smoothing": objective.label_smoothing,
            "focal_gamma": objective.focal_gamma,
            "class_weights": weights,
        }

        def hard(labels: tf.Tensor) -> tf.Tensor:
            if per_frame:
                return frame_loss(labels, logits, **options)
            return video_loss(labels, logits, multi_label=objective.multi_label, **options)

        losses = hard(self.labels)
        if _given(self.others):
            losses = self.share * losses + (1.0 - self.share) * hard(self.others)
        if objective.teacher is None:
            return losses
        how = objective.teacher.how
        soft = distillation_loss(
            self.teacher, logits, how.temperature, multi_label=objective.multi_label
        )
        soft = tf.where(self.known(per_frame), soft, tf.zeros_like(soft))
        return (1.0 - how.weight) * losses + how.weight * soft

    def hits(self, logits: tf.Tensor, multi_label: bool) -> tf.Tensor:
        """How many clips or frames have the right best class.

        Of mixed ones, the label of which there is more is the right one.
        """
        labels = self.labels
        if _given(self.others):
            most = self.share >= 0.5
            labels = tf.where(most[:, tf.newaxis] if multi_label else most, labels, self.others)
        return num_hits(labels, logits, multi_label)


def _given(value: Any) -> bool:
    return not isinstance(value, tuple)


def targets_of(
    clips: tf.Tensor, labels: tf.Tensor, objective: Objective, per_frame: bool, draw: Draw | None
) -> tuple[tf.Tensor, Targets]:
    """A batch of clips as it is shown to the model, and what is to be learnt of it.

    Args:
        clips: (B, T, H, W, C), or features (B, T, C).
        labels: see `Targets`.
        objective: see there.
        per_frame: whether labels are those of frames.
        draw: what `Mixing.draw` gave; None: nothing is mixed.

    Returns:
        Clips, of the same type, and targets.
    """
    targets = Targets(labels)
    if draw is not None:
        clips, targets = _mixed(clips, labels, per_frame, draw, objective.mixing.distance)
    if objective.teacher is not None:
        answers = tf.stop_gradient(objective.teacher(clips))
        targets = targets._replace(teacher=answers)
    return clips, targets


def _mixed(
    clips: tf.Tensor, labels: tf.Tensor, per_frame: bool, draw: Draw, distance: int
) -> tuple[tf.Tensor, Targets]:
    count = tf.shape(clips)[0]
    partners = _partners(count, distance)
    others = tf.gather(labels, partners)
    # A clip that fills up the batch is neither mixed nor mixed into another.
    counts = _counts(labels, any_frame=per_frame)
    mixable = counts & tf.gather(counts, partners)  # (B,)
    pixels, share = draw
    first = tf.cast(clips, tf.float32)
    second = tf.gather(first, partners)
    shape = [count, *[1] * (len(clips.shape) - 1)]
    pixels = tf.where(tf.reshape(mixable, shape), pixels, tf.ones_like(pixels))
    mixed = pixels * first + (1.0 - pixels) * second
    if clips.dtype.is_integer:
        mixed = tf.round(mixed)
    share = tf.where(mixable, share, tf.ones_like(share))
    alone = ~tf.reshape(mixable, [count, *[1] * (len(labels.shape) - 1)])
    others = tf.where(alone, labels, others)
    if per_frame:  # where one of the two is unknown, nothing is known of the mixed frame
        known = (labels >= 0) & (others >= 0)
        labels, others = (tf.where(known, each, -tf.ones_like(each)) for each in (labels, others))
        share = tf.broadcast_to(share[:, tf.newaxis], tf.shape(labels))
    return tf.cast(mixed, clips.dtype), Targets(labels, others, share)


def _partners(count: tf.Tensor, distance: int) -> tf.Tensor:
    """The number of the clip that each clip is mixed with, (count,).

    Blocks of `distance` clips swap places with their neighbours; the last one, if it has none,
    takes the first.
    """
    numbers = tf.range(count)
    further = tf.where(numbers + distance < count, numbers + distance, numbers % distance)
    return tf.where(numbers // distance % 2 == 0, further, numbers - distance)


def _counts(labels: tf.Tensor, any_frame: bool = False) -> tf.Tensor:
    """Which clips are more than a filling, bool (B,)."""
    known = tf.reshape(labels >= 0, [tf.shape(labels)[0], -1])
    return tf.reduce_any(known, axis=1) if any_frame else tf.reduce_all(known, axis=1)
