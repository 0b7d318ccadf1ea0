"""Multigrid training: large batches of short, small clips first, and the full shape at the end.

A long cycle over the epochs goes from 8 times as many clips of a quarter of the frames and 1/√2 of
the side to the shape that was asked for; within each of its stages a short cycle changes the side
from step to step (half, 1/√2, whole; with 4, 2, 1 times as many clips). A step then costs about the
same at every shape, and an epoch takes far fewer of them (Wu et al. 2020, "A Multigrid Method for
Efficiently Training Video Models"). The last tenth of the epochs has the full shape only, so that
batch norms' statistics are those of the clips that will be tested.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.pipeline import ClipSource
from kvideo.data.shares import WHOLE, Share
from kvideo.errors import UsageError

# Clips, share of the frames, share of the side.
_LONG = ((8, 1 / 4, math.sqrt(0.5)), (4, 1 / 2, math.sqrt(0.5)), (2, 1 / 2, 1.0), (1, 1.0, 1.0))
_SHORT = ((4, 0.5), (2, math.sqrt(0.5)), (1, 1.0))
_LAST = 0.1  # share of the epochs that has the full shape only
_MULTIPLE = 8  # of pixels that sides are rounded to
_STEPS = 20  # an epoch has at least so many steps of a kind, or batches grow less


@dataclasses.dataclass(frozen=True)
class Grid:
    """One shape of batches.

    Attributes:
        factor: how many times the batch size.
        spec: what its clips are; they last as long as the full ones.
    """

    factor: int
    spec: ClipSpec


class Multigrid:
    """Which batches a run has: in which shapes, of which clips.

    Args:
        spec: the full clip.
        batch_size: clips in a step at the full shape.
        num_clips: in an epoch.
        epochs: of the run.
    """

    def __init__(self, spec: ClipSpec, batch_size: int, num_clips: int, epochs: int) -> None:
        self.spec, self.batch_size, self.num_clips = spec, batch_size, num_clips
        self.epochs = epochs
        self._most = max(1, num_clips // (_STEPS * batch_size))

    def stage(self, epoch: int) -> int | None:
        """The long cycle's stage in an epoch, from 0; None: the full shape only."""
        alone = max(1, round(_LAST * self.epochs))
        if epoch >= self.epochs - alone:
            return None
        return len(_LONG) * epoch // (self.epochs - alone)

    def grids(self, epoch: int) -> list[Grid]:
        """The shapes that follow one another in an epoch, over and over; some may be equal."""
        stage = self.stage(epoch)
        if stage is None:
            return [Grid(1, self.spec)]
        clips, frames, side = _LONG[stage]
        return [
            Grid(min(clips * more, self._most), self._shrunk(frames, side * smaller))
            for more, smaller in _SHORT
        ]

    def _shrunk(self, frames: float, side: float) -> ClipSpec:
        count = max(1, round(self.spec.num_frames * frames))
        rate = self.spec.frame_rate * count / self.spec.num_frames
        size = tuple(
            min(full, max(_MULTIPLE, round(full * side / _MULTIPLE) * _MULTIPLE))
            for full in self.spec.size
        )
        return self.spec.replace(num_frames=count, frame_rate=rate, size=size, short_side=None)

    def rate(self, epoch: int) -> float:
        """How many times the batch size the stage of the long cycle has.

        The learning rate follows it; not the short cycle, where that was found to do harm.
        """
        stage = self.stage(epoch)
        return 1.0 if stage is None else float(min(_LONG[stage][0], self._most))

    def starts(self, epoch: int) -> list[int]:
        """The first clip of each step of an epoch, and where the last step ends."""
        factors = [grid.factor for grid in self.grids(epoch)]
        found = [0]
        while found[-1] < self.num_clips:
            factor = factors[(len(found) - 1) % len(factors)]
            found.append(found[-1] + factor * self.batch_size)
        return found

    def steps(self, epoch: int) -> int:
        """Steps of an epoch."""
        return len(self.starts(epoch)) - 1


@dataclasses.dataclass(frozen=True)
class _StepsOfGrid(Share):
    """A process's rows of those batches of an epoch that have one shape."""

    first_clips: tuple[int, ...] = ()

    def places(self, batch_size: int, first_batch: int, num_batches: int) -> Iterator[int]:
        rows = batch_size // self.workers
        for start in self.first_clips:
            first = start + self.worker * rows
            yield from range(first, first + rows)


