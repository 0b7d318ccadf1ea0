"""Features of boxes: RoI align."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError


@keras.saving.register_keras_serializable("kvideo")
class RoIAlign(keras.layers.Layer):
    """Cuts boxes out of a map, each as so many bins, by bilinear interpolation.

    A box is divided into equal bins; each bin is the mean of `samples` × `samples` points, spread
    evenly over it. Positions are exact: a value of the map stands for the middle of its cell, at
    (i + 1/2) / height, which is what other implementations call `aligned`. Between the last middle
    and the border the last value holds; further than half a cell outside there is 0.

    Args:
        size: (height, width) of the result, in bins.
        samples: points of a bin in either direction.

    Input shape:
        A list of features (B, H, W, C) and boxes (B, N, 4): x1, y1, x2, y2 as fractions of width
        and height.

    Output shape:
        (B, N, height, width, C).

    References:
        He et al. 2017, "Mask R-CNN".
    """

    def __init__(self, size: Sequence[int] = (7, 7), samples: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size, self.samples = tuple(int(side) for side in size), int(samples)
        if len(self.size) != 2 or min(*self.size, self.samples) < 1:
            raise UsageError(
                f"size must be two numbers and samples one, from 1 on, not {size} and {samples}."
            )

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """See the class."""
        features, boxes = input_shape
        return (features[0], boxes[1], *self.size, features[-1])

    def call(self, inputs: Any) -> Any:
        """See the class."""
        features, boxes = inputs
        # Bilinear interpolation and the mean over a bin's points are one matrix for the rows and
        # one for the columns: two products instead of a look at each point.
        _, height, width, channels = features.shape
        shape, count = tf.shape(features), tf.shape(boxes)[1]
        height, width = height or shape[1], width or shape[2]
        corners = tf.cast(boxes, tf.float32)
        down = self._weights(corners[..., 1], corners[..., 3], height, self.size[0])
        right = self._weights(corners[..., 0], corners[..., 2], width, self.size[1])
        flat = tf.reshape(tf.cast(features, tf.float32), (shape[0], height, -1))
        rows = tf.matmul(tf.reshape(down, (shape[0], -1, height)), flat)  # (B, N*h, W*C)
        rows = tf.reshape(rows, (shape[0], count, self.size[0], width, channels))
        result = tf.matmul(right[:, :, tf.newaxis], rows)  # (B, N, h, w, C)
        result = tf.ensure_shape(result, (None, boxes.shape[1], *self.size, channels))
        return tf.cast(result, self.compute_dtype)

    def _weights(self, first: Any, last: Any, cells: Any, bins: int) -> Any:
        """How much each cell counts for each bin of boxes between two borders, (B, N, bins, cells).

        Args:
            first: (B, N) as a fraction of the axis.
            last: likewise.
            cells: of the axis.
            bins: of a box.
        """
        length = tf.cast(cells, tf.float32)
        steps = (tf.range(bins * self.samples, dtype=tf.float32) + 0.5) / (bins * self.samples)
        places = first[..., tf.newaxis] + steps * (last - first)[..., tf.newaxis]
        places = places * length - 0.5  # the first cell's middle is 0
        inside = (places >= -1.0) & (places <= length)
        held = tf.clip_by_value(places, 0.0, length - 1.0)[..., tf.newaxis]
        weights = tf.maximum(0.0, 1.0 - tf.abs(held - tf.range(length)))
        weights = tf.where(inside[..., tf.newaxis], weights, tf.zeros_like(weights))
        shape = tf.concat([tf.shape(first), [bins, self.samples, cells]], axis=0)
        return tf.reduce_mean(tf.reshape(weights, shape), axis=3)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "size": self.size, "samples": self.samples}
