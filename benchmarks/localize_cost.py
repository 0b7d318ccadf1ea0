"""What `kvideo localize predict` costs beside its features, and what mAP costs.

    python benchmarks/localize_cost.py LOCALIZER VIDEO [--repeats 5]
    python benchmarks/localize_cost.py --map PREDICTIONS.json TRUTH.json

The first line computes a video's features, and predicts, in turns; it prints the medians and their
ratio, and the most memory that was resident. The second one times the mean average precision of a
file of results in ActivityNet's form.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

from kvideo.localization.api import evaluate, predict
from kvideo.localization.localizer import load_localizer
from kvideo.localization.streams import Reading, pass_features


def features(localizer, video: str, folder: Path) -> float:
    started = time.perf_counter()
    for stream in localizer.streams:
        reading = Reading(stream.layer, localizer.stride)
        list(pass_features(stream.extractor, [video], folder / stream.name, reading))
    return time.perf_counter() - started


def whole(localizer, video: str) -> float:
    started = time.perf_counter()
    (found,) = predict(localizer, video)
    if found.error:
        raise SystemExit(found.error)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--map", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.map:
        started = time.perf_counter()
        result = evaluate(arguments.first, arguments.second, split="val", verbose=False)
        seconds = round(time.perf_counter() - started, 2)
        print(json.dumps({"seconds": seconds, "average_map": result.scores.average}))
        return
    localizer = load_localizer(arguments.first)
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            one = features(localizer, arguments.second, Path(folder))
            pairs.append((one, whole(localizer, arguments.second)))
    one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shown = {"features": one, "predict": two, "ratio": ratio, "peak_mib": megabytes}
    print(json.dumps({name: round(value, 3) for name, value in shown.items()}))


if __name__ == "__main__":
    main()
