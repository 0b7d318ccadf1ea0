"""One training step of an `actor_detector`: person head and actions together."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kvideo.data.keyframes import ACTIONS, ACTOR, BOX, HIDDEN, SHOWN
from kvideo.detection.cells import (
    boxes_of_cells,
    giou_loss,
    owners_of_cells,
    paired_iou,
    pairwise_iou,
)
from kvideo.detection.stages import has_person_head, split
from kvideo.errors import UsageError
from kvideo.models.actor_detector import ACTORNESS, FEATURE_MAP, SIDES
from kvideo.training.objective import Objective
from kvideo.training.step import clip_gradients

# Li et al. 2020, "Generalized Focal Loss": what is to be said of a cell is how well its box fits.
_GAMMA = 2.0
_LEAST_FIT = 0.2  # of an actor's cell while boxes are still wild
_PROPOSALS = 16  # boxes of the person head, of a clip, that the action head learns from
_SAME, _OTHER = 0.5, 0.3  # overlap from which on a box shows an actor; below which it shows none
_NMS = 0.7


def compile_detector_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    *,
    batch_size: int,
    objective: Objective | None = None,
    clip_norm: float | None = None,
    remat: bool = False,
    bptt: int | None = None,
    accumulate: int = 1,
) -> Any:
    """A function that takes one step of training on a batch.

    The loss of a clip is the sum of three: the quality focal loss of its map's cells, which are to
    say the overlap of their box with the actor's, divided by the number of cells that are an
    actor's; the mean of 1 − GIoU of these boxes; and the binary cross-entropy of the actions,
    summed over the classes, the mean over boxes. These boxes are the true ones, moved a little, and
    those of the person head: with an overlap of 0.5 they have the actor's actions, below 0.3 none.

    Args:
        model: an `actor_detector`, built under `strategy`'s scope.
        optimizer: built under `strategy`'s scope.
        strategy: a `tf.distribute` strategy.
        batch_size: clips in a step, over all replicas.
        objective: of a classifier; what of it a detector has no use for must be off.
        clip_norm: largest norm of the whole gradient; None for no limit.
        remat: not for detectors.
        bptt: not for detectors.
        accumulate: not for detectors.

    Returns:
        A function from clips (B, T, H, W, 3), labels (see `KeyframeClips`) and perhaps a flag ()
        to (4,) float32: sum of the losses; the sum over the clips of the share of actors whose best
        class is right; clips; and the sum of the flags of all replicas.

    Raises:
        UsageError: the model is no detector, or a setting that it cannot have.
    """
    if remat or bptt is not None or accumulate > 1:
        raise UsageError("a detector is trained without remat, bptt and accumulate.")
    num_replicas = strategy.num_replicas_in_sync
    first, second = split(model)
    variables = model.trainable_variables
    with_head = has_person_head(model)

    def losses_of(clips: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss, and the share of actors whose best class is right, of each clip (b,)."""
        known, hidden = labels[..., 0] == ACTOR, labels[..., 0] == HIDDEN
        boxes, shown, actions = labels[..., BOX], labels[..., SHOWN], labels[..., ACTIONS]
        found = first(clips, training=True)
        total = tf.zeros(tf.shape(clips)[0])
        if with_head:
            total += _head_loss(found, boxes, known, hidden)
            shown = tf.concat([shown, tf.stop_gradient(_proposals(found))], axis=1)
        targets, weights = _targets(shown, boxes, known, hidden, actions)
        logits = tf.cast(second([found[FEATURE_MAP], shown], training=True), tf.float32)
        terms = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        counted = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        total += tf.reduce_sum(tf.reduce_sum(terms, axis=-1) * weights, axis=1) / counted
        return total, _hits(logits[:, : tf.shape(boxes)[1]], actions, known)

    def replica_step(clips: tf.Tensor, labels: tf.Tensor, flag: tf.Tensor) -> tf.Tensor:
        counts = tf.cast(labels[:, 0, 0] >= 0, tf.float32)  # (b,) without what fills up
        with tf.GradientTape() as tape:
            losses, hits = losses_of(clips, labels)
            loss = tf.reduce_sum(losses * counts) / batch_size
            if model.losses:
                loss += tf.add_n(model.losses) / num_replicas
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if clip_norm:
            gradients = clip_gradients(gradients, clip_norm, num_replicas)
        optimizer.apply(gradients, variables)
        figures = [tf.reduce_sum(each * counts) for each in (losses, hits, tf.ones_like(counts))]
        return tf.stack([*figures, flag])

    # Neither the search for proposals nor the collectives of several replicas suit XLA.
    @tf.function(jit_compile=False)
    def step(clips: Any, labels: Any, flag: Any = None) -> tf.Tensor:
        flag = tf.constant(0.0) if flag is None else flag
        sums = strategy.run(replica_step, args=(clips, labels, flag))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    return step


