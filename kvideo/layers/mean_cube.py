"""Subtracts a mean clip, pixel by pixel: what C3D's published weights were trained with."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kvideo.errors import check_choice
from kvideo.layers.pixels import CHANNEL_ORDERS


@keras.saving.register_keras_serializable("kvideo")
class MeanCubeSubtraction(keras.Layer):
    """Computes `pixel - cube`, with a mean of its own for every place, frame and channel.

    The cube is a weight that is not trained, zero at first: a saved model holds it, and nobody
    needs the file that it came from. The arithmetic is done in float32 whatever the precision
    policy; the result has the policy's compute type.

    Args:
        channel_order: of the cube and of the result: `"rgb"`, or `"bgr"` to reverse the channels
            of the RGB input first.

    Input shape:
        (B, T, H, W, C), RGB 0..255, `uint8` or float.

    Output shape:
        The same.

    References:
        Tran et al. 2015, "Learning Spatiotemporal Features with 3D Convolutional Networks".

    Raises:
        UsageError: unknown `channel_order`.
    """

    def __init__(self, channel_order: str = "bgr", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False
        self.channel_order = channel_order
        check_choice("channel_order", channel_order, CHANNEL_ORDERS)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the cube, (T, H, W, C)."""
        self.cube = self.add_weight(
            name="cube",
            shape=input_shape[1:],
            initializer="zeros",
            dtype="float32",
            trainable=False,
        )

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        pixels = ops.cast(inputs, "float32")
        if self.channel_order == "bgr":
            pixels = ops.flip(pixels, axis=-1)
        return ops.cast(pixels - ops.cast(self.cube, "float32"), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "channel_order": self.channel_order}
