"""Late fusion: the class scores of several models become those of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from kvideo.errors import UsageError


@keras.saving.register_keras_serializable("kvideo")
class WeightedMean(keras.Layer):
    """The weighted mean of several tensors of one shape.

    Args:
        weights: one for each tensor, none negative, not all zero; they are divided by their sum.

    Input shape:
        A list of tensors `(B, ...)`.

    Output shape:
        `(B, ...)`.

    Raises:
        UsageError: the weights are no such numbers.
    """

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        numbers = [float(weight) for weight in weights]
        if not numbers or min(numbers) < 0 or not 0 < sum(numbers) < math.inf:
            raise UsageError(f"weights must be numbers from 0 on, not all 0, not {weights!r}.")
        self.shares = [number / sum(numbers) for number in numbers]

    def call(self, inputs: Sequence[Any]) -> Any:
        """[(B, ...), ...] -> (B, ...)."""
        return sum(share * each for share, each in zip(self.shares, inputs, strict=True))

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> Any:
        """The first one's."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "weights": self.shares}
