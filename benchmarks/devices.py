"""Two mirrored logical CPU devices against one, and exact against usual numbers, step by step.

    python benchmarks/devices.py [--rounds 5] [--steps 20]

Every figure is of a process of its own, which trains on one batch again and again; rounds take
turns, medians count. The devices share the processors. Several devices always take batch
statistics exactly, so "one" and "two" are compared with `--deterministic`, too.
"""

import argparse
import json
import statistics
import subprocess
import sys

MODELS = {
    "slow_fusion": {"input_shape": (16, 112, 112, 3)},
    "r2plus1d_18": {"input_shape": (8, 112, 112, 3)},
    "slowfast_4x16_r50": {"input_shape": (32, 112, 112, 3)},
}
CASES = {"one": (1, False), "two": (2, False), "one exact": (1, True)}
BATCH, CLASSES = 8, 10
PROGRAM = """
import json, sys, time
import keras, numpy as np, tensorflow as tf
import kvideo
from kvideo.hardware import choose_strategy
from kvideo.layers.normalization import use_exact_statistics
from kvideo.training.step import compile_step

name, options, devices, exact, batch, classes, steps = json.loads(sys.argv[1])
processor = tf.config.list_physical_devices("CPU")[0]
logical = [tf.config.LogicalDeviceConfiguration()] * devices
tf.config.set_logical_device_configuration(processor, logical)
if exact:
    tf.config.experimental.enable_op_determinism()
    use_exact_statistics(True)
strategy = choose_strategy("one" if devices == 1 else "mirrored")
keras.utils.set_random_seed(0)
options["input_shape"] = tuple(options["input_shape"])
with strategy.scope():
    model = getattr(kvideo.models, name)(classes, **options)
    optimizer = keras.optimizers.SGD(1e-3, 0.9)
    optimizer.build(model.trainable_variables)
step = compile_step(model, optimizer, strategy, batch_size=batch)
rng = np.random.default_rng(0)
clips = rng.integers(0, 256, (batch, *options["input_shape"]), dtype=np.uint8)
labels = rng.integers(0, classes, batch).astype(np.int32)
pieces = tf.data.Dataset.from_tensor_slices((clips, labels)).batch(batch // devices)
data = strategy.distribute_datasets_from_function(lambda _: pieces.cache().repeat())
flag, seconds = tf.constant(0.0), []
for number, (x, y) in zip(range(steps + 3), data):
    begun = time.perf_counter()
    step(x, y, flag).numpy()
    seconds.append(time.perf_counter() - begun)
print(json.dumps(float(np.median(seconds[3:]))))
"""


def measure(name: str, case: str, steps: int) -> float:
    """Seconds of a step."""
    settings = json.dumps([name, MODELS[name], *CASES[case], BATCH, CLASSES, steps])
    command = [sys.executable, "-c", PROGRAM, settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures all models in all ways, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    for name in options.models:
        rows = [
            {case: measure(name, case, options.steps) for case in CASES}
            for _ in range(options.rounds)
        ]
        for case in CASES:
            ratio = statistics.median(row[case] / row["one"] for row in rows)
            seconds = statistics.median(row[case] for row in rows)
            print(f"{name:18} {case:10} {1000 * seconds:8.1f} ms  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
