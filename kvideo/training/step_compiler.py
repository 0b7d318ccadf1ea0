"""The compiled step of each epoch: for the layers that are trained, and the shapes of clips."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvideo.training.loop_state import LoopOptions
from kvideo.training.multigrid import GridSteps
from kvideo.training.objective import Objective
from kvideo.training.step import compile_step
from kvideo.training.step_plan import StepPlan
from kvideo.training.thawing import Thawing

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class StepCompiler:
    """Compiles the step anew only where an epoch trains other layers than the one before.

    Args:
        network: see `compile_step`.
        optimizer: likewise.
        strategy: likewise.
        objective: likewise.
        options: of the loop.
        plan: the steps' batches.
        thawing: which layers are trained in which epoch; None: always the same.
        say: is told which layers come in.
        make_step: see `Loop`.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        objective: Objective | None,
        options: LoopOptions,
        plan: StepPlan,
        thawing: Thawing | None,
        say: Callable[[str], None],
        make_step: Callable[..., Any] | None = None,
    ) -> None:
        self._compile = functools.partial(
            make_step or compile_step,
            optimizer=optimizer,
            strategy=strategy,
            objective=objective,
            clip_norm=options.clip_norm,
            remat=options.remat,
            bptt=options.bptt,
            accumulate=options.accumulate,
        )
        self._network, self._strategy, self._plan = network, strategy, plan
        self._thawing, self._say = thawing, say
        self._step: Any = None
        self._stages: int | None = None

    def __call__(self, epoch: int) -> Any:
        """The step of an epoch, see `compile_step`; freezes and thaws the model's layers."""
        stages = None
        if self._thawing is not None:
            self._thawing.freeze(epoch)
            stages = self._thawing.count(epoch)
        if self._step is None or stages != self._stages:
            if self._step is not None and self._thawing is not None:
                self._say(self._thawing.describe(epoch))
            self._step, self._stages = self._compiled(), stages
        return self._step

    def _compiled(self) -> Any:
        if self._plan.grids is None:
            return self._compile(self._network, batch_size=self._plan.batch_size)
        steps = GridSteps(
            self._network,
            lambda network, batch_size: self._compile(network, batch_size=batch_size),
            self._strategy,
        )
        steps.check(self._plan.grids)
        return steps
