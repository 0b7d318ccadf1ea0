"""Gradient checkpointing along time, for networks that remember.

A recurrent layer's activations grow with the clip, and it is one layer: cutting the network between
layers, as `kvideo.training.remat` does, wins little. So the clip is cut instead, into about as many
parts as a part has frames. What the network remembers at the cuts is kept; a part runs again when
its gradient is due. Unlike in `kvideo.training.truncated`, gradients reach back to the first frame
(Chen et al. 2016, section 4; Gruslys et al. 2016, "Memory-Efficient Backpropagation Through Time").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kvideo.stepping import NotCausalError, SteppedModel
from kvideo.training.clip_parts import over_parts
from kvideo.training.remat import Segment, run_twice


def rematerialized_over_time(
    network: keras.Model, frames: int | None = None
) -> Callable[[Any], Any] | None:
    """The network as a function for training that keeps little of a long clip.

    The numbers are those of the network, except that a batch norm in training goes by the frames of
    a part, and dropout drops anew in each part.

    Args:
        network: functional, from (B, T, H, W, C) to (B, classes) or (B, T, classes).
        frames: in a part, a multiple of the network's stride (see `SteppedModel`); None: about the
            square root of T.

    Returns:
        A function of a batch of clips, for use under a gradient tape inside a `tf.function`. None
        if the network has no recurrent layer, or looks ahead.
    """
    if not any(isinstance(layer, keras.layers.RNN) for layer in network.layers):
        return None
    try:
        stepped = SteppedModel(network)
    except NotCausalError:
        return None
    length, stride = network.input_shape[1], stepped.stride
    size = frames or stride * math.ceil(math.sqrt(length / stride))
    segment, per_frame = _Part(stepped), stepped.per_frame

    def run(clips: Any) -> Any:
        rest, outputs = length % size, None
        states = list(stepped.first_states(tf.shape(clips)[0]))
        if rest:  # the first part is the short one, so that the last one puts out what is wanted
            outputs, *states = run_twice(segment, [stepped.part(clips, 0, rest), *states])

        def body(index: Any, latest: Any, shown: Any, states: Any) -> tuple[Any, ...]:
            clip = stepped.part(clips, rest + index * size, size)
            latest, *states = run_twice(segment, [clip, *states])
            return latest, [array.write(index, latest) for array in shown], states

        count = length // size
        shape = (size, *network.output_shape[2:]) if per_frame else network.output_shape[1:]
        latest = tf.zeros((tf.shape(clips)[0], *shape), network.compute_dtype)
        shown = [tf.TensorArray(latest.dtype, count)] if per_frame else []
        latest, shown, _ = over_parts(network, body, count, latest, shown, states)
        if not per_frame:
            return latest
        blocks = tf.unstack(shown[0].stack(), count)
        return tf.concat(blocks if outputs is None else [outputs, *blocks], axis=1)

    return run


class _Part(Segment):
    """Some frames through the network: from a part of the clip and states to outputs and states."""

    def __init__(self, stepped: SteppedModel) -> None:
        self._stepped = stepped
        self.trained = stepped.model.trainable_variables
        self.others = stepped.model.non_trainable_variables

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        clip, *states = tensors
        outputs, after = self._stepped.run(clip, tuple(states), training=True)
        return [outputs, *after]
