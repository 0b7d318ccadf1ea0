"""UT-Untrimmed: a label for each frame of videos with actions and background.

    python benchmarks/ut_untrimmed.py DATA [--out DIR] [--choose]

DATA is the folder with `annotations.json` (ActivityNet's form) and `videos/`. It is trained on the
subset `training`, filmed at one place, and tested on `validation`, whose actions are filmed at
another. `--choose` does not touch that: it holds out a quarter of the training videos and tests on
them, which is how the settings were chosen.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import kvideo

SETTINGS: dict[str, Any] = {
    "model": "cnn_rnn",
    "model_options": {
        "output": "frames",
        "backbone": "efficientnet_lite0",
        "bidirectional": True,
        "dropout": 0.3,
    },
    "weights": "imagenet",
    "freeze": "block10_add",
    "num_frames": 32,
    "frame_rate": 4.0,
    "size": (160, 160),
    "framing": "letterbox",
    "min_area": 0.5,
    "batch_size": 4,
    "epochs": 60,
    "learning_rate": 1e-3,
    "label_smoothing": 0.1,
    "val_fraction": 0.0,
    "precision": "float32",
}
SHOWN = ("frame_accuracy", "edit", "f1@10", "f1@25", "f1@50")


def annotations(data: Path, out: Path, choose: bool) -> tuple[Path, Path]:
    """Two files, of the videos to train on and to test on, each of one subset."""
    whole = json.loads((data / "annotations.json").read_text())
    database = whole["database"]
    training = sorted(name for name, video in database.items() if video["subset"] == "training")
    testing = [name for name in sorted(database) if name not in training]
    if choose:
        training, testing = [n for i, n in enumerate(training) if i % 4 != 3], training[3::4]
    paths = out / "train.json", out / "test.json"
    for path, names in zip(paths, (training, testing), strict=True):
        rows = {name: database[name] | {"subset": "training"} for name in names}
        path.write_text(json.dumps(whole | {"database": rows}))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ut_untrimmed"))
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", default="{}", help="JSON of other settings")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, changes = arguments.data.resolve(), json.loads(arguments.set)
    options = SETTINGS["model_options"] | changes.pop("model_options", {})
    settings = SETTINGS | changes | {"model_options": options}
    train, test = annotations(data, arguments.out, arguments.choose)
    started = time.perf_counter()
    run = kvideo.fit(
        train, root=data / "videos", out=arguments.out / "run", overwrite=True, **settings
    )
    seconds = round(time.perf_counter() - started)
    evaluation = kvideo.evaluate(run.folder, test, root=data / "videos", out=run.folder)
    figures = {name: round(evaluation.metrics[name], 4) for name in SHOWN}
    print(json.dumps({"changes": changes, "fit_seconds": seconds, **figures}, indent=2))


if __name__ == "__main__":
    main()
