"""What happened in each epoch: a CSV file, and figures and pictures for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.data.keyframes import ACTIONS, ACTOR
from kvideo.files import check_writable, write_text_atomic

Row = dict[str, float]
_MOST_CLIPS = 4
_MOST_NAMED = 60  # classes: with more, drawing their names takes seconds


class History:
    """Rows of figures, one for each epoch, kept in `history.csv` and in `tensorboard/`.

    TensorBoard itself is not needed to write its files.

    Args:
        folder: the run's folder.
        rows: epochs that are done already, when a run is resumed.
        tensorboard: `"all"`: figures and pictures; `"scalars"`: figures; or `"none"`.
    """

    def __init__(
        self, folder: Path, rows: list[Row] | None = None, tensorboard: str = "all"
    ) -> None:
        import tensorflow as tf

        self.folder, self.rows = folder, list(rows or [])
        self.pictures = tensorboard == "all"
        self._writer: Any = None
        if tensorboard != "none":
            check_writable(folder / "tensorboard")
            self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def append(self, row: Row) -> None:
        """Adds an epoch; both files are brought up to date."""
        self.rows.append(row)
        self.write_csv()
        if self._writer is None:
            return
        with self._writer.as_default():
            for name, value in row.items():
                if name != "epoch":
                    _write_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def add_clips(
        self,
        clips: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        frame_rate: float,
        step: int,
    ) -> None:
        """Shows a few clips as they go into the model: cut, mirrored, recoloured.

        Args:
            clips: (B, T, H, W, C); of anything else nothing is shown.
            labels: as in `kvideo.data.pipeline.batches`.
            class_names: of the labels.
            frame_rate: of the clips.
            step: steps done.
        """
        if not self.pictures or clips.ndim != 5:
            return
        from kvideo.report.films import gif_bytes

        with self._writer.as_default():
            for number, (clip, label) in enumerate(
                zip(clips[:_MOST_CLIPS], labels[:_MOST_CLIPS], strict=True), 1
            ):
                name = f"clip {number}: {_in_words(label, class_names)}"
                _write_image(name, gif_bytes(clip, frame_rate), clip.shape[1:3], step)
        self._writer.flush()

    def add_confusion(self, confusion: np.ndarray, class_names: Sequence[str], epoch: int) -> None:
        """Shows the confusion matrix of an epoch's validation.

        Args:
            confusion: (C, C) counts, rows are true classes.
            class_names: of the classes.
            epoch: from 1.
        """
        if not self.pictures:
            return
        from kvideo.report.films import grid_png
        from kvideo.report.plots import confusion_png

        named = len(class_names) <= _MOST_NAMED
        picture = confusion_png(confusion, class_names) if named else grid_png(confusion)
        with self._writer.as_default():
            _write_image("confusion", picture, _png_size(picture), epoch)
        self._writer.flush()

    def write_csv(self) -> None:
        """Writes all rows; a column for every figure that any row has."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        write_text_atomic(self.folder / "history.csv", text.getvalue())

    def close(self) -> None:
        """Ends the event file."""
        if self._writer is not None:
            self._writer.close()


def _in_words(label: np.ndarray, class_names: Sequence[str]) -> str:
    """Names of the classes that a label means: one, several, those over time, or actors'."""
    if label.ndim == 2:  # see KeyframeClips
        label = label[label[:, 0] == ACTOR][:, ACTIONS].max(axis=0, initial=0.0)
    if label.ndim == 0:
        found = [int(label)]
    elif np.issubdtype(label.dtype, np.floating):
        found = np.flatnonzero(label > 0.5).tolist()
    else:
        found = [int(each) for each in dict.fromkeys(label.tolist())]
    names = [class_names[index] for index in found if 0 <= index < len(class_names)]
    return ", ".join(names) or "no label"


def _png_size(picture: bytes) -> tuple[int, int]:
    """Height and width, from the header (PNG, 11.2.2)."""
    return int.from_bytes(picture[20:24], "big"), int.from_bytes(picture[16:20], "big")


def _write_scalar(name: str, value: float, step: int) -> None:
    """One point of a TensorBoard curve. `tf.summary.scalar` would need TensorBoard installed."""
    import tensorflow as tf

    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=_of("scalars"))


def _write_image(name: str, picture: bytes, size: tuple[int, ...], step: int) -> None:
    """One picture, PNG or GIF, as TensorBoard's image summaries are: width, height, the files."""
    import tensorflow as tf

    height, width = size
    value = tf.constant([str(width).encode(), str(height).encode(), picture])
    tf.summary.write(name, value, step=step, metadata=_of("images"))


def _of(plugin: str) -> Any:
    """What tells TensorBoard which of its plugins shows a summary."""
    import tensorflow as tf

    return tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    )
