"""Memory and time of a training step on long clips: all kept, `remat`, `bptt`.

    python benchmarks/long_clips.py [--frames 300] [--batch 4] [--side 64]

Each case runs in a process of its own. Memory is the process's peak beyond what it had before the
first step, clips and activations; time is that of the second step.
"""

import argparse
import resource
import subprocess
import sys
import time

CASES = (("video", None, False), ("video", None, True), ("frames", 32, False))


def one(model: str, frames: int, case: tuple[str, int | None, bool], batch: int, side: int) -> str:
    import keras
    import numpy as np
    import tensorflow as tf

    import kvideo
    from kvideo.training.step import compile_step

    output, bptt, remat = case
    build = getattr(kvideo.models, model)
    network = build(6, input_shape=(frames, side, side, 3), output=output)
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(network.trainable_variables)
    strategy = tf.distribute.get_strategy()
    step = compile_step(network, optimizer, strategy, batch_size=batch, bptt=bptt, remat=remat)
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (batch, frames, side, side, 3)).astype("uint8")
    labels = np.zeros((batch, frames) if output == "frames" else (batch,), "int32")
    arguments = tf.constant(clips), tf.constant(labels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(*arguments)
    started = time.perf_counter()
    step(*arguments)
    seconds = time.perf_counter() - started
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    how = "remat" if remat else f"bptt {bptt}" if bptt else "all kept"
    return f"{model:15} {frames:4} frames  {how:9} {more:6.0f} MB  {seconds:6.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.batch, arguments.side
    if arguments.one:
        model, frames, case = arguments.one
        print(one(model, int(frames), CASES[int(case)], *sizes))
        return
    for model in ("recurrent_conv", "cnn_rnn"):
        for frames, case in (
            (32, 0),
            (arguments.frames, 0),
            (arguments.frames, 1),
            (arguments.frames, 2),
        ):
            command = [sys.executable, __file__, "--one", model, str(frames), str(case)]
            command += ["--batch", str(sizes[0]), "--side", str(sizes[1])]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
