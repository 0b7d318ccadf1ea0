"""What a long list costs `fit`: memory, and time to the first step, with 100 and 100,000 records.

Usage: python benchmarks/scale.py VIDEO [FOLDER] [--records 100 100000] [--rounds 3]

The records are symbolic links to one real file, in one folder, listed in a CSV. Each measurement is
a process of its own, which ends after five steps of a tiny model; rounds take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_CLASSES, STEPS = 400, 5
PROGRAM = """
import json, os, sys, time
import keras, tensorflow as tf
import kvideo
from kvideo.measuring import peak_memory

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            figures["first_step_s"] = time.perf_counter() - begun
        if batch == STEPS - 1:
            figures["peak_bytes"] = peak_memory()
            print(json.dumps(figures), flush=True)
            os._exit(0)  # no validation of thousands of videos

data, out, STEPS = sys.argv[1], sys.argv[2], int(sys.argv[3])
figures, begun = {}, time.perf_counter()
kvideo.fit(
    data, "slow_fusion", out=out, num_frames=4, size=(32, 32), model_options={"widths": (4, 6)},
    batch_size=8, precision="float32", val_fraction=0.2, overwrite=True, callbacks=[Stop()],
    verbose=False,
)
"""


def make(folder: Path, video: Path, records: int) -> Path:
    """A CSV of `records` names of the video, all in one folder, which is where lookups are slow."""
    top, classes = folder / f"{records}", min(MOST_CLASSES, records // 10)
    names = [f"video_{number:06d}{video.suffix}" for number in range(records)]
    if not top.exists():
        top.mkdir()
        for name in names:
            (top / name).symlink_to(video)
    rows = [f"{name},class_{number % classes:03d}" for number, name in enumerate(names)]
    table = top / "list.csv"
    table.write_text("\n".join(["path,label", *rows]))
    return table


def measure(data: Path, out: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data), str(out), str(STEPS)],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if done.returncode or not done.stdout:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("video", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--records", type=int, nargs="+", default=[100, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        found: dict[int, list[dict[str, float]]] = {count: [] for count in given.records}
        tables = {count: make(folder, given.video.resolve(), count) for count in given.records}
        for _ in range(given.rounds):
            for count, table in tables.items():
                found[count].append(measure(table, folder / "run"))
        for count, figures in found.items():
            seconds = statistics.median(f["first_step_s"] for f in figures)
            peak = statistics.median(f["peak_bytes"] for f in figures) / 2**20
            print(f"{count:>9,} records: first step after {seconds:6.1f} s, peak {peak:7.0f} MiB")


if __name__ == "__main__":
    main()
