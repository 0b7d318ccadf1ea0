"""One training loop over the public `tf.distribute` API: steps, checkpoints, history, guard."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.cluster import Cluster, WorkerLost
from kvideo.data.pipeline import ClipSource
from kvideo.data.shares import Share
from kvideo.errors import DataError, DecodeError, KVideoError
from kvideo.progress import Progress
from kvideo.saving import ModelInfo
from kvideo.training.bottleneck import describe_bottleneck
from kvideo.training.callbacks import CallbackDriver
from kvideo.training.checkpoint import check_shapes, restore_variables
from kvideo.training.interruption import Interruptible, StillWaiting, TrainingInterrupted
from kvideo.training.loop_state import LoopOptions, LoopState
from kvideo.training.multigrid import MultigridSource
from kvideo.training.objective import Objective
from kvideo.training.run_folder import MODEL, RunFolder
from kvideo.training.step_compiler import StepCompiler
from kvideo.training.step_plan import StepPlan
from kvideo.training.tested_weights import TestedWeights
from kvideo.training.thawing import Thawing

if TYPE_CHECKING:
    import keras

_RETRY_SECONDS = 60.0  # after a checkpoint that could not be written


class TrainingDiverged(KVideoError):
    """The loss is not a number any more."""


class Loop:
    """Trains a model on clips, epoch by epoch, into a run's folder.

    Args:
        model: built under `strategy`'s scope.
        info: what to save beside the weights.
        source: of training clips.
        optimizer: built under `strategy`'s scope.
        strategy: a `tf.distribute` strategy.
        options: see `LoopOptions`.
        folder: the run's folder; `model.keras`, `checkpoint/`, `history.csv` and `tensorboard/`
            come there.
        validate: gives figures (`val_loss`, and `val_accuracy` or `val_mAP`) for the weights as
            they are.
        objective: the loss; see `compile_step`.
        fingerprint: identifies the data; a checkpoint of other data is refused.
        say: takes lines for a person.
        quiet: no progress bar.
        cluster: the processes that train together; each runs the loop, and the chief writes.
        source_of: gives a source of other clips of the same videos; None: the batches have one
            shape. See `kvideo.training.multigrid`.
        head: the part of the model that is trained on `clips`, where these are features of a frozen
            backbone; by default the model.
        callbacks: see `CallbackDriver`; only the chief calls them.
        make_step: makes the step; `compile_step` is the default.
        of_clips: the part of the model that sees `clips` alone, for precise batch norm, where the
            model takes more than these.
    """

    def __init__(
        self,
        model: keras.Model,
        info: ModelInfo,
        source: ClipSource,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        options: LoopOptions,
        folder: Path,
        *,
        validate: Callable[[], dict[str, float]] | None = None,
        objective: Objective | None = None,
        fingerprint: str = "",
        say: Callable[[str], None] = print,
        quiet: bool = False,
        cluster: Cluster | None = None,
        source_of: Callable[[ClipSpec], ClipSource] | None = None,
        head: keras.Model | None = None,
        callbacks: Sequence[Any] = (),
        make_step: Callable[..., Any] | None = None,
        of_clips: keras.Model | None = None,
    ) -> None:
        self.model, self.info, self.source, self.optimizer = model, info, source, optimizer
        self.strategy, self.options, self.folder = strategy, options, folder
        self.validate, self.say, self.quiet = validate, say, quiet
        self.cluster = cluster or Cluster()
        self.files = RunFolder(
            folder, model, info, options.keep_checkpoints, say, options.tensorboard
        )
        self._named = 0
        self.state = LoopState(fingerprint=fingerprint)
        replicas = strategy.num_replicas_in_sync
        self.share = Share(self.cluster.index, self.cluster.size, replicas // self.cluster.size)
        self._plan = StepPlan(
            options, source.num_clips, replicas, info.clip_spec if source_of else None
        )
        self.batch_size, self.steps_per_epoch = self._plan.batch_size, self._plan.steps_per_epoch
        self._full_source = source
        if source_of is not None and self._plan.grids is not None:
            self.source = MultigridSource(self._plan.grids, source, source_of)
        self._thawing = None
        if options.unfreeze_epochs is not None:
            self._thawing = Thawing(model, options.unfreeze_epochs)
            optimizer.begin_at(self._thawing.first_steps(self.steps_per_epoch))
        with strategy.scope():
            optimizer.build(model.trainable_variables)
        network = model if head is None else head
        self._tested = TestedWeights(
            model, of_clips or network, strategy, self._batches_of_clips, options.ema,
            options.precise_bn,
        )  # fmt: skip
        self._steps_of = StepCompiler(
            network, optimizer, strategy, objective, options, self._plan, self._thawing, say,
            make_step,
        )  # fmt: skip
        self._step = self._steps_of(0)  # so that what cannot be compiled is told at once
        self.callbacks = CallbackDriver(
            callbacks,
            model,
            optimizer,
            info,
            epochs=options.epochs,
            steps=self.steps_per_epoch,
            batch_size=self.batch_size,
            cluster=self.cluster,
        )

    # -- the run -------------------------------------------------------------------------------

    def resume(self) -> None:
        """Goes back to the last checkpoint of the folder that is not damaged.

        The chief reads it, and hands it to the other processes.

        Raises:
            ModelFileError: there is none, or it is of another model.
            DataError: the data set is not the one that the checkpoint was trained on.
        """
        variables = self._variables()
        arrays = [np.zeros(variable.shape, _dtype(variable)) for variable in variables]
        text, path = "", None
        with self.cluster.together():
            if self.cluster.is_chief:
                path, arrays, values = self.files.checkpoints.read(self.say)
                check_shapes(variables, arrays, path)
                self._check_data(values["fingerprint"])
                text = json.dumps(values)
        state = self.cluster.gather(text)[0]
        restore_variables(variables, self.cluster.broadcast(arrays), path)
        self.state = LoopState(**json.loads(state))

    def _check_data(self, fingerprint: str) -> None:
        if fingerprint != self.state.fingerprint:
            raise DataError(
                f"the videos or labels have changed since {self.folder} was trained. Begin a new "
                f"run from its weights: --weights {self.folder / MODEL}"
            )

    def run(self) -> LoopState:
        """Trains to the end.

        Raises:
            TrainingInterrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
            TrainingDiverged: the loss is not a number; the last checkpoint is as it was.
            WorkerLost: another process is gone; the last checkpoint is as it was.
            DecodeError, DataError: videos fail in strict mode, or too many of them.
            KVideoError: the disk is still full at the end.
        """
        if self.cluster.is_chief:
            self.files.open(self.state.rows)
        self.callbacks.scale = self.state.rate_scale
        try:
            with Interruptible() as interrupted:
                self.callbacks.begin_training()
                while self.state.epoch < self.options.epochs and not self._should_stop():
                    self._epoch(interrupted)
                self.callbacks.end_training()
            self.files.finish()
        except WorkerLost as error:
            where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
            raise WorkerLost(
                f"{str(error).rstrip('.')} ({where}). The run goes on from its last checkpoint "
                f"when all workers are started with: kvideo fit --resume {self.folder}"
            ) from error
        finally:
            self.files.close()
        return self.state

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """Takes a step at each learning rate, and gives its loss; writes nothing."""
        waiting = iter(rates)
        for epoch in itertools.count():
            dataset = self.source.batches(self.batch_size, epoch=epoch, share=self.share)
            distributed = self.strategy.distribute_datasets_from_function(lambda _, d=dataset: d)
            iterator = iter(distributed)
            for _ in range(self.steps_per_epoch):
                if (rate := next(waiting, None)) is None:
                    return
                self.optimizer.learning_rate.assign(rate)
                loss, _, count, *_ = self._step(*self._next(iterator)).numpy()
                yield float(loss) / max(float(count), 1.0)

    def failures(self) -> list[DecodeError]:
        """The videos, of training and validation, that could not be read."""
        return self.source.failures.errors()

    def bottleneck(self) -> str:
        """A sentence: was it the loader or the model?"""
        return describe_bottleneck(self.state.waited, self.state.seconds, self.info.clip_spec)

    def _epoch(self, interrupted: Interruptible) -> None:
        state, options = self.state, self.options
        number = state.epoch + 1
        begun, first_step = time.perf_counter(), state.step
        dataset = self.source.batches(
            self.batch_size, epoch=state.epoch, first_batch=state.step, share=self.share
        )
        self._step = self._steps_of(state.epoch)
        self._set_learning_rate()
        self.callbacks.begin_epoch(state.epoch)
        label = f"epoch {number}/{options.epochs}"
        total = self.source.num_clips
        done = min(total, self._plan.starts(state.epoch)[first_step])
        with Progress(total, label, initial=done, unit="clip", quiet=self.quiet) as progress:
            waited = self._steps(dataset, progress, interrupted)
            seconds = time.perf_counter() - begun
            row = {"epoch": number, **self._training_figures()}
            row["learning_rate"] = self._learning_rate(state.step - 1)
            row["clips_per_s"] = (total - done) / seconds
            row["data_wait"] = waited / seconds
            with self._tested.applied():
                self._test(row, progress)
            row["seconds"] = time.perf_counter() - begun
        state.seconds += seconds
        state.waited += waited
        state.epoch, state.step, state.sums = number, 0, [0.0, 0.0, 0.0]
        state.rows.append(row)
        if self.cluster.is_chief:
            self.files.add_row(row)
        try:
            self.callbacks.end_epoch(number - 1, row)
        finally:
            state.rate_scale = self.callbacks.scale
            self._checkpoint()
        self._name_failures()

    def _test(self, row: dict[str, float], progress: Progress) -> None:
        """Adds validation figures to an epoch's, and saves the model if it is the best so far."""
        state = self.state
        if self.validate is not None:
            row.update(self.callbacks.validation(self.validate))
            # In front of the others, since a narrow terminal shows the first figures only.
            figures = self._training_figures()
            shown = {name: row[name] for name in reversed(row) if name.startswith("val_")}
            progress.update(0, **dict.fromkeys(figures), data_wait=None)
            progress.update(0, **shown, **figures, data_wait=f"{row['data_wait']:.0%}")
        rank = _rank(row)
        if state.best is None or self.validate is None or rank > state.best:
            state.best, state.best_epoch = rank, int(row["epoch"])
            if self._thawing is not None:
                self._thawing.thaw()  # the file's layers can be trained
            if self.cluster.is_chief:
                self.files.save_best()
                confusion = getattr(self.validate, "confusion", None)
                self.files.show_confusion(int(row["epoch"]), confusion)

    def _batches_of_clips(self, count: int) -> Iterator[Any]:
        """At most so many batches of the epoch's clips, as they are distributed."""
        # Not a last batch that is filled up.
        full = max(1, self.source.num_clips // self.batch_size)
        dataset = self._full_source.batches(
            self.batch_size, epoch=self.state.epoch, share=self.share
        )
        dataset = dataset.take(min(count, full) * self.share.pieces)
        batches = self.strategy.distribute_datasets_from_function(lambda context: dataset)
        return (clips for clips, _ in batches)

    def _name_failures(self) -> None:
        """Says which videos no process could read for the first time in this epoch."""
        own = [(error.path, error.reason, error.detail) for error in self.failures()]
        for others in self.cluster.gather(own):
            for error in others:
                self.source.failures.add(DecodeError(*error))
        if summary := self.source.failures.summary(first=self._named):
            self.say(summary)
        self._named = len(self.source.failures)

    def _steps(self, dataset: Any, progress: Progress, interrupted: Interruptible) -> float:
        """The steps of an epoch that are left; returns the seconds spent waiting for clips."""
        state = self.state
        waited, begun = 0.0, time.perf_counter()
        save_at = begun + 60 * self.options.checkpoint_minutes
        # Not `experimental_distribute_dataset`: with several processes it would share out anew.
        iterator = iter(self.strategy.distribute_datasets_from_function(lambda context: dataset))
        starts = self._plan.starts(state.epoch)
        while state.step < len(starts) - 1 and not self.callbacks.stop_now:
            asked = time.perf_counter()
            try:
                clips, labels = interrupted.call(lambda: self._next(iterator))
            except StillWaiting:
                self._stop(interrupted)
            waited += time.perf_counter() - asked
            if state.epoch == state.step == 0:
                self._show(clips, labels)
            self._set_learning_rate()
            self.callbacks.begin_step(state.step)
            with self.cluster.watched():
                *sums, stop = self._step(clips, labels, _flag(interrupted)).numpy()
            if not np.isfinite(sums).all():
                raise self._diverged()
            self._tested.after_step(self.optimizer.iterations)
            state.step += 1
            state.sums = [float(a + b) for a, b in zip(state.sums, sums, strict=True)]
            self.callbacks.end_step(state.step - 1, self._training_figures())
            now = time.perf_counter()
            share = waited / max(now - begun, 1e-9)
            # The last batch may be filled up.
            clips_done = min(starts[state.step], self.source.num_clips) - starts[state.step - 1]
            progress.update(clips_done, **self._training_figures(), data_wait=f"{share:.0%}")
            if stop:
                self._stop(interrupted)
            if now > save_at:
                done = self._checkpoint()
                save_at = now + (60 * self.options.checkpoint_minutes if done else _RETRY_SECONDS)
        return waited

    def _stop(self, interrupted: Interruptible) -> NoReturn:
        """Ends the run after a signal to this process or to another one."""
        number = interrupted.number or signal.SIGTERM
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        lost = "nothing is lost"
        if not self._checkpoint():
            lost = "the last checkpoint that could be written is kept"
        raise TrainingInterrupted(
            f"{word} in epoch {self.state.epoch + 1}; {lost}. Go on with: "
            f"kvideo fit --resume {self.folder}",
            number,
        )

    def _show(self, clips: Any, labels: Any) -> None:
        """Puts clips of the first batch among the pictures of the run."""
        first = (self.strategy.experimental_local_results(each)[0] for each in (clips, labels))
        if self.cluster.is_chief:
            self.files.show_clips(*(each.numpy() for each in first))

    def _next(self, iterator: Any) -> tuple[Any, Any]:
        try:
            with self.cluster.watched():  # several processes agree on whether there is a next batch
                return next(iterator)
        except (tf.errors.OpError, StopIteration) as error:
            # TensorFlow wraps an exception of the loader in its own and loses its class.
            if self.source.error is not None:
                raise self.source.error from error
            raise

    def _learning_rate(self, step: int) -> float:
        """For a step of the epoch, from 0."""
        return self.callbacks.scale * self._plan.learning_rate(self.state.epoch, step)

    def _set_learning_rate(self) -> None:
        self.optimizer.learning_rate.assign(self._learning_rate(self.state.step))

    def _training_figures(self) -> dict[str, float]:
        loss, hits, examples = self.state.sums
        examples = max(examples, 1.0)  # no frame of an epoch's beginning may have a label
        return {"loss": loss / examples, "accuracy": hits / examples}

    def _should_stop(self) -> bool:
        if self.callbacks.stop:
            self.say("A callback asked to stop.")
            return True
        patience = self.options.early_stopping
        if patience is None or self.validate is None or not self.state.rows:
            return False
        if self.state.step or self.state.epoch - self.state.best_epoch < patience:
            return False
        self.say(f"No better validation result for {patience} epochs: stopping early.")
        return True

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables, *self._tested.variables]

    def _checkpoint(self) -> bool:
        """Writes a checkpoint; False: the disk is full."""
        if not self.cluster.is_chief:
            return True
        state = self.state
        arrays = [variable.numpy() for variable in self._variables()]
        step = state.epoch * self.steps_per_epoch + state.step
        return self.files.save_checkpoint(step, arrays, dataclasses.asdict(state))

    def _diverged(self) -> TrainingDiverged:
        where = f"epoch {self.state.epoch + 1}, step {self.state.step + 1}"
        kept = (
            f" The weights before that are kept in {self.folder}."
            if self.files.checkpoints.paths()
            else ""
        )
        return TrainingDiverged(
            f"the loss is not a number any more ({where}).{kept} A lower --learning-rate (now "
            f"{self.options.learning_rate:g}) or --clip-norm 1 helps as a rule."
        )


def _rank(row: dict[str, float]) -> list[float]:
    """What makes a validation result better: accuracy (or mAP), then the loss."""
    loss = row.get("val_loss", math.inf)
    return [row.get("val_accuracy", row.get("val_mAP", -loss)), -loss]


def _dtype(variable: Any) -> np.dtype:
    return np.asarray(variable.numpy()).dtype


def _flag(interrupted: Interruptible) -> tf.Tensor:
    """1 if this process is to stop; the sum over all processes tells each whether any is."""
    return tf.constant(float(interrupted.number > 0))
