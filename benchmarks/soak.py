"""A long run that is ended again and again, with bad files, against an undisturbed one.

Prints the largest difference of the weights, and the resident memory over the steps; fails where
the weights differ by more than 1e-5, or memory grows by more than 1 % after the first 300 steps.

    python benchmarks/soak.py FOLDER [--steps 2000] [--every 200]

FOLDER is made, and holds the videos and both runs. `tests/test_soak.py` is a short one.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

BATCH = 4
TOLERANCE = 1e-5
SETTLED, MOST_GROWTH = 300, 1.01  # steps; memory after them, over that at that time
VIDEOS = 98  # that can be read; two cannot
MODEL = ["--model", "slow_fusion", "--set", "widths=[4,6]", "--set", "dropout=0.5"]
CLIPS = ["--frames", "4", "--size", "16", "--val-fraction", "0", "--batch-size", str(BATCH)]
TRAINING = ["--precision", "float32", "--deterministic", "--seed", "1", "--lr", "0.003"]

# Runs `kvideo fit` in this process, and has it terminated after so many steps, as a preempted
# machine would be; prints the resident memory on the way.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path

every, *arguments = sys.argv[1:]
sys.argv = ["kvideo", *arguments]
from kvideo.training import step_compiler

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

compile_step, steps = step_compiler.compile_step, 0

def counted(*args, **options):
    step = compile_step(*args, **options)
    def call(*inputs):
        global steps
        steps += 1
        if steps % 100 == 0:
            print(f"memory {steps} {resident():.1f}", flush=True)
        if steps == int(every):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*inputs)
    return call

step_compiler.compile_step = counted
from kvideo.cli import main
main()
"""


def make_videos(folder: Path) -> None:
    """Small videos of two kinds, two of a hundred being no videos."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from conftest import drifting, write_video

    for seed in range(VIDEOS):
        name, step = (("left", -2), ("right", 2))[seed % 2]
        write_video(folder / name / f"{seed}.mp4", drifting(step, seed))
    for name in ("left", "right"):
        (folder / name / "broken.mp4").write_bytes(b"no video")


def fit(videos: Path, out: Path, epochs: int, every: int) -> tuple[int, list[tuple[int, float]]]:
    """One attempt: its exit status, and the memory (MiB) after so many steps."""
    command = ["fit", str(videos), "--out", str(out), "--epochs", str(epochs), "--auto-resume"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(every), *command, *MODEL, *CLIPS, *TRAINING],
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 143):
        sys.exit(done.stderr)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("memory")]
    return done.returncode, [(int(step), float(size)) for _, step, size in lines]


def newest(run: Path) -> dict[str, np.ndarray]:
    """The arrays of the last checkpoint."""
    with np.load(max((run / "checkpoint").glob("step-*.npz"))) as archive:
        return {name: archive[name] for name in archive.files if name not in ("state", "digest")}


def main() -> None:
    """Runs both, and compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=200)
    options = parser.parse_args()
    videos = options.folder / "videos"
    if not videos.exists():
        make_videos(videos)
    epochs = round(options.steps / ((VIDEOS + 2) / BATCH))
    _, memory = fit(videos, options.folder / "undisturbed", epochs, -1)
    sizes = ", ".join(f"{size:.0f} after {step}" for step, size in memory)
    print(f"resident memory in MiB: {sizes}")
    attempts, status = 0, 143
    while status == 143:
        status, _ = fit(videos, options.folder / "disturbed", epochs, options.every)
        attempts += 1
    one, two = (newest(options.folder / name) for name in ("undisturbed", "disturbed"))
    largest = max(float(np.abs(one[name] - two[name]).max(initial=0)) for name in one)
    print(f"{attempts} attempts; largest difference of any variable {largest:.3g}")
    settled = [size for step, size in memory if step >= SETTLED]
    if settled and max(settled) > MOST_GROWTH * settled[0]:
        sys.exit("memory grows")
    if largest > TOLERANCE or attempts <= options.steps // options.every - 1:
        sys.exit("the runs are not the same")


if __name__ == "__main__":
    main()
