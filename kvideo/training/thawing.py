"""Gradual unfreezing: the head is trained first, then one stage more after the other.

A fresh head's first gradients are noise, and would spoil what the layers before it have learnt
(Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification").
"""

from __future__ import annotations

from typing import Any

import keras

from kvideo.training.stages import stages


class Thawing:
    """Which stages of a model are trained in which epoch.

    Args:
        model: see `stages`; what is frozen already stays so.
        epochs: after which the next stage, from the head down, is trained, too.
    """

    def __init__(self, model: keras.Model, epochs: int) -> None:
        self._epochs = epochs
        trained = [
            [layer for layer in stage if layer.trainable_variables]
            for stage in reversed(stages(model))
        ]
        self._stages = [stage for stage in trained if stage]
        self._variables = [
            [variable for layer in stage for variable in layer.trainable_variables]
            for stage in self._stages
        ]

    def first_steps(self, steps_per_epoch: int) -> dict[int, int]:
        """Variable's `id` → the step at which its training begins."""
        return {
            id(variable): number * self._epochs * steps_per_epoch
            for number, variables in enumerate(self._variables)
            for variable in variables
        }

    def count(self, epoch: int) -> int:
        """How many stages are trained in an epoch, from 0."""
        return min(len(self._stages), 1 + epoch // self._epochs)

    def freeze(self, epoch: int) -> None:
        """Freezes and thaws the layers as the epoch wants it.

        Frozen batch norms use their stored statistics. A step has to be compiled anew.
        """
        self._set(self.count(epoch))

    def thaw(self) -> None:
        """Thaws all."""
        self._set(len(self._stages))

    def _set(self, count: int) -> None:
        for number, stage in enumerate(self._stages):
            for layer in stage:
                layer.trainable = number < count

    def describe(self, epoch: int) -> str:
        """A line for a person: from which layer on the model is trained."""
        count = self.count(epoch)
        layer: Any = self._stages[count - 1][0]
        which = (
            "All layers are" if count == len(self._stages) else f"From {layer.name} on layers are"
        )
        return f"{which} trained from epoch {epoch + 1} on."
