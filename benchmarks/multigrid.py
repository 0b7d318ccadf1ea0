"""Time and validation accuracy of a training with and without `multigrid`, in turns.

    python benchmarks/multigrid.py [--model r2plus1d_18] [--epochs 20] [--seeds 2] [--data demo]

Each training runs in a process of its own. Seconds are those of the whole process but for its
start, compiling of all shapes included; processor seconds hardly depend on what else the machine
does.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def one(settings: dict) -> None:
    import kvideo

    begun = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as folder:
        result = kvideo.fit(out=Path(folder) / "run", verbose=False, **settings)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    accuracies = [row["val_accuracy"] for row in result.history]
    figures = {
        "seconds": time.perf_counter() - begun,
        "processor_seconds": used,
        "training_seconds": sum(row["seconds"] for row in result.history),
        "best": max(accuracies),
        "last": accuracies[-1],
        "accuracies": accuracies,
        "epoch_seconds": [row["seconds"] for row in result.history],
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="demo")
    parser.add_argument("--model", default="slow_fusion")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(json.loads(arguments.one))
        return
    ratios: dict[str, list[float]] = {"seconds": [], "processor_seconds": []}
    for seed in range(arguments.seeds):
        found = {}
        for multigrid in (False, True):
            settings = {
                "data": arguments.data,
                "model": arguments.model,
                "epochs": arguments.epochs,
                "batch_size": arguments.batch_size,
                "learning_rate": arguments.lr,
                "seed": seed,
                "multigrid": multigrid,
            }
            command = [sys.executable, __file__, "--one", json.dumps(settings)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[multigrid] = figures = json.loads(done.stdout.splitlines()[-1])
            print(
                f"seed {seed}  {'multigrid' if multigrid else 'plain':9}  "
                f"best {figures['best']:.3f}  last {figures['last']:.3f}  "
                f"{figures['seconds']:6.1f} s  {figures['processor_seconds']:6.1f} processor s",
                flush=True,
            )
        for name, values in ratios.items():
            values.append(found[True][name] / found[False][name])
    for name, values in ratios.items():
        print(f"multigrid / plain, {name}: {statistics.median(values):.2f}")


if __name__ == "__main__":
    main()
