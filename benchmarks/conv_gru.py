"""ConvGRU2D beside Keras's ConvLSTM2D of the same size: forward and training step, in turn.

    python benchmarks/conv_gru.py [--rounds 7] [--reset-after]

Prints one JSON object: median seconds of both and the ratio. A ConvGRU has 3/4 of the
multiply-adds.
"""

import argparse
import json
import statistics
import time

import keras
import tensorflow as tf

from kvideo.layers import ConvGRU2D

SHAPE, FILTERS, KERNEL = (1, 16, 56, 56, 64), 64, 3


def steps(layer):
    x = tf.random.stateless_normal(SHAPE, (0, 0))
    layer.build(SHAPE)

    @tf.function(jit_compile=False)
    def forward():
        return layer(x)

    @tf.function(jit_compile=False)
    def train():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

    return {"forward": forward, "train": train}


def seconds(function):
    begun = time.perf_counter()
    tf.nest.map_structure(lambda x: x.numpy(), function())
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reset-after", action="store_true")
    arguments = parser.parse_args()
    ours = steps(
        ConvGRU2D(FILTERS, KERNEL, return_sequences=True, reset_after=arguments.reset_after)
    )
    keras_lstm = keras.layers.ConvLSTM2D(FILTERS, KERNEL, padding="same", return_sequences=True)
    theirs = steps(keras_lstm)
    result = {}
    for phase in ours:
        pairs = []
        for _ in range(arguments.rounds + 2):
            pairs.append((seconds(ours[phase]), seconds(theirs[phase])))
        pairs = pairs[2:]
        result[phase] = {
            "conv_gru": statistics.median(a for a, _ in pairs),
            "conv_lstm": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(a / b for a, b in pairs),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
