"""Keras callbacks in kvideo's own loop: what they are told, and what they may decide.

Callbacks expect a compiled model. While one of them runs, the model has its `optimizer`, and what
it saves with `save` is a file for `kvideo.load_model`; otherwise the model stays as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from kvideo.cluster import Cluster
from kvideo.errors import UsageError
from kvideo.saving import ModelInfo, save_model

# These go back to an earlier state by themselves, which the loop would know nothing of.
_OWN_CHECKPOINTS = ("BackupAndRestore", "OrbaxCheckpoint")
# Figures of an epoch that are no numbers of the model: "epoch" is given as an argument.
_LEFT_OUT = frozenset({"epoch"})


class CallbackDriver:
    """Calls Keras callbacks at the moments at which `keras.Model.fit` does.

    Figures have Keras's names: `loss`, `accuracy`, `val_loss`, `val_accuracy` (for several labels a
    video `val_mAP`), `learning_rate`, and besides `clips_per_s`, `data_wait` and `seconds`.

    A callback may set `model.stop_training`, and the optimizer's learning rate, which scales the
    loop's schedule from there on.

    Args:
        callbacks: `keras.callbacks.Callback` objects; none: every method does nothing.
        model: what is trained.
        optimizer: its optimizer.
        info: goes into what callbacks save.
        epochs: of the run.
        steps: of an epoch.
        batch_size: clips in a step.
        cluster: the processes that train together. The callbacks are the chief's; what they decide
            holds for all, from the next epoch on.

    Attributes:
        stop: whether a callback asked the training to stop.
        scale: what callbacks have multiplied the learning rate by.

    Raises:
        UsageError: something else than a callback, or one that cannot work here.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        info: ModelInfo,
        *,
        epochs: int,
        steps: int,
        batch_size: int,
        cluster: Cluster | None = None,
    ) -> None:
        check_callbacks(callbacks)
        self.cluster = cluster or Cluster()
        self.stop, self.scale = False, 1.0
        self._model, self._optimizer, self._info = model, optimizer, info
        # Not a `CallbackList`, which runs what it can in other threads.
        self._callbacks = list(callbacks) if self.cluster.is_chief else []
        params = {"epochs": epochs, "steps": steps, "batch_size": batch_size, "verbose": 0}
        for callback in self._callbacks:
            # Keras looks up in compiled metrics whether more is better; all ours but losses are so.
            if getattr(callback, "mode", None) == "auto":
                monitor = str(getattr(callback, "monitor", ""))
                callback.mode = "min" if monitor.endswith("loss") else "max"
            callback.set_params(params)
            callback.set_model(model)

    @property
    def stop_now(self) -> bool:
        """Whether to end an epoch before its last step; several processes end it together."""
        return self.stop and self.cluster.size == 1

    def begin_training(self) -> None:
        """Before the first step, of a resumed run too."""
        vars(self._model)["stop_training"] = False
        self._call("on_train_begin")

    def end_training(self) -> None:
        """After the last epoch; not after an error or an interruption."""
        self._call("on_train_end")

    def begin_epoch(self, epoch: int) -> None:
        """Before an epoch's first step; its number, from 0."""
        with self._agreed():
            self._call("on_epoch_begin", epoch)

    def end_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """After an epoch and its validation."""
        with self._agreed():
            self._call("on_epoch_end", epoch, _logs(figures))

    def begin_step(self, step: int) -> None:
        """Before a step; its number in the epoch, from 0."""
        self._call("on_train_batch_begin", step)

    def end_step(self, step: int, figures: Mapping[str, float]) -> None:
        """After a step, with the means over the epoch so far."""
        self._call("on_train_batch_end", step, _logs(figures))

    def validation(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Validates, and tells it; gives what `validate` gives."""
        self._call("on_test_begin")
        figures = validate()
        self._call(
            "on_test_end",
            {name.removeprefix("val_"): value for name, value in _logs(figures).items()},
        )
        return figures

    def _call(self, method: str, *arguments: Any) -> None:
        if not self._callbacks:
            return
        before = self._learning_rate()
        try:
            with self._lent():
                for callback in self._callbacks:
                    getattr(callback, method)(*arguments)
        finally:
            self.stop = self.stop or bool(getattr(self._model, "stop_training", False))
            after = self._learning_rate()
            if after != before and before > 0 and math.isfinite(after):
                self.scale *= after / before

    def _learning_rate(self) -> float:
        return float(self._optimizer.learning_rate.value.numpy())

    @contextlib.contextmanager
    def _agreed(self) -> Iterator[None]:
        """What the chief's callbacks decide in it, or that they fail, holds for all processes."""
        if self.cluster.size == 1:
            yield
            return
        with self.cluster.together():
            yield
        self.stop, self.scale = self.cluster.gather([self.stop, self.scale])[0]

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        """Within it the model looks as if compiled."""
        # Not by `setattr`: Keras would take the optimizer for a part of what it saves.
        attributes = vars(self._model)
        kept = {name: attributes[name] for name in ("optimizer", "save") if name in attributes}
        attributes.update(optimizer=self._optimizer, save=self._save)
        try:
            yield
        finally:
            for name in ("optimizer", "save"):
                attributes.pop(name)
            attributes.update(kept)

    def _save(self, filepath: Any, overwrite: bool = True, **_: Any) -> None:
        """`model.save` for callbacks; what they leave out is never asked for."""
        attributes = vars(self._model)
        save = attributes.pop("save")
        optimizer = attributes.pop("optimizer")
        try:
            save_model(self._model, filepath, self._info)
        finally:
            attributes.update(save=save, optimizer=optimizer)


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Refuses what is no callback, or cannot work here.

    Raises:
        UsageError: so it is.
    """
    rule = "callbacks must be a list of keras.callbacks.Callback objects"
    if not isinstance(callbacks, list | tuple):
        raise UsageError(f"{rule}, not {callbacks!r}.")
    for callback in callbacks:
        if isinstance(callback, type) or not isinstance(callback, keras.callbacks.Callback):
            raise UsageError(f"{rule}; one of these is {callback!r}.")
        if type(callback).__name__ in _OWN_CHECKPOINTS:
            raise UsageError(
                f"{type(callback).__name__} is not for kvideo.fit, which writes checkpoints itself "
                "and goes on from them with resume=."
            )


def _logs(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures for callbacks; trackers take no "@" in a name."""
    return {
        name.replace("@", "_at_"): float(value)
        for name, value in figures.items()
        if name not in _LEFT_OUT
    }