def _head_loss(found: Any, boxes: tf.Tensor, known: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Actorness and boxes of the cells, (b,)."""
    logits = tf.cast(found[ACTORNESS], tf.float32)
    height, width = logits.shape[1:]
    owner, taken, free = owners_of_cells(boxes, known, height, width)
    _, near_hidden, _ = owners_of_cells(boxes, hidden, height, width)
    own = tf.cast(taken, tf.float32)
    background = tf.cast(free & ~near_hidden, tf.float32)
    number = tf.maximum(tf.reduce_sum(own, axis=(1, 2)), 1.0)
    wanted = tf.gather(boxes, owner, axis=1, batch_dims=1)  # (b, H, W, 4)
    said = boxes_of_cells(found[SIDES])
    fit = own * tf.stop_gradient(tf.maximum(paired_iou(said, wanted), _LEAST_FIT))
    surprise = tf.abs(fit - tf.sigmoid(logits)) ** _GAMMA
    focal = surprise * tf.nn.sigmoid_cross_entropy_with_logits(fit, logits) * (own + background)
    apart = giou_loss(said, wanted) * own
    return tf.reduce_sum(focal + apart, axis=(1, 2)) / number


def _proposals(found: Any) -> tf.Tensor:
    """The best boxes of the person head, (b, P, 4), zeros where there are fewer."""
    boxes = boxes_of_cells(found[SIDES])
    scores = tf.sigmoid(tf.cast(found[ACTORNESS], tf.float32))
    count = boxes.shape[1] * boxes.shape[2]
    best = tf.image.combined_non_max_suppression(
        tf.reshape(boxes, (-1, count, 1, 4)), tf.reshape(scores, (-1, count, 1)),
        _PROPOSALS, _PROPOSALS, iou_threshold=_NMS, score_threshold=0.0, clip_boxes=True,
    )  # fmt: skip
    return best.nmsed_boxes


def _targets(
    shown: tf.Tensor, boxes: tf.Tensor, known: tf.Tensor, hidden: tf.Tensor, actions: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Actions (b, M, C) of boxes (b, M, 4), and how much each box counts (b, M)."""
    overlaps = pairwise_iou(shown, boxes)  # (b, M, N)
    own = tf.where(known[:, tf.newaxis], overlaps, tf.zeros_like(overlaps))
    owner, best = tf.argmax(own, axis=-1), tf.reduce_max(own, axis=-1)
    of_hidden = tf.where(hidden[:, tf.newaxis], overlaps, tf.zeros_like(overlaps))
    unclear = tf.reduce_max(of_hidden, axis=-1) >= _OTHER
    same = best >= _SAME
    targets = tf.gather(actions, owner, axis=1, batch_dims=1)
    targets = tf.where(same[..., tf.newaxis], targets, tf.zeros_like(targets))
    empty = tf.reduce_all(shown[..., 2:] <= shown[..., :2], axis=-1)
    # Somebody whose actions nobody has noted says nothing about actions.
    noted = tf.reduce_any(tf.gather(actions, owner, axis=1, batch_dims=1) > 0, axis=-1)
    counts = ((same & noted) | (best < _OTHER)) & ~unclear & ~empty
    return targets, tf.cast(counts, tf.float32)


def _hits(logits: tf.Tensor, actions: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """(b,) the share of the actors whose best class is one of theirs; 1 where there are none."""
    best = tf.argmax(logits, axis=-1)
    right = tf.gather(actions, best, axis=2, batch_dims=2) * tf.cast(known, tf.float32)
    number = tf.reduce_sum(tf.cast(known, tf.float32), axis=1)
    return tf.where(number > 0, tf.math.divide_no_nan(tf.reduce_sum(right, axis=1), number), 1.0)
