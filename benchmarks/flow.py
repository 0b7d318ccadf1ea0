"""Optical flow of a video: computing it, reading it from the cache, its size, and what is lost.

    python benchmarks/flow.py VIDEO [--method dis] [--short-side 256]

Prints one line for each way of keeping it: flows computed a second (with decoding and writing),
flows read a second by one and by two threads, bytes for a flow, and the mean end-point error
against the flow as estimated, which a reader of the cache does not see.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kvideo.data.decode import open_video
from kvideo.data.flow_cache import FlowCache
from kvideo.flow import FlowEstimator, FlowSettings, end_point_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--method", default="dis")
    parser.add_argument("--preset", default="medium")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    common = {"method": arguments.method, "preset": arguments.preset}
    for options in ({"quality": 90}, {"quality": 95}, {"quality": 100}, {"store": "float16"}):
        settings = FlowSettings(short_side=arguments.short_side, **common, **options)
        computed, one, two = [], [], []
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                track = FlowCache(settings, folder, workers=2).of(arguments.video)
                computed.append(len(track) / (time.perf_counter() - started))
                started = time.perf_counter()
                for index in range(len(track)):
                    track[index]
                one.append(len(track) / (time.perf_counter() - started))
                started = time.perf_counter()
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(track.__getitem__, range(len(track))))
                two.append(len(track) / (time.perf_counter() - started))
                size = track.num_bytes / len(track)
                shape = track.size
                kept = [track[index] for index in range(0, len(track), 10)]
        with open_video(arguments.video) as reader:
            pictures = [frame for _, frame in reader.frames(size=shape)]
        estimator = FlowEstimator(**common)
        true = [estimator(a, b) for a, b in list(zip(pictures, pictures[1:], strict=False))[::10]]
        lost = [end_point_error(a, b) for a, b in zip(kept, true, strict=True)]
        speed = float(np.mean([np.hypot(*np.moveaxis(flow, -1, 0)).mean() for flow in true]))
        print(
            f"{options}: {shape[1]}x{shape[0]}, computed {np.median(computed):.0f}/s, read "
            f"{np.median(one):.0f}/s, by two {np.median(two):.0f}/s, {size / 1000:.1f} kB each, "
            f"EPE {np.mean(lost):.4f} of {speed:.2f} pixels",
            flush=True,
        )


if __name__ == "__main__":
    main()
