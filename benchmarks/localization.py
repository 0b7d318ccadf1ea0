"""UT-Untrimmed: temporal action localization by one and two streams, and the one-stage baseline.

    python benchmarks/localization.py DATA [--out DIR] [--choose] [--baseline RUN]

DATA is the folder with `annotations.json` (ActivityNet's form) and `videos/`. Two classifiers of
clips are trained on the segments of the subset `training` and what lies between them: one on
pictures, one on optical flow. On their features a localizer is trained, and tested on `validation`,
filmed at another place, by each stream alone and by both. RUN is a model with a label for each
frame, of `benchmarks/ut_untrimmed.py`, whose probabilities are grouped.

`--choose` does not touch the test videos: it holds out a quarter of the training videos and tests
on them, which is how the settings were chosen.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import kvideo
from kvideo import localization

SHARED: dict[str, Any] = {
    "model": "two_stream",
    "framing": "letterbox",
    "size": (160, 160),
    "weights": "imagenet",
    "batch_size": 8,
    "label_smoothing": 0.1,
    "min_area": 0.5,
    "precision": "float32",
    "val_fraction": 0.0,
    "learning_rate": 1e-3,
}
STREAMS: dict[str, dict[str, Any]] = {
    "rgb": {"frame_rate": 4.0, "epochs": 15, "freeze": "block10_add"},
    "flow": {"num_frames": 10, "frame_rate": 10.0, "epochs": 25},
}
OPTIONS = {"backbone": "efficientnet_lite0", "dropout": 0.3}
MODES = {"rgb": "spatial", "flow": "temporal"}
HEAD = {"stride": 0.2, "epochs": 60}
TIOUS = (0.3, 0.5, 0.7)


def annotations(data: Path, out: Path, choose: bool) -> tuple[Path, Path]:
    """Two files, of the videos to train on and to test on."""
    whole = json.loads((data / "annotations.json").read_text())
    database = whole["database"]
    training = sorted(name for name, video in database.items() if video["subset"] == "training")
    testing = [name for name in sorted(database) if name not in training]
    if choose:
        training, testing = [n for i, n in enumerate(training) if i % 4 != 3], training[3::4]
    paths = out / "train.json", out / "test.json"
    for path, names, subset in zip(
        paths, (training, testing), ("training", "validation"), strict=True
    ):
        rows = {name: database[name] | {"subset": subset} for name in names}
        path.write_text(json.dumps(whole | {"database": rows}))
    return paths


def classifier(stream: str, train: Path, root: Path, out: Path) -> Path:
    folder = out / f"{stream}-clips"
    if not (folder / "model.keras").exists():
        settings = SHARED | STREAMS[stream] | {"model_options": OPTIONS | {"stream": MODES[stream]}}
        kvideo.fit(train, root=root, out=folder, overwrite=True, **settings)
    return folder


def figures(model: Path, test: Path, root: Path, **options: Any) -> dict[str, float]:
    result = localization.evaluate(
        model, test, root=root, tious=TIOUS, out=model, verbose=False, **options
    )
    shown = [name for name in result.metrics if name.startswith("map@") or name == "ar@10"]
    return {name: round(result.metrics[name], 3) for name in shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/localization"))
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", default="{}", help="JSON of other settings of the localizer")
    arguments = parser.parse_args()
    out, data = arguments.out.resolve(), arguments.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    root = data / "videos"
    train, test = annotations(data, out, arguments.choose)
    started = time.perf_counter()
    models = [classifier(stream, train, root, out) for stream in STREAMS]
    print(json.dumps({"classifiers_seconds": round(time.perf_counter() - started)}), flush=True)
    settings = HEAD | json.loads(arguments.set)
    for seed in range(arguments.seeds):
        started = time.perf_counter()
        run = localization.fit(
            train, models, root=root, out=out / "localizer", overwrite=True, seed=seed, **settings
        )
        report: dict[str, Any] = {"seed": seed, "settings": settings}
        report["fit_seconds"] = round(time.perf_counter() - started)
        for stream in (*STREAMS, None):
            report[stream or "fusion"] = figures(run.folder, test, root, stream=stream)
        print(json.dumps(report), flush=True)
    if arguments.baseline is not None:
        print(json.dumps({"one-stage": figures(arguments.baseline, test, root)}), flush=True)


if __name__ == "__main__":
    main()
