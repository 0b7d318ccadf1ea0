"""Boxes and the cells of a map: which cells are an actor's, and what boxes the cells mean."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_CENTRAL = 0.5  # of a box's width and height: cells in there are the actor's


def cell_middles(height: int, width: int) -> tf.Tensor:
    """The middles of a map's cells, (height, width, 2): x, y as fractions."""
    x = (tf.range(width, dtype=tf.float32) + 0.5) / width
    y = (tf.range(height, dtype=tf.float32) + 0.5) / height
    return tf.stack(tf.meshgrid(x, y), axis=-1)


def boxes_of_cells(sides: tf.Tensor) -> tf.Tensor:
    """The boxes that a person head means.

    Args:
        sides: (B, H, W, 4) from each cell's middle to left, top, right and bottom.

    Returns:
        (B, H, W, 4) x1, y1, x2, y2, within the picture.
    """
    sides = tf.cast(sides, tf.float32)
    middles = cell_middles(sides.shape[1], sides.shape[2])
    corners = tf.concat([middles - sides[..., :2], middles + sides[..., 2:]], axis=-1)
    return tf.clip_by_value(corners, 0.0, 1.0)


def owners_of_cells(
    boxes: tf.Tensor, known: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which actor each cell of a map belongs to.

    A cell is an actor's if its middle lies in the central half of the box, or if it is the cell
    with the box's middle; where several would have it, the smallest box gets it. Cells in a box
    but outside of its centre are neither an actor's nor background.

    Args:
        boxes: (B, N, 4).
        known: (B, N) bool, which of these are boxes.
        height: of the map.
        width: of the map.

    Returns:
        The number of the box, (B, H, W) int32; whether there is one, (B, H, W) bool; whether the
        cell is to be learnt as background otherwise, (B, H, W) bool.
    """
    middles = cell_middles(height, width)[tf.newaxis, :, :, tf.newaxis]  # (1, H, W, 1, 2)
    low, high = boxes[:, tf.newaxis, tf.newaxis, :, :2], boxes[:, tf.newaxis, tf.newaxis, :, 2:]
    centre, half = (low + high) / 2, (high - low) / 2  # (B, 1, 1, N, 2)
    known = known[:, tf.newaxis, tf.newaxis, :]
    # Half a cell on either side: the cell that the middle is in always counts.
    cell = tf.constant([0.5 / width, 0.5 / height], tf.float32)
    distance = tf.abs(middles - centre)  # (B, H, W, N, 2)
    own = tf.reduce_all(distance <= tf.maximum(half * _CENTRAL, cell), axis=-1) & known
    inside = tf.reduce_all(distance <= half, axis=-1) & known
    area = tf.broadcast_to(half[..., 0] * half[..., 1], tf.shape(own))
    owner = tf.argmin(
        tf.where(own, area, tf.fill(tf.shape(own), 1e9)), axis=-1, output_type="int32"
    )
    taken = tf.reduce_any(own, axis=-1)
    return owner, taken, ~tf.reduce_any(inside, axis=-1) & ~taken


def pairwise_iou(one: tf.Tensor, two: tf.Tensor) -> tf.Tensor:
    """The IoU of every pair of boxes (B, N, 4) and (B, M, 4), as (B, N, M)."""
    return paired_iou(one[:, :, tf.newaxis], two[:, tf.newaxis])


def paired_iou(one: tf.Tensor, two: tf.Tensor) -> tf.Tensor:
    """The IoU of boxes (..., 4), one by one."""
    return tf.math.divide_no_nan(*_shared_and_union(one, two))


def giou_loss(one: tf.Tensor, two: tf.Tensor) -> tf.Tensor:
    """1 minus the generalized IoU of boxes (..., 4), one by one: 0 to 2.

    References:
        Rezatofighi et al. 2019, "Generalized Intersection over Union".
    """
    shared, union = _shared_and_union(one, two)
    whole_low = tf.minimum(one[..., :2], two[..., :2])
    whole_high = tf.maximum(one[..., 2:], two[..., 2:])
    whole = tf.reduce_prod(tf.maximum(whole_high - whole_low, 0.0), axis=-1)
    iou = tf.math.divide_no_nan(shared, union)
    return 1.0 - iou + tf.math.divide_no_nan(whole - union, whole)


def _shared_and_union(one: tf.Tensor, two: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    low, high = tf.maximum(one[..., :2], two[..., :2]), tf.minimum(one[..., 2:], two[..., 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0.0), axis=-1)
    return shared, _area(one) + _area(two) - shared


def _area(boxes: tf.Tensor) -> Any:
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)
