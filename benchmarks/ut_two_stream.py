"""UT-Interaction by two streams and their fusion: four folds by sequence, and `place`.

    python benchmarks/ut_two_stream.py DATA [--out DIR] [--splits fold0 … place] [--choose]

Of each training list every fourth sequence is kept for validation: it stops the training and gives
the weights and the support vector machine of the fusion. What is left trains the streams. The test
list is looked at once, by each stream and each fusion. `--choose` leaves it alone and prints the
validation accuracies of fold 0 instead, by which the settings below were chosen.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

import kvideo

SPLITS = ("fold0", "fold1", "fold2", "fold3", "place")
SHARED = {
    "model": "two_stream",
    "framing": "letterbox",
    "size": (160, 160),
    "weights": "imagenet",
    "batch_size": 8,
    "label_smoothing": 0.1,
    "min_area": 0.5,
    "precision": "float32",
    "val_clips": 5,
}
STREAMS = {
    "spatial": {"frame_rate": 4.0, "epochs": 40, "learning_rate": 1e-3, "freeze": "block10_add"},
    "temporal": {"num_frames": 10, "frame_rate": 10.0, "epochs": 60, "learning_rate": 1e-3},
}
OPTIONS = {"backbone": "efficientnet_lite0", "dropout": 0.3}
METHODS = ("average", "weighted", "svm")


def sequence(path: str) -> int:
    return int(Path(path).stem.split("_")[1])


def divide(data: Path, split: str, out: Path) -> tuple[Path, Path]:
    """The training list without, and only with, every fourth sequence."""
    kept = 1 if split == "place" else (int(split[-1]) + 1) % 4
    rows = list(csv.reader(open(data / f"{split}_train.csv"), delimiter=" "))
    lists = out / f"{split}_train.csv", out / f"{split}_val.csv"
    for path, wanted in zip(lists, (False, True), strict=True):
        chosen = [row for row in rows if (sequence(row[0]) % 4 == kept) == wanted]
        path.write_text("".join(f"{data / name} {label}\n" for name, label in chosen))
    return lists


def train(stream: str, data: Path, split: str, out: Path, changes: dict) -> Path:
    lists = divide(data, split, out)
    settings = {**SHARED, **STREAMS[stream], **changes}
    settings["model_options"] = {**OPTIONS, "stream": stream}
    folder = out / f"{stream}-{split}"
    kvideo.fit(lists[0], val=lists[1], out=folder, overwrite=True, **settings)
    return folder


def accuracy(model: Path, data: Path, root: Path) -> float:
    return kvideo.evaluate(model, data, root=root, num_clips=10, verbose=False).metrics["top1"]


def run(data: Path, split: str, out: Path) -> dict[str, float]:
    runs = [train(stream, data, split, out, {}) for stream in STREAMS]
    models = dict(zip(STREAMS, runs, strict=True))
    for method in METHODS:
        models[method] = out / f"{method}-{split}.keras"
        kvideo.fuse(
            runs, out / f"{split}_val.csv", method=method, out=models[method], overwrite=True
        )
    return {
        name: round(accuracy(model, data / f"{split}_test.csv", data), 4)
        for name, model in models.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ut_two_stream"))
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--choose", choices=sorted(STREAMS))
    parser.add_argument("--set", default="{}", help="with --choose: JSON of other settings")
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.choose:
        changes = json.loads(arguments.set)
        folder = train(arguments.choose, data, "fold0", out, changes)
        print(arguments.choose, changes, accuracy(folder, out / "fold0_val.csv", data))
        return
    rows = {}
    for split in arguments.splits:
        rows[split] = run(data, split, out)
        print(split, rows[split], flush=True)
    folds = [row for name, row in rows.items() if name.startswith("fold")]
    for name in rows[arguments.splits[0]] if len(folds) > 1 else ():
        values = [row[name] for row in folds]
        print(f"{name:10} {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
