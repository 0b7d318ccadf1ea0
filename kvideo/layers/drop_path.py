"""Stochastic depth: residual branches that are left out at random in training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kvideo.errors import UsageError


@keras.saving.register_keras_serializable("kvideo")
class DropPath(keras.layers.Layer):
    """Sets whole examples to zero at random in training, and scales the others up.

    Put behind a residual branch it leaves the branch out for these examples. The expected output
    is the input; at test time the layer does nothing.

    Args:
        rate: probability of leaving an example out, 0 <= rate < 1.
        seed: of the random numbers.

    Input shape:
        (B, ...).

    Output shape:
        The same.

    Raises:
        UsageError: `rate` is out of its range.

    References:
        Huang et al. 2016, "Deep Networks with Stochastic Depth".
    """

    def __init__(self, rate: float, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= rate < 1:
            raise UsageError(f"rate must be at least 0 and less than 1, not {rate!r}.")
        self.rate, self.seed = rate, seed
        self.generator = keras.random.SeedGenerator(seed) if rate else None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(B, ...) -> (B, ...)."""
        if not training or not self.rate:
            return inputs
        shape = (ops.shape(inputs)[0], *(1 for _ in inputs.shape[1:]))
        chance = keras.random.uniform(shape, dtype="float32", seed=self.generator)
        kept = ops.cast(chance >= self.rate, inputs.dtype)
        return inputs * (kept / ops.cast(1 - self.rate, inputs.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
