"""What a model costs: parameters and multiply-adds, per layer and in all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.errors import UsageError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """One call of one layer, for one clip.

    Attributes:
        name: the layer's name; of a layer in a nested model `outer/inner`.
        kind: its class.
        output_shape: with a batch of one clip, so a layer that sees frames as a batch has T first.
        parameters: as `count_parameters` counts; 0 when the layer was called before.
        macs: multiply-adds of convolutions and dense layers, biases not counted.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int
    macs: int


def count_parameters(model: keras.Model) -> int:
    """Parameters as papers count them: all weights but a normalization's running statistics.

    `model.count_params()` counts those as well. Frozen weights count here.
    """
    counted = {id(variable) for variable in model.weights}
    for layer in model._flatten_layers():
        counted -= {id(variable) for variable in _statistics(layer)}
    return sum(math.prod(v.shape) for v in model.weights if id(v) in counted)


def count_macs(model: keras.Model, input_shape: Sequence[int] | None = None) -> int:
    """Multiply-adds of one clip: convolutions and dense layers, without biases.

    Args:
        model: a functional model of known input shape.
        input_shape: of one clip, where the model leaves sizes open.

    Raises:
        UsageError: a size is unknown, or the model has a layer that cannot be counted.
    """
    return sum(cost.macs for cost in layer_costs(model, input_shape))


def layer_costs(model: keras.Model, input_shape: Sequence[int] | None = None) -> list[LayerCost]:
    """The cost of every layer, in the order in which they are called.

    A layer of another package is counted by its method `macs(input_shape, output_shape)`, if it
    has one; shapes include the batch.

    Args:
        model: a functional model of one input.
        input_shape: of one clip, where the model leaves sizes open.

    Raises:
        UsageError: a size is unknown, or the model has a layer that cannot be counted.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise UsageError(f'the model "{model.name}" has no fixed size: give input_shape.')
    costs: list[LayerCost] = []
    seen: set[int] = set()
    clip = keras.KerasTensor((1, *shape), dtype=model.inputs[0].dtype)
    _trace(model, clip, "", costs, seen)
    return costs


def _trace(
    model: keras.Model, inputs: Any, prefix: str, costs: list[LayerCost], seen: set[int]
) -> Any:
    """Goes through the graph with shapes only; a batch of one makes all of them definite."""

    def visit(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if functional_graph(operation) is not None:
                return _trace(operation, args[0], f"{prefix}{operation.name}/", costs, seen)
            outputs = operation.compute_output_spec(*args, **kwargs)
            if isinstance(operation, keras.Layer):
                given = [x.shape for x in keras.tree.flatten(args) if hasattr(x, "shape")]
                got = keras.tree.flatten(outputs)[0].shape
                parameters = 0 if id(operation) in seen else count_layer_parameters(operation)
                seen.add(id(operation))
                costs.append(
                    LayerCost(
                        prefix + operation.name,
                        type(operation).__name__,
                        tuple(got),
                        parameters,
                        layer_macs(operation, given[0], got) if given else 0,
                    )
                )
            return outputs

        return call

    graph = functional_graph(model)
    if graph is None:
        raise UsageError(f'the model "{model.name}" is not functional, so its layers are unknown.')
    return graph._run_through_graph(inputs, operation_fn=visit)


def graph_nodes(model: keras.Model) -> list[Any]:
    """The calls that a functional or sequential model consists of, in an order they can run in.

    Each has an `operation` (a layer, mostly), `outputs`, and `arguments.keras_tensors`: the tensors
    that it was called with.
    """
    by_depth = functional_graph(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def functional_graph(operation: Any) -> Any:
    """The graph of a functional or sequential model; None of a layer."""
    graph = getattr(operation, "_functional", None) or operation
    return graph if hasattr(graph, "_run_through_graph") else None


def as_functional(model: Any) -> keras.Model | None:
    """A functional or sequential model as a functional one of the same layers; None of others."""
    if not isinstance(model, keras.Model) or not model.built or functional_graph(model) is None:
        return None
    graph = functional_graph(model)
    return graph if graph is model else keras.Model(graph.input, graph.output, name=model.name)


def count_layer_parameters(layer: keras.Layer) -> int:
    """The parameters of one layer, as `count_parameters` counts."""
    statistics = {id(variable) for variable in _statistics(layer)}
    return sum(math.prod(v.shape) for v in layer.weights if id(v) not in statistics)


def _statistics(layer: keras.Layer) -> list[Any]:
    if isinstance(layer, keras.layers.BatchNormalization):
        return [layer.moving_mean, layer.moving_variance]
    return list(layer.weights) if isinstance(layer, keras.layers.Normalization) else []


def layer_macs(layer: keras.Layer, given: Shape, got: Shape) -> int:
    """The multiply-adds of one call of a layer, biases not counted.

    Args:
        layer: a built layer.
        given: shape of its first input, with the batch.
        got: shape of its output, with the batch.

    Raises:
        UsageError: the layer cannot be counted.
    """
    if isinstance(getattr(layer, "layers", None), list):
        raise UsageError(f'layer "{layer.name}" is a model whose layers are not known.')
    if hasattr(layer, "macs"):
        return layer.macs(given, got)
    positions = math.prod(got[:-1])  # channels last; the batch counts
    if isinstance(layer, keras.layers.SeparableConv1D | keras.layers.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return positions * sum(math.prod(kernel.shape) for kernel in kernels)
    if isinstance(layer, keras.layers.Bidirectional):
        return sum(
            layer_macs(one, given, got) for one in (layer.forward_layer, layer.backward_layer)
        )
    if isinstance(layer, keras.layers.RNN) and hasattr(layer.cell, "recurrent_kernel"):
        return _recurrent_macs(layer, given)
    if isinstance(layer, _TRANSPOSED):
        return math.prod(given[:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, _POSITIONWISE):
        return positions * math.prod(layer.kernel.shape)
    if any(len(variable.shape) > 1 for variable in layer.weights):
        raise UsageError(
            f'the multiply-adds of layer "{layer.name}" ({type(layer).__name__}) are not known; '
            "give the layer a method macs(input_shape, output_shape)."
        )
    return 0


def _recurrent_macs(layer: Any, given: Shape) -> int:
    """Those of Keras's recurrent layers: each step has a product of the input and of the state."""
    step = layer.cell.compute_output_shape(given[:1] + given[2:]) if len(given) > 3 else ((1,),)
    positions = given[0] * given[1] * math.prod(step[0][1:-1])
    kernels = (layer.cell.kernel, layer.cell.recurrent_kernel)
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)


_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_POSITIONWISE = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
)
