"""The weights that are tested and saved, where they are not those of the last step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kvideo.training.averaging import WeightAverage
from kvideo.training.precise_statistics import PreciseStatistics


class TestedWeights:
    """What a model is validated and saved with: averaged weights, precise batch statistics.

    Args:
        model: built under `strategy`'s scope.
        network: the part of it that is trained on `batches`.
        strategy: a `tf.distribute` strategy.
        batches: gives at most so many batches of training clips, as the strategy distributes them.
        ema: decay of a `WeightAverage`; None: the weights themselves.
        precise_bn: number of batches for `PreciseStatistics`; None: the running averages.

    Raises:
        UsageError: see `PreciseStatistics`.

    Attributes:
        variables: what a checkpoint has to keep.
    """

    __test__ = False  # not one of pytest's

    def __init__(
        self,
        model: keras.Model,
        network: keras.Model,
        strategy: tf.distribute.Strategy,
        batches: Callable[[int], Iterable[Any]],
        ema: float | None,
        precise_bn: int | None,
    ) -> None:
        self._average = None if ema is None else WeightAverage(model, strategy, ema)
        self._precise = None
        if precise_bn is not None:
            self._precise = PreciseStatistics(network, strategy, lambda: batches(precise_bn))
        self.variables = [] if self._average is None else self._average.variables

    def after_step(self, steps: Any) -> None:
        """Is told of every step; `steps` is how many there were."""
        if self._average is not None:
            self._average.update(steps)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model has them; training goes on with its own."""
        with contextlib.ExitStack() as stack:
            if self._average is not None:
                stack.enter_context(self._average.applied())
            if self._precise is not None:
                stack.enter_context(self._precise.applied())  # under the averaged weights
            yield
