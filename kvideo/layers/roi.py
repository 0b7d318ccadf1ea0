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
        height, width = (side * self.samples for side in self.size)
        shape, count = tf.shape(features), tf.shape(boxes)[1]
        # A border of the outermost values: within half a cell outside they hold.
        padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        corners = tf.cast(tf.reshape(boxes, (-1, 4)), tf.float32)
        x = _ends(corners[:, 0], corners[:, 2], shape[2], width)
        y = _ends(corners[:, 1], corners[:, 3], shape[1], height)
        owner = tf.repeat(tf.range(shape[0]), count)
        points = tf.image.crop_and_resize(
            tf.cast(padded, tf.float32), tf.stack([y[0], x[0], y[1], x[1]], axis=1),
            owner, (height, width),
        )  # fmt: skip
        if self.samples > 1:
            points = tf.nn.avg_pool2d(points, self.samples, self.samples, "VALID")
        result = tf.reshape(points, (shape[0], count, *self.size, features.shape[-1]))
        return tf.cast(result, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer`."""
        return {**super().get_config(), "size": self.size, "samples": self.samples}


def _ends(first: Any, last: Any, cells: Any, points: int) -> tuple[Any, Any]:
    """Where the first and the last of the points of boxes are, as `crop_and_resize` counts.

    It counts the middles of the cells, padded ones included, from 0 to 1.
    """
    length = tf.cast(cells, tf.float32)
    step = (last - first) * length / points
    begin = first * length - 0.5 + 0.5 * step + 1.0  # in middles of the padded map
    return begin / (length + 1.0), (begin + step * (points - 1)) / (length + 1.0)
