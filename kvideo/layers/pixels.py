"""The first layer of every model: pixels 0..255 to normalized numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kvideo.errors import UsageError, check_choice

CHANNEL_ORDERS = ("rgb", "bgr")


@keras.saving.register_keras_serializable("kvideo")
class PixelNormalization(keras.Layer):
    """Computes `(pixel - mean) / std`, per channel or for all channels alike.

    The arithmetic is done in float32 whatever the precision policy, because bfloat16 cannot tell
    200.4 from 201; the result has the policy's compute type.

    Args:
        mean: one number or one per channel, in pixel values 0..255, in the order `channel_order`.
        std: likewise; positive.
        channel_order: `"rgb"`, or `"bgr"` to reverse the channels of the RGB input first.

    Input shape:
        `(..., C)`, RGB 0..255, `uint8` or float.

    Output shape:
        The same.

    Raises:
        UsageError: a value is out of its range.
    """

    def __init__(
        self,
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 63.75,
        channel_order: str = "rgb",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.autocast = False
        self.mean = _numbers(mean)
        self.std = _numbers(std)
        self.channel_order = channel_order
        if min(np.atleast_1d(self.std)) <= 0:
            raise UsageError(f"std must be positive, not {std!r}.")
        check_choice("channel_order", channel_order, CHANNEL_ORDERS)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks the number of channels."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, list) and len(values) != input_shape[-1]:
                raise UsageError(
                    f"{name} has {len(values)} values, but the input has {input_shape[-1]} "
                    "channels."
                )
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        """(..., C) -> (..., C)."""
        pixels = ops.cast(inputs, "float32")
        if self.channel_order == "bgr":
            pixels = ops.flip(pixels, axis=-1)
        mean, std = np.asarray(self.mean, "float32"), np.asarray(self.std, "float32")
        return ops.cast((pixels - mean) / std, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "channel_order": self.channel_order,
        }


def _numbers(values: float | Sequence[float]) -> float | list[float]:
    array = np.asarray(values, "float64")
    return array.tolist() if array.ndim else float(array)
