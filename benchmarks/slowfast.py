"""SlowFast-R50 8x8, one clip of 32x224x224: seconds for inference and for a training step.

    python benchmarks/slowfast.py [--repeats 5] [--only infer_float32 …] [--profile DIR]

Prints one JSON object with the keys of a like script for another implementation, so that the two
can be run in turn and compared. Inference is what `predict` and `evaluate` run; the training step
is that of `fit`.
"""

import argparse
import json
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

import kvideo
from kvideo.inference import Predictor
from kvideo.training.step import compile_step

CASES = ("infer_float32", "infer_bfloat16", "train_float32", "train_bfloat16")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def median_seconds(step, repeats, profile=None):
    step(), step()
    if profile:
        with tf.profiler.experimental.Profile(profile):
            step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def build(precision):
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        return kvideo.models.slowfast_8x8_r50(400)
    finally:
        keras.config.set_dtype_policy("float32")


def measure(case, batch_size, repeats, profile):
    kind, precision = case.split("_")
    started = time.perf_counter()
    model = build(precision)
    built = time.perf_counter()
    clips = np.random.default_rng(0).integers(0, 256, (batch_size, 32, 224, 224, 3), dtype="uint8")
    if kind == "infer":
        predictor = Predictor(model, batch_size, settle_after=0)  # as in a long evaluation

        def step():
            predictor(clips)
    else:
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        optimizer.build(model.trainable_variables)
        strategy = tf.distribute.get_strategy()
        run = compile_step(model, optimizer, strategy, batch_size=batch_size)
        inputs = tf.constant(clips), tf.zeros(batch_size, tf.int32)

        def step():
            run(*inputs).numpy()

    first = time.perf_counter()
    step()
    times = {"build": built - started, "first": time.perf_counter() - first}
    return median_seconds(step, repeats, profile) / batch_size, times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--profile", help="folder for a trace of one step")
    arguments = parser.parse_args()
    result = {}
    for case in arguments.only:
        result[case], times = measure(
            case, arguments.batch_size, arguments.repeats, arguments.profile
        )
        result[f"{case}_startup"] = {name: round(value, 2) for name, value in times.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
