"""UT-Mosaic: spatio-temporal detection with given boxes and with the joint person head.

    python benchmarks/ut_mosaic.py DATA [--out DIR] [--seeds 1] [--streams both temporal] [--choose]

DATA is the folder with `train.csv` (place 1), `test.csv` (place 2) and `videos/`. One detector is
trained for each seed and stream (pictures and flow together, or flow alone); the test part is
looked at once by it: by its own boxes, and in the true ones. `--choose` does not touch the test
part: 6 of the 24 training videos are held out, none of whose clips occurs in another video, and
tested on, which is how the settings were chosen.
"""

import argparse
import csv
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from kvideo import detection

SETTINGS: dict[str, Any] = {
    "model": "two_stream",
    "weights": "imagenet",
    "num_frames": 10,
    "frame_rate": 10.0,
    "size": (288, 384),
    "epochs": 20,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "shift": 0.5,
    "val_fraction": 0.0,
    "precision": "float32",
    "tensorboard": "none",
}
OPTIONS = {"backbone": "efficientnet_lite0", "dropout": 0.3}
HELD_OUT = ("train_03", "train_06", "train_10", "train_11", "train_13", "train_19")
METRICS = ("frame_map@0.5", "actor_ap@0.5", "video_map@0.2", "video_map@0.5")


def divided(data: Path, out: Path) -> Path:
    """A folder with the training videos as `train.csv` and `test.csv`."""
    folder = out / "divided"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / "action_list.pbtxt", folder / "action_list.pbtxt")
    for kind in ("", "_excluded_timestamps"):
        rows = list(csv.reader(open(data / f"train{kind}.csv")))
        for part, held in (("train", False), ("test", True)):
            with open(folder / f"{part}{kind}.csv", "w", newline="") as file:
                csv.writer(file).writerows(r for r in rows if (r[0] in HELD_OUT) == held)
    return folder


def run(data: Path, root: Path, out: Path, stream: str, seed: int) -> dict[str, dict[str, float]]:
    folder = out / f"{stream}-seed{seed}"
    if not (folder / "model.keras").exists():
        settings = {**SETTINGS, "model_options": {**OPTIONS, "stream": stream}}
        detection.fit(data, out=folder, root=root, seed=seed, overwrite=True, **settings)
    found = {}
    for name, boxes in (("own boxes", None), ("given boxes", "truth")):
        result = detection.evaluate(folder, data, root=root, split="test", boxes=boxes)
        found[name] = {metric: round(result.metrics[metric], 4) for metric in METRICS}
        print(f"{stream}, seed {seed}, {name}: {found[name]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ut-mosaic"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--streams", nargs="+", default=["both", "temporal"])
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    root = arguments.data
    data = divided(root, arguments.out) if arguments.choose else root
    for stream in arguments.streams:
        results = [run(data, root, arguments.out, stream, seed) for seed in range(arguments.seeds)]
        means = {
            name: {
                metric: round(statistics.mean(result[name][metric] for result in results), 3)
                for metric in METRICS
            }
            for name in results[0]
        }
        print(json.dumps({"stream": stream, "mean": means, "seeds": results}, indent=1))


if __name__ == "__main__":
    main()
