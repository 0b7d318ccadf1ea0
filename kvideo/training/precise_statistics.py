"""Precise batch norm: the statistics of many batches under the weights as they are.

A running average mixes statistics of weights that have long changed. Before a model is tested, the
moments of a number of training batches are taken with fixed weights, and put together (Wu & Johnson
2021, "Rethinking 'Batch' in BatchNorm", section 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.errors import UsageError


class PreciseStatistics:
    """Computes a network's batch statistics anew.

    Args:
        network: built under `strategy`'s scope.
        strategy: a `tf.distribute` strategy.
        batches: gives clips, as the strategy distributes them, each time it is called.

    Raises:
        UsageError: the network has no batch norm that is trained.
    """

    def __init__(
        self,
        network: keras.Model,
        strategy: tf.distribute.Strategy,
        batches: Callable[[], Iterable[Any]],
    ) -> None:
        self._network, self._strategy, self._batches = network, strategy, batches
        self._passes: dict[tuple[int, ...], Callable[[Any], Any]] = {}  # by their batch norms
        if not self._norms():
            raise UsageError(
                f'precise_bn needs a model with batch norms that are trained; "{network.name}" has '
                "none."
            )

    def _norms(self) -> list[Any]:
        return [
            layer
            for layer in self._network._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the batch norms have the statistics of the batches; what else is as it was."""
        state = self._network.non_trainable_variables
        before = [np.asarray(variable) for variable in state]
        norms = self._norms()  # none while gradual unfreezing trains the head only
        try:
            moments = self._moments(norms) if norms else []
            _assign(state, before)  # random numbers, above all
            for norm, (mean, variance) in zip(norms, moments, strict=True):
                norm.moving_mean.assign(mean)
                norm.moving_variance.assign(variance)
            yield
        finally:
            _assign(state, before)

    def _moments(self, norms: list[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and variance of each batch norm's inputs, over all batches."""
        key = tuple(map(id, norms))
        if key not in self._passes:
            self._passes[key] = self._compile(norms)
        run = self._passes[key]
        sums: list[list[Any]] = [[0.0, 0.0] for _ in norms]
        count = 0
        for clips in self._batches():
            run(clips)
            count += 1
            for norm, total in zip(norms, sums, strict=True):
                mean = np.asarray(norm.moving_mean).astype(np.float64)
                total[0] = total[0] + mean
                total[1] = total[1] + np.asarray(norm.moving_variance).astype(np.float64) + mean**2
        means = [(mean / count, square / count) for mean, square in sums]
        return [(mean, np.maximum(square - mean**2, 0)) for mean, square in means]

    def _compile(self, norms: list[Any]) -> Callable[[Any], Any]:
        """A forward pass under training that leaves the batch's own moments in the batch norms."""

        def forward(clips: Any) -> None:
            momenta = [norm.momentum for norm in norms]
            try:
                for norm in norms:
                    norm.momentum = 0.0  # read while the graph is made
                self._network(clips, training=True)
            finally:
                for norm, momentum in zip(norms, momenta, strict=True):
                    norm.momentum = momentum

        @tf.function
        def run(clips: Any) -> None:
            self._strategy.run(forward, args=(clips,))

        return run


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
