"""Truncated back-propagation through time: long clips in bounded memory.

A clip is run part by part. What the network remembers passes from one part to the next, gradients
do not; so only the activations of one part are kept at a time, however long the clip is (Williams
and Peng 1990). The gradients of all parts are added up for one step of the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.stepping import NotCausalError, SteppedModel
from kvideo.training.clip_parts import over_parts
from kvideo.training.targets import Targets

Backward = Callable[[Callable[[], Any], Targets], tuple[list[Any], Any]]


class TruncatedBackpropagation:
    """Adds up the gradients of a clip's parts.

    Args:
        network: causal, with an output for each frame.
        frames: in a part; the last part of a clip may be shorter.

    Raises:
        UsageError: the network has one output for the whole clip, or looks ahead; or `frames` does
            not suit its windows.
    """

    def __init__(self, network: keras.Model, frames: int) -> None:
        if len(network.output_shape) != 3:
            raise UsageError(
                "bptt needs a model with an output for each frame (output=frames); with one output "
                "for the clip, remat saves memory."
            )
        try:
            self._stepped = SteppedModel(network)
        except NotCausalError as cause:
            raise UsageError(
                f"bptt needs a model that runs part by part and does not look ahead, but {cause}"
            ) from cause
        stride, self._length = self._stepped.stride, network.input_shape[1]
        if frames < 1 or frames % stride:
            raise UsageError(f"bptt must be a positive multiple of {stride} frames, not {frames}.")
        self._frames = min(frames, self._length)

    def __call__(
        self, clips: Any, targets: Targets, backward: Backward, like: list[Any]
    ) -> tuple[list[Any], Any]:
        """Gradients and figures, each the sum over the parts.

        Args:
            clips: (B, T, H, W, C).
            targets: of the clips' frames.
            backward: from a function that gives logits (B, t, classes), and their targets, to
                gradients and a tensor of figures; it calls the function under its tape.
            like: the variables' values, whose shapes the gradients have.
        """

        def part(first: Any, count: int, states: Any) -> tuple[list[Any], Any, tuple[Any, ...]]:
            shown = self._stepped.part(clips, first, count)
            after: list[Any] = []

            def run() -> Any:
                logits, new = self._stepped.run(shown, states, training=True)
                after.extend(new)
                return logits

            gradients, figures = backward(run, targets.part(first, count))
            return gradients, figures, tuple(tf.stop_gradient(state) for state in after)

        def body(index: Any, states: Any, total: Any, figures: Any) -> tuple[Any, ...]:
            gradients, more, states = part(index * self._frames, self._frames, states)
            total = [a + b for a, b in zip(total, gradients, strict=True)]
            return states, total, figures + more

        whole, rest = divmod(self._length, self._frames)
        states = self._stepped.first_states(tf.shape(clips)[0])
        total = [tf.zeros_like(value) for value in like]
        network = self._stepped.model
        states, total, figures = over_parts(network, body, whole, states, total, tf.zeros(2))
        if rest:
            gradients, more, _ = part(whole * self._frames, rest, states)
            total = [a + b for a, b in zip(total, gradients, strict=True)]
            figures += more
        return total, figures
