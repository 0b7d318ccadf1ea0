"""The loop over the parts that a long clip is trained in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def over_parts(
    network: keras.Model, body: Callable[..., tuple[Any, ...]], count: int, *variables: Any
) -> tuple[Any, ...]:
    """`variables = body(index, *variables)` for each index from 0 to `count` - 1, in a graph.

    A loop of the graph, unless batch norms of the network wait for other devices: TensorFlow cannot
    do that in a loop, so the parts are laid out one after the other then.

    Args:
        network: what `body` runs.
        body: from a scalar index and tensors, arrays or lists of them to the like.
        count: at least 1.
        *variables: their first values.

    Returns:
        Their last values.
    """
    if _waits_for_devices(network):
        for index in range(count):
            variables = body(tf.constant(index), *variables)
        return variables
    _, *last = tf.while_loop(
        lambda index, *_: index < count,
        lambda index, *values: (index + 1, *body(index, *values)),
        (tf.constant(0), *variables),
        maximum_iterations=count,
        parallel_iterations=1,
    )
    return tuple(last)


def _waits_for_devices(network: keras.Model) -> bool:
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return False
    return any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for layer in network._flatten_layers()
    )
