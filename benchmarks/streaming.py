"""How many frames a second a model follows a stream with, and whether time and memory stay.

    python benchmarks/streaming.py [MODEL ...] [--size 112] [--frames 2000] [--json]

Every model is run as `kvideo.stream` runs it, on pictures of noise that have its size already;
`decoded` feeds 640x480 frames instead, which are resized. Load is the machine's before and after:
more than what this program needs (about 1.5) means that others were running.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np

import kvideo

MODELS = {
    "recurrent_conv": {"cell": "gru"},
    "recurrent_conv lstm": {"cell": "lstm"},
    "cnn_rnn": {},
    "cnn3d_rnn": {},
    "slow_fusion": {},
}
CLASSES = 10


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(name, size, frames):
    frames_of = {"cnn3d_rnn": 32, "slow_fusion": 16}.get(name.split()[0], 20)
    model = getattr(kvideo.models, name.split()[0])(
        CLASSES, input_shape=(frames_of, size, size, 3), **MODELS[name]
    )
    stream = kvideo.stream(model)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (32, size, size, 3), np.uint8)
    large = rng.integers(0, 256, (4, 480, 640, 3), np.uint8)

    def run(feed, count):
        seconds = []
        for index in range(count):
            begun = time.perf_counter()
            feed(index)
            seconds.append(time.perf_counter() - begun)
        return seconds

    def push(index):
        stream.push(pictures[index % len(pictures)])

    def decoded(index):
        stream.step(large[index % len(large)])

    run(push, 100)
    before, seconds = resident_mib(), run(push, frames)
    grown = resident_mib() - before
    tenth = max(1, frames // 10)
    return {
        "model": name,
        "clip": list(stream.clip_spec.shape),
        "causal": stream.causal,
        "frames_per_s": round(frames / sum(seconds), 1),
        "median_ms": round(1e3 * statistics.median(seconds), 2),
        "p99_ms": round(1e3 * sorted(seconds)[int(0.99 * frames)], 2),
        "first_tenth_ms": round(1e3 * statistics.median(seconds[:tenth]), 2),
        "last_tenth_ms": round(1e3 * statistics.median(seconds[-tenth:]), 2),
        "grown_mib": round(grown, 1),
        "decoded_frames_per_s": round(300 / sum(run(decoded, 300)), 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    results = [measure(n, arguments.size, arguments.frames) for n in arguments.models or MODELS]
    document = {"load_before": load, "load_after": os.getloadavg()[0], "results": results}
    if arguments.json:
        print(json.dumps(document, indent=1))
        return
    print(f"load {load:.1f} before, {document['load_after']:.1f} after")
    for each in results:
        print(", ".join(f"{key} {value}" for key, value in each.items()))


if __name__ == "__main__":
    main()
