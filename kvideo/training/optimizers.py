"""Optimizers: Keras's with a rate for each variable, and LARS and LAMB for large batches.

All of them know, for each variable, a factor on the learning rate (layer-wise decay), whether it
is a vector (normalization's scales and offsets, biases), and the step at which its training began
(gradual unfreezing). These are settings, not state: a checkpoint holds the variables only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from kvideo.training.stages import stages

if TYPE_CHECKING:
    from kvideo.training.experiment import Experiment

LEARNING_RATES = {"adamw": 1e-3, "sgd": 0.05, "lars": 2.0, "lamb": 4e-3}
WEIGHT_DECAYS = {"adamw": 0.05, "sgd": 5e-4, "lars": 5e-4, "lamb": 0.05}


class _PerVariable:
    """What depends on the variable: its rate, its weight decay, its first step.

    To be mixed into a `keras.optimizers.Optimizer`, in front of it.

    Attributes:
        decay: the coefficient of weight decay; vectors are spared.
    """

    decay = 0.0
    # Of the optimizer that it is mixed into.
    built: bool
    assign_sub: Any
    _get_variable_index: Any

    def scale_rates(self, factors: Mapping[int, float]) -> None:
        """Sets factors on the learning rate: variable's `id` → factor; 1 where nothing is said."""
        self._factors = dict(factors)

    def begin_at(self, steps: Mapping[int, int]) -> None:
        """Sets the steps before which variables are not trained: variable's `id` → step, or 0."""
        self._first_steps = dict(steps)

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the optimizer's own variables; the settings of each are looked up here."""
        if self.built:
            return
        super().build(variables)  # type: ignore[misc]
        self._of_variable = [
            (
                getattr(self, "_factors", {}).get(id(variable), 1.0),
                len(variable.shape) <= 1,
                getattr(self, "_first_steps", {}).get(id(variable), 0),
            )
            for variable in variables
        ]

    def _settings(self, variable: Any) -> tuple[float, bool, int]:
        """Rate's factor, whether it is a vector, first step."""
        return self._of_variable[self._get_variable_index(variable)]

    def _shrink(self, variable: Any, rate: Any) -> None:
        """Decoupled weight decay (Loshchilov & Hutter 2019)."""
        if self.decay and not self._settings(variable)[1]:
            self.assign_sub(variable, variable * self.decay * rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = super().get_config()  # type: ignore[misc]
        return {**config, "weight_decay": self.decay}


@keras.saving.register_keras_serializable("kvideo")
class SGD(_PerVariable, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with a rate for each variable and decoupled weight decay.

    Args:
        learning_rate: its value.
        weight_decay: not on vectors.
        **options: see `keras.optimizers.SGD`.
    """

    def __init__(
        self, learning_rate: Any = 0.01, *, weight_decay: float | None = None, **options: Any
    ) -> None:
        super().__init__(learning_rate, **options)
        self.decay = weight_decay or 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        rate = learning_rate * self._settings(variable)[0]
        self._shrink(variable, rate)
        super().update_step(gradient, variable, rate)


class _Moments(_PerVariable):
    """Adam's direction (Kingma & Ba 2015), its corrections counted from a variable's first step."""

    def _direction(self, gradient: Any, variable: Any) -> Any:
        optimizer: Any = self
        index = optimizer._get_variable_index(variable)
        first, second = optimizer._momentums[index], optimizer._velocities[index]
        step = ops.cast(optimizer.iterations + 1 - self._of_variable[index][2], variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        optimizer.assign_add(first, (gradient - first) * (1 - optimizer.beta_1))
        optimizer.assign_add(second, (ops.square(gradient) - second) * (1 - optimizer.beta_2))
        mean = first / (1 - ops.power(optimizer.beta_1, step))
        root = ops.sqrt(second / (1 - ops.power(optimizer.beta_2, step)))
        return mean / (root + optimizer.epsilon)


@keras.saving.register_keras_serializable("kvideo")
class AdamW(_Moments, keras.optimizers.Adam):
    """AdamW (Loshchilov & Hutter 2019) with a rate for each variable.

    A variable that is thawed late has the full correction of its moments from then on; counted
    from the run's beginning its first steps would be up to six times too large.

    Args:
        learning_rate: its value.
        weight_decay: decoupled; not on vectors.
        **options: see `keras.optimizers.Adam`.
    """

    def __init__(
        self, learning_rate: Any = 0.001, *, weight_decay: float = 0.004, **options: Any
    ) -> None:
        super().__init__(learning_rate, **options)
        self.decay = weight_decay or 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        rate = learning_rate * self._settings(variable)[0]
        self._shrink(variable, rate)
        self.assign_sub(variable, rate * self._direction(gradient, variable))


@keras.saving.register_keras_serializable("kvideo")
class Lamb(_Moments, keras.optimizers.Lamb):
    """LAMB as in the paper: layer-wise adaptive moments for large batches.

    A kernel w moves by η·‖w‖/‖r + λw‖·(r + λw), where r is Adam's direction; vectors move by η·r,
    without adaptation or decay. Keras's own takes the decay out of the ratio, and adapts vectors.

    Args:
        learning_rate: η.
        weight_decay: λ.
        **options: see `keras.optimizers.Lamb`.

    References:
        You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
        algorithm 2.
    """

    def __init__(
        self, learning_rate: Any = 0.001, *, weight_decay: float | None = None, **options: Any
    ) -> None:
        super().__init__(learning_rate, **options)
        self.decay = weight_decay or 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        factor, is_vector, _ = self._settings(variable)
        update = self._direction(gradient, variable)
        if not is_vector:
            update = update + self.decay * variable
            update = update * _ratio(_norm(variable), _norm(update))
        self.assign_sub(variable, learning_rate * factor * update)


@keras.saving.register_keras_serializable("kvideo")
class Lars(_PerVariable, keras.optimizers.SGD):
    """Layer-wise adaptive rate scaling: momentum SGD for large batches.

    Each kernel's rate is such that a step changes it by the same share: with the global rate η and
    the trust coefficient τ, v ← m·v + η·τ·‖w‖ / (‖g‖ + λ‖w‖)·(g + λw) and w ← w − v. Vectors take
    v ← m·v + η·g.

    Args:
        learning_rate: η; much larger than that of SGD.
        momentum: m.
        trust: τ.
        weight_decay: λ; not on vectors.
        **options: see `keras.optimizers.Optimizer`.

    References:
        You, Gitman & Ginsburg 2017, "Large Batch Training of Convolutional Networks", algorithm 1.
    """

    def __init__(
        self,
        learning_rate: Any = 2.0,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float | None = None,
        **options: Any,
    ) -> None:
        options.pop("nesterov", None)  # part of the base's configuration; LARS has none
        super().__init__(learning_rate, momentum=momentum, **options)
        self.trust, self.decay = trust, weight_decay or 0.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        factor, is_vector, _ = self._settings(variable)
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype) * factor
        if not is_vector:
            size = _norm(variable)
            rate = rate * _ratio(self.trust * size, _norm(gradient) + self.decay * size)
            gradient = gradient + self.decay * variable
        velocity = self.momentums[self._get_variable_index(variable)]
        self.assign(velocity, self.momentum * velocity + rate * gradient)
        self.assign_sub(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "trust": self.trust}


def _norm(x: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(x)))  # of any rank; `ops.norm` takes two axes at most


def _ratio(above: Any, below: Any) -> Any:
    """Their quotient; 1 where one of them is 0, so that a kernel of zeros can move."""
    good = ops.logical_and(above > 0, below > 0)
    return ops.where(good, above / ops.where(good, below, 1.0), 1.0)


def make_optimizer(
    experiment: Experiment, model: keras.Model, first_steps: Mapping[int, int] | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer of an experiment, for a model's trainable variables.

    Args:
        experiment: names it, and its settings.
        model: what it is for.
        first_steps: see `begin_at`.
    """
    name = experiment.optimizer
    rate = experiment.learning_rate or LEARNING_RATES[name]
    decay = experiment.weight_decay
    decay = WEIGHT_DECAYS[name] if decay is None else decay
    optimizer: Any
    if name == "adamw":
        optimizer = AdamW(rate, weight_decay=decay)
    elif name == "lamb":
        optimizer = Lamb(rate, weight_decay=decay)
    elif name == "lars":
        optimizer = Lars(rate, weight_decay=decay)
    else:
        optimizer = SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    if experiment.layer_decay is not None:
        optimizer.scale_rates(layer_factors(model, experiment.layer_decay))
    optimizer.begin_at(first_steps or {})
    return optimizer


def layer_factors(model: keras.Model, decay: float) -> dict[int, float]:
    """Layer-wise decay: 1 for the head's variables, `decay` times less for each stage before it.

    Args:
        model: see `stages`.
        decay: 0 to 1.

    Returns:
        Variable's `id` → factor.

    References:
        Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification"
        (discriminative fine-tuning); Bao et al. 2022, "BEiT".
    """
    return {
        id(variable): decay**depth
        for depth, layers in enumerate(reversed(stages(model)))
        for layer in layers
        for variable in layer.trainable_variables
    }
