"""The first layer of models of motion: pixels per frame to normalized numbers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kvideo.errors import UsageError


@keras.saving.register_keras_serializable("kvideo")
class FlowNormalization(keras.Layer):
    """Cuts optical flow to [-limit, limit] and divides it by `limit`.

    The arithmetic is done in float32; the result has the policy's compute type.

    Args:
        limit: pixels per frame, positive.

    Input shape:
        `(..., C)`, pixels per frame.

    Output shape:
        The same, in [-1, 1].

    Raises:
        UsageError: `limit` is not positive.

    References:
        Carreira & Zisserman 2017, "Quo Vadis, Action Recognition?": 20 pixels.
    """

    def __init__(self, limit: float = 20.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False
        if not limit > 0:
            raise UsageError(f"limit must be positive, not {limit!r}.")
        self.limit = float(limit)

    def call(self, inputs: Any) -> Any:
        """(..., C) -> (..., C)."""
        flow = ops.clip(ops.cast(inputs, "float32"), -self.limit, self.limit)
        return ops.cast(flow / self.limit, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "limit": self.limit}
