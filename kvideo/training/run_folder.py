"""What a run writes while it trains; a full disk stops none of it for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.files import is_disk_full, make_folder
from kvideo.saving import ModelInfo, save_model
from kvideo.training.checkpoint import Checkpoints
from kvideo.training.history import History, Row

if TYPE_CHECKING:
    import keras

MODEL = "model.keras"
CHECKPOINTS = "checkpoint"


class RunFolder:
    """The files of a run: `model.keras`, `checkpoint/`, `history.csv` and `tensorboard/`.

    While the disk is full, the training goes on: what could not be written is kept in mind, and
    written when there is room.

    Args:
        folder: is made if it is missing.
        model: what is trained.
        info: what to save beside the weights.
        keep: how many checkpoints to keep.
        say: is told of what could not be written.
        tensorboard: see `History`.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        info: ModelInfo,
        keep: int,
        say: Callable[[str], None],
        tensorboard: str = "all",
    ) -> None:
        self.tensorboard = tensorboard
        self.folder, self.model, self.info, self.say = folder, model, info, say
        self.checkpoints = Checkpoints(folder / CHECKPOINTS, keep)
        self._history: History | None = None
        self._best: list[np.ndarray] | None = None  # what `model.keras` should hold

    def open(self, rows: list[Row]) -> None:
        """Begins to write, with the epochs that are done already."""
        make_folder(self.folder / CHECKPOINTS)
        self._history = history = History(self.folder, rows, self.tensorboard)
        self._try(history.write_csv)

    def close(self) -> None:
        """Ends the event file."""
        if self._history is not None:
            self._history.close()

    def forget(self) -> None:
        """Removes what a former run in the folder would be resumed from."""
        self.checkpoints.clear()
        (self.folder / "history.csv").unlink(missing_ok=True)

    def add_row(self, row: Row) -> None:
        """Adds an epoch to the history."""
        history = self._history
        if history is not None:
            self._try(lambda: history.append(row))

    def show_clips(self, clips: np.ndarray, labels: np.ndarray) -> None:
        """Adds clips of a batch to the pictures, see `History.add_clips`."""
        history, names = self._history, self.info.class_names
        if history is not None:
            rate = self.info.clip_spec.frame_rate
            self._try(lambda: history.add_clips(clips, labels, names, rate, 0))

    def show_confusion(self, epoch: int, confusion: np.ndarray | None) -> None:
        """Adds the confusion matrix of an epoch's validation, if there is one."""
        history, names = self._history, self.info.class_names
        if history is not None and confusion is not None:
            self._try(lambda: history.add_confusion(confusion, names, epoch))

    def save_best(self) -> None:
        """Writes the model as it is."""
        self._best = None
        if not self._try(self._save):
            self._best = [variable.numpy() for variable in self.model.variables]

    def save_checkpoint(
        self, step: int, arrays: Sequence[np.ndarray], state: dict[str, Any]
    ) -> bool:
        """Writes a checkpoint, and the best model if that is not yet written.

        Returns:
            Whether there was room for it.
        """
        done = self._try(lambda: self.checkpoints.write(step, arrays, state))
        if done and self._best is not None and self._try(self._save_kept):
            self._best = None
        return done

    def finish(self) -> None:
        """Writes what could not be written before.

        Raises:
            KVideoError: there is still no room for the model.
        """
        if self._best is not None:
            self._save_kept()
            self._best = None

    def _save(self) -> None:
        save_model(self.model, self.folder / MODEL, self.info)

    def _save_kept(self) -> None:
        """Writes the weights that were the best, not those of now."""
        now = [variable.numpy() for variable in self.model.variables]
        _assign(self.model, self._best or now)
        try:
            self._save()
        finally:
            _assign(self.model, now)

    def _try(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except Exception as error:
            if not is_disk_full(error) and not is_disk_full(error.__cause__ or error):
                raise
            self.say(f"Warning: {error} The training goes on, and will try again.")
            return False
        return True


def _assign(model: keras.Model, values: list[np.ndarray]) -> None:
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)