class MultigridSource:
    """Batches of clips in the shapes that a `Multigrid` wants.

    Args:
        plan: which.
        full: gives clips of the full shape.
        source_of: gives a source of other clips of the same videos.
    """

    def __init__(
        self, plan: Multigrid, full: ClipSource, source_of: Callable[[ClipSpec], ClipSource]
    ) -> None:
        self.plan, self.full, self.failures = plan, full, full.failures
        self._source_of = functools.cache(source_of)
        self._used: list[ClipSource] = [full]

    @property
    def error(self) -> Exception | None:
        """What ended the last iteration early."""
        return next((source.error for source in self._used if source.error is not None), None)

    @property
    def num_clips(self) -> int:
        """Clips in an epoch."""
        return self.full.num_clips

    def batches(
        self, batch_size: int, *, epoch: int, first_batch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """See `ClipSource`; `batch_size` is that of the plan."""
        grids, starts = self.plan.grids(epoch), self.plan.starts(epoch)[:-1]
        sets = []
        self._used = []
        # A source has one dataset for batches of one shape, so equal grids share it.
        shapes = list(dict.fromkeys(grids))
        turns = [shapes.index(grid) for grid in grids]
        order = [turns[step % len(turns)] for step in range(first_batch, len(starts))]
        for number, grid in enumerate(shapes):
            own = [
                start
                for start, shape in zip(starts[first_batch:], order, strict=True)
                if shape == number
            ]
            steps = _StepsOfGrid(share.worker, share.workers, share.pieces, tuple(own))
            source = self.full if grid.spec == self.plan.spec else self._source_of(grid.spec)
            self._used.append(source)
            sets.append(source.batches(grid.factor * batch_size, epoch=epoch, share=steps))
        if len(sets) == 1:
            return sets[0]
        choice = tf.data.Dataset.from_tensor_slices(
            tf.constant([number for number in order for _ in range(share.pieces)], tf.int64)
        )
        dataset = tf.data.Dataset.choose_from_datasets(sets, choice, stop_on_empty_dataset=False)
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.OFF
        options.experimental_distribute.auto_shard_policy = policy
        return dataset.with_options(options)


class GridSteps:
    """A training step for batches of several shapes; each is compiled once.

    Args:
        network: for the full shape.
        compile: from a network and a batch size to a step, see `compile_step`.
        strategy: a `tf.distribute` strategy.

    Raises:
        UsageError: the network takes clips of one shape only.
    """

    def __init__(
        self,
        network: keras.Model,
        compile: Callable[[keras.Model, int], Any],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._network, self._compile, self._strategy = network, compile, strategy
        self._steps: dict[tuple[int, ...], Any] = {}

    def check(self, plan: Multigrid) -> None:
        """Builds the network for every shape of a plan.

        Raises:
            UsageError: it cannot be done.
        """
        for spec in {grid.spec for epoch in range(plan.epochs) for grid in plan.grids(epoch)}:
            reshaped(self._network, spec.shape)

    def __call__(self, clips: Any, labels: Any, *rest: Any) -> Any:
        """One step."""
        shape = tuple(self._strategy.experimental_local_results(clips)[0].shape)
        if shape not in self._steps:
            clips_in_all = shape[0] * self._strategy.num_replicas_in_sync
            self._steps[shape] = self._compile(reshaped(self._network, shape[1:]), clips_in_all)
        return self._steps[shape](clips, labels, *rest)


def reshaped(network: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The same layers, with the same variables, as a network for clips of another shape.

    Args:
        network: functional.
        shape: (T, H, W, C).

    Raises:
        UsageError: a layer does not take it, or what comes out has another shape.
    """
    if tuple(network.input_shape[1:]) == tuple(shape):
        return network
    inputs = keras.Input(shape, dtype=network.inputs[0].dtype)
    try:
        other = keras.models.clone_model(
            network, input_tensors=inputs, clone_function=lambda layer: layer
        )
    except (ValueError, TypeError, tf.errors.OpError) as cause:
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise UsageError(
            f'multigrid needs a model whose layers take clips of any shape; "{network.name}" does '
            f"not take {shape}: {reason}"
        ) from cause
    if other.output_shape != network.output_shape:
        raise UsageError(
            f'multigrid needs a model with one output for a clip of any shape; "{network.name}" '
            f"gives {other.output_shape[1:]} for clips of {shape}."
        )
    return other
