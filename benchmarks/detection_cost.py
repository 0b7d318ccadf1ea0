"""What RoI align and the evaluation of detections cost.

    python benchmarks/detection_cost.py [--repeats 15]

RoI align, forward and backward, on 8×14×14×512 maps with 64 boxes (7×7 bins of 2×2 points), against
`tf.image.crop_and_resize` at the same number of points (14×14), in turns: medians and their ratio.
And frame-mAP of 60 classes and 10,000 boxes each, as AVA's evaluation has it.
"""

import argparse
import statistics
import time

import numpy as np
import tensorflow as tf

from kvideo.detection.metrics import Boxes, frame_scores
from kvideo.layers import RoIAlign

CLIPS, SIDE, CHANNELS, BOXES = 8, 14, 512, 8  # 64 boxes in all


def roi_align(repeats: int) -> None:
    rng = np.random.default_rng(0)
    maps = tf.Variable(rng.normal(size=(CLIPS, SIDE, SIDE, CHANNELS)).astype("float32"))
    low = rng.uniform(0, 0.6, (CLIPS, BOXES, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.4, low.shape)], -1).astype("float32")
    layer = RoIAlign((7, 7), samples=2)
    owner = np.repeat(np.arange(CLIPS), BOXES)
    swapped = boxes.reshape(-1, 4)[:, [1, 0, 3, 2]]

    def step(forward):
        @tf.function(jit_compile=False)
        def run():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(forward())
            return loss, tape.gradient(loss, maps)

        return run

    ways = {
        "RoI align": step(lambda: layer([maps, boxes])),
        "crop_and_resize": step(
            lambda: tf.image.crop_and_resize(maps, swapped, owner, (14, 14))
        ),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 2):
        for name, run in ways.items():
            started = time.perf_counter()
            run()[1].numpy()
            if number > 1:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name}: {1000 * value:.1f} ms")
    print(f"ratio {medians['RoI align'] / medians['crop_and_resize']:.2f}")


def evaluation(classes: int = 60, boxes: int = 10_000) -> None:
    rng = np.random.default_rng(0)
    count = classes * boxes
    frames = count // 50

    def some(number: int, scores: bool) -> Boxes:
        low = rng.uniform(0, 0.6, (number, 2))
        corners = np.concatenate([low, low + rng.uniform(0.1, 0.4, low.shape)], -1)
        frame = rng.integers(0, frames, number)
        return Boxes(
            np.array([f"v{n}" for n in frame // 900]), 902.0 + frame % 900, corners,
            rng.integers(0, classes, number), rng.random(number) if scores else None,
        )  # fmt: skip

    truth, said = some(count // 5, False), some(count, True)
    started = time.perf_counter()
    found = frame_scores(truth, said, classes)
    passed = time.perf_counter() - started
    print(
        f"frame-mAP of {classes} classes, {boxes:,} boxes each: {passed:.2f} s ({found.mean:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    roi_align(parser.parse_args().repeats)
    evaluation()


if __name__ == "__main__":
    main()
