"""An average of the weights over the steps, which tests better than the last ones.

Polyak & Juditsky 1992; with an exponential decay as in Szegedy et al. 2016.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_WARM_UP = 10.0


class WeightAverage:
    """Exponential moving averages of all of a model's numbers, batch norms' statistics included.

    After t steps the decay is at most (1 + t) / (10 + t), so that the first, random weights are
    soon forgotten. Training goes on with the weights themselves.

    Args:
        model: built under `strategy`'s scope.
        strategy: a `tf.distribute` strategy.
        decay: 0 to below 1; such as 0.999.

    Attributes:
        variables: the averages, for a checkpoint.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy, decay: float) -> None:
        # The states of random numbers are integers.
        self._model = [v for v in model.variables if tf.as_dtype(v.dtype).is_floating]
        with strategy.scope():
            self.variables = [
                keras.Variable(keras.ops.convert_to_numpy(v), dtype=v.dtype, trainable=False)
                for v in self._model
            ]

        def move(average: tf.Variable, value: Any, keep: Any) -> None:
            # So written, the average of a constant is that constant.
            average.assign_add((value - average) * tf.cast(1.0 - keep, average.dtype))

        def swap(average: tf.Variable, other: tf.Variable) -> None:
            value = tf.identity(other)
            with tf.control_dependencies([value]):
                other.assign(average)
            average.assign(value)

        @tf.function
        def update(steps: Any) -> None:
            steps = tf.cast(steps, tf.float32)
            keep = tf.minimum(decay, (1.0 + steps) / (_WARM_UP + steps))
            for average, variable in zip(self.variables, self._model, strict=True):
                strategy.extended.update(average.value, move, args=(variable.value, keep))

        @tf.function
        def exchange() -> None:
            for average, variable in zip(self.variables, self._model, strict=True):
                strategy.extended.update(average.value, swap, args=(variable.value,))

        self._update, self._exchange = update, exchange

    def update(self, steps: Any) -> None:
        """Takes the weights after a step in; `steps` is how many there were."""
        self._update(tf.convert_to_tensor(steps))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model has the averages."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
