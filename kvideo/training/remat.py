"""Gradient checkpointing: keep the activations at a few cuts, compute the others once more.

Training keeps every layer's output for the backward pass. Cut into segments, a network keeps only
what passes from one segment to the next; each segment runs again when its gradient is due. That
takes about a third more time and a fraction of the memory (Chen et al. 2016, "Training Deep Nets
with Sublinear Memory Cost").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.graphs import functional_graph, graph_nodes

_LIMITS_TRIED = 40


@dataclass(frozen=True)
class _Plan:
    """A functional network as a list of calls, and what is alive between them.

    Attributes:
        calls: of layers and operations, in an order in which they can run.
        live: for each place, the tensors that are made before it and needed at or after it;
            place i lies in front of call i.
        sizes: numbers that each call puts out, for one clip.
    """

    calls: tuple[Any, ...]
    live: tuple[tuple[Any, ...], ...]
    sizes: tuple[int, ...]

    def live_size(self, place: int) -> int:
        return sum(_size(tensor) for tensor in self.live[place])


def rematerialized(network: keras.Model) -> Callable[[Any], Any]:
    """The network as a function for training that stores little; same numbers, same variables.

    Args:
        network: functional; each layer is called once.

    Returns:
        A function of a batch of clips, for use under a gradient tape inside a `tf.function`.
        Running statistics move once a call, and dropout drops the same the second time.

    Raises:
        UsageError: the network is not functional, or calls a layer twice.
    """
    plan = _plan(network)
    cuts = choose_cuts(plan)
    places = [1, *cuts, len(plan.calls)]
    segments = [
        _Segment(plan.calls[first:last], plan.live[first], plan.live[last])
        for first, last in zip(places, places[1:], strict=False)
    ]

    def run(clips: Any) -> Any:
        tensors = [clips]
        for segment in segments[:-1]:
            tensors = run_twice(segment, tensors)
        # The last segment's gradient comes at once: nothing is won by running it again.
        return segments[-1](tensors)[0]

    return run


class Segment(Protocol):
    """A part of a network, or of its work.

    Attributes:
        trained: the variables that get gradients.
        others: those that a call may move.
    """

    trained: list[Any]
    others: list[Any]

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        """Outputs from inputs, under training."""


class _Segment(Segment):
    """Some successive calls of a network, as a function from live tensors to live tensors."""

    def __init__(self, calls: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._calls, self._inputs, self._outputs = calls, inputs, outputs
        layers = [call.operation for call in calls if isinstance(call.operation, keras.Layer)]
        self.trained = [v for layer in layers for v in layer.trainable_variables]
        self.others = [v for layer in layers for v in layer.non_trainable_variables]

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        values = {id(symbol): x for symbol, x in zip(self._inputs, tensors, strict=True)}
        for call in self._calls:
            args, kwargs = call.arguments.fill_in(values)
            if isinstance(call.operation, keras.Layer) and call.operation._call_has_training_arg:
                kwargs["training"] = True
            outputs = keras.tree.flatten(call.operation(*args, **kwargs))
            values |= {id(symbol): x for symbol, x in zip(call.outputs, outputs, strict=True)}
        return [values[id(symbol)] for symbol in self._outputs]


def _plan(network: keras.Model) -> _Plan:
    calls = graph_nodes(network) if functional_graph(network) is not None else []
    operations = [call.operation for call in calls]
    if not calls or len({id(operation) for operation in operations}) < len(operations):
        raise UsageError(
            f'remat needs a functional model whose layers are called once; "{network.name}" is not.'
        )
    made = [(tensor, place) for place, call in enumerate(calls) for tensor in call.outputs]
    used = {id(tensor): len(calls) for tensor in network.outputs}
    for place, call in enumerate(calls):
        for tensor in call.arguments.keras_tensors:
            used[id(tensor)] = max(used.get(id(tensor), 0), place)
    live = tuple(
        tuple(tensor for tensor, origin in made if origin < place <= used.get(id(tensor), -1))
        for place in range(len(calls) + 1)
    )
    sizes = tuple(sum(map(_size, call.outputs)) for call in calls)
    return _Plan(tuple(calls), live, sizes)


def choose_cuts(plan: _Plan) -> list[int]:
    """The places that need the least memory: what is kept plus the largest segment.

    For each of several limits on a segment's size, cuts are set greedily: as far on as the limit
    admits, at the place where least is alive.
    """
    total, largest = sum(plan.sizes), max(plan.sizes)
    best: tuple[int, list[int]] = (total, [])
    for step in range(_LIMITS_TRIED):
        limit = largest * (total / largest) ** (step / (_LIMITS_TRIED - 1))
        cuts = _greedy(plan, limit)
        places = [0, *cuts, len(plan.calls)]
        segments = [sum(plan.sizes[a:b]) for a, b in zip(places, places[1:], strict=False)]
        need = sum(map(plan.live_size, cuts)) + max(segments)
        best = min(best, (need, cuts))
    return best[1]


def _greedy(plan: _Plan, limit: float) -> list[int]:
    cuts: list[int] = []
    start, count = 1, len(plan.calls)
    while sum(plan.sizes[start:]) > limit:
        end, size = start, 0
        while end < count and (size := size + plan.sizes[end]) <= limit:
            end += 1
        # The second half only, or segments would be needlessly many.
        candidates = range(start + max(1, (end - start) // 2), max(end, start + 1) + 1)
        place = min(candidates, key=lambda place: (plan.live_size(place), -place))
        if place >= count:
            break
        cuts.append(place)
        start = place
    return cuts


def run_twice(segment: Segment, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The segment's outputs, of which the backward pass finds only the inputs stored."""
    trained, others = segment.trained, segment.others
    before = [tf.identity(variable.value) for variable in others]
    moved: list[tf.Tensor] = []

    def call(inputs: Sequence[tf.Tensor], weights: Sequence[tf.Tensor]) -> tuple[list[Any], Any]:
        """Outputs, and the scope that has noted what would have been assigned."""
        mapping = [*zip(trained, weights, strict=True), *zip(others, before, strict=True)]
        with keras.StatelessScope(mapping) as scope:
            outputs = segment(inputs)
        return outputs, scope

    @tf.custom_gradient
    def run(*arguments: tf.Tensor) -> Any:
        outputs, scope = call(arguments[: len(inputs)], arguments[len(inputs) :])
        moved.extend(tf.stop_gradient(scope.get_current_value(variable)) for variable in others)

        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
            # Behind the upstream gradients, or TensorFlow would find that it has all this already.
            with tf.control_dependencies(upstream):
                again = [tf.identity(argument) for argument in arguments]
            wanted = [argument for argument in again if argument.dtype.is_floating]
            with tf.GradientTape() as tape:
                tape.watch(wanted)
                outputs, _ = call(again[: len(inputs)], again[len(inputs) :])
            found = iter(tape.gradient(outputs, wanted, upstream, unconnected_gradients="zero"))
            return [next(found) if x.dtype.is_floating else None for x in again]  # pixels: none

        return outputs, gradient

    weights = [tf.convert_to_tensor(variable.value) for variable in trained]
    outputs = keras.tree.flatten(run(*inputs, *weights))
    for variable, value in zip(others, moved, strict=True):
        variable.assign(value)
    return outputs


def _size(tensor: Any) -> int:
    return math.prod(size or 1 for size in tensor.shape[1:])
