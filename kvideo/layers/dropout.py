"""Parts that are left out at random in training; the same ones however many devices there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvideo.errors import UsageError


def shared_uniform(shape: Sequence[Any], generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Random numbers for the examples of this device, float32 from 0 to below 1.

    Every device draws what one device would draw for the whole batch, and takes its own rows. So
    the devices' numbers differ, and a run gives the same whatever their number.

    Args:
        shape: of the result; its first axis is the batch's, on this device.
        generator: in the same state on every device.
    """
    seed = tf.cast(generator.next(), tf.int32)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.random.stateless_uniform(shape, seed)
    rows = shape[0]
    numbers = tf.random.stateless_uniform([rows * context.num_replicas_in_sync, *shape[1:]], seed)
    first = tf.cast(context.replica_id_in_sync_group, tf.int32) * rows
    return numbers[first : first + rows]


@keras.saving.register_keras_serializable("kvideo")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, which drops the same however many devices share the batch.

    Keras's drops the same in every device's part of the batch, so that two devices and one train
    differently.

    Input shape:
        (B, ...).

    Output shape:
        The same.

    References:
        Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
    """

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """(B, ...) -> (B, ...)."""
        if not training or not self.rate:
            return inputs
        sizes = [ops.shape(inputs)[axis] for axis in range(len(inputs.shape))]
        if self.noise_shape is not None:
            sizes = [s if n is None else n for s, n in zip(sizes, self.noise_shape, strict=True)]
        kept = ops.cast(shared_uniform(sizes, self.seed_generator) >= self.rate, inputs.dtype)
        return inputs * (kept / ops.cast(1 - self.rate, inputs.dtype))


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
        chance = shared_uniform(shape, self.generator)
        kept = ops.cast(chance >= self.rate, inputs.dtype)
        return inputs * (kept / ops.cast(1 - self.rate, inputs.dtype))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
