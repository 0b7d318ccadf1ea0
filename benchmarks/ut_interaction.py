"""UT-Interaction: four folds by sequence, and training on one place, testing on the other.

    python benchmarks/ut_interaction.py DATA MODEL [--out DIR] [--splits fold0 … place] [--choose]

DATA is the folder with the clips and the lists `fold0_train.csv` … `place_test.csv`. Frames are
letterboxed: a clip's shape alone is right for 0.65 of fold 0, and cropping or stretching would show
it to the model. `--choose` does not touch a test list: it holds out every fourth sequence of fold
0's training list and tests on that, which is how the settings below were chosen.
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import kvideo

BACKBONE = {"backbone": "efficientnet_lite0", "dropout": 0.3}
SETTINGS = {
    "single_frame": {"num_frames": 1, "epochs": 40},
    "late_fusion": {"num_frames": 8, "epochs": 20},
    # late_fusion's recipe with a recurrent layer over the frames' features instead of their mean.
    "cnn_rnn": {"num_frames": 8, "epochs": 20, "model_options": {"pooling": "mean"}},
    # Temporal kernels in the last blocks only; frozen layers cannot learn motion anyway.
    "inflated": {
        "num_frames": 8,
        "epochs": 20,
        "model_options": {"kernel_t": {"block1[3-5]_depthwise": 3}, "initialization": "centre"},
    },
}
SHARED = {
    "frame_rate": 4.0,
    "size": (160, 160),
    "framing": "letterbox",
    "weights": "imagenet",
    "freeze": "block10_add",
    "batch_size": 8,
    "learning_rate": 1e-3,
    "label_smoothing": 0.1,
    "min_area": 0.5,
    "val_fraction": 0.0,
    "precision": "float32",
}
SPLITS = ("fold0", "fold1", "fold2", "fold3", "place")


def sequence(path: str) -> int:
    return int(Path(path).stem.split("_")[1])


def held_out(data: Path, out: Path) -> tuple[Path, Path]:
    """Fold 0's training list without, and only with, the sequences 1, 5, 9 …"""
    rows = list(csv.reader(open(data / "fold0_train.csv"), delimiter=" "))
    lists = out / "choose_train.csv", out / "choose_test.csv"
    for path, wanted in zip(lists, (False, True), strict=True):
        kept = [row for row in rows if (sequence(row[0]) % 4 == 1) == wanted]
        path.write_text("".join(f"{data / name} {label}\n" for name, label in kept))
    return lists


def run(model: str, train: Path, test: Path, data: Path, out: Path, changes: dict) -> dict:
    settings = {**SHARED, **SETTINGS[model], **changes}
    options = {**BACKBONE, **settings.pop("model_options", {})}
    started = time.perf_counter()
    settings |= {"root": data, "out": out, "overwrite": True, "model_options": options}
    result = kvideo.fit(train, model=model, **settings)
    fitted = time.perf_counter()
    evaluation = kvideo.evaluate(result.folder, test, root=data, num_clips=10, out=out)
    return {
        "top1": evaluation.metrics["top1"],
        "videos": evaluation.metrics["num_videos"],
        "fit_seconds": round(fitted - started),
        "evaluate_seconds": round(time.perf_counter() - fitted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", choices=sorted(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path("runs/ut_interaction"))
    parser.add_argument("--splits", nargs="+", default=SPLITS, choices=SPLITS)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--set", default="{}", help="JSON of other settings")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, changes = arguments.data.resolve(), json.loads(arguments.set)
    rows = {}
    if arguments.choose:
        lists = held_out(data, arguments.out)
        rows["choose"] = run(arguments.model, *lists, data, arguments.out / "choose", changes)
    else:
        for split in arguments.splits:
            lists = data / f"{split}_train.csv", data / f"{split}_test.csv"
            folder = arguments.out / f"{arguments.model}-{split}"
            rows[split] = run(arguments.model, *lists, data, folder, changes)
            print(split, rows[split], flush=True)
    folds = [row["top1"] for name, row in rows.items() if name.startswith("fold")]
    if len(folds) > 1:
        rows["folds"] = {"mean": statistics.mean(folds), "spread": statistics.stdev(folds)}
    print(json.dumps({"model": arguments.model, "changes": changes, "results": rows}, indent=2))


if __name__ == "__main__":
    main()
