"""What happened in each epoch: a CSV file and TensorBoard events."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from kvideo.files import write_text_atomic

Row = dict[str, float]


class History:
    """Rows of figures, one for each epoch, kept in `history.csv` and in `tensorboard/`.

    Args:
        folder: the run's folder.
        rows: epochs that are done already, when a run is resumed.
    """

    def __init__(self, folder: Path, rows: list[Row] | None = None) -> None:
        import tensorflow as tf

        self.folder, self.rows = folder, list(rows or [])
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def append(self, row: Row) -> None:
        """Adds an epoch; both files are brought up to date."""
        self.rows.append(row)
        self.write_csv()
        with self._writer.as_default():
            for name, value in row.items():
                if name != "epoch":
                    _write_scalar(name, value, int(row["epoch"]))
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
        self._writer.close()


def _write_scalar(name: str, value: float, step: int) -> None:
    """One point of a TensorBoard curve. `tf.summary.scalar` would need TensorBoard installed."""
    import tensorflow as tf

    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    )
    tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=metadata)
