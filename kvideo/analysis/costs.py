"""Parameters and multiply-adds, per layer and in all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.graphs import clip_tensor, trace

Shape = tuple[int, ...]
# Of classes of other packages; see `kvideo.analysis.register_layer`.
MACS: dict[type, Callable[[Any, Shape, Shape], int]] = {}


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
    return _count(model)


def count_macs(model: keras.Model, input_shape: Sequence[int] | None = None) -> int:
    """Multiply-adds of one clip: convolutions and dense layers, without biases.

    Args:
        model: a functional model of known input shape.
        input_shape: of one clip, where the model leaves sizes open.

    Raises:
        UsageError: see `layer_costs`.
    """
    return sum(cost.macs for cost in layer_costs(model, input_shape))


def layer_costs(model: keras.Model, input_shape: Sequence[int] | None = None) -> list[LayerCost]:
    """The cost of every layer, in the order in which they are called.

    A layer of another package is counted by its method `macs(input_shape, output_shape)`, if it
    has one, or by what `kvideo.analysis.register_layer` was told; shapes include the batch.

    Args:
        model: a functional model of one input.
        input_shape: of one clip, where the model leaves sizes open.

    Raises:
        UsageError: a size is unknown, or the model has a layer that cannot be counted.
    """
    costs: list[LayerCost] = []
    seen: set[int] = set()

    def visit(name: str, operation: Any, given: list[Any], outputs: Any) -> None:
        if isinstance(operation, keras.Layer):
            costs.append(cost_of(name, operation, given, outputs, seen))

    trace(model, clip_tensor(model, input_shape), visit)
    return costs


def cost_of(
    name: str, layer: keras.Layer, given: list[Any], outputs: Any, seen: set[int]
) -> LayerCost:
    """The cost of one call of a layer.

    Args:
        name: for the result.
        layer: a built layer.
        given: the Keras tensors that it is called with, of a batch of one clip.
        outputs: what it gives.
        seen: ids of the layers whose parameters have been counted; this one is added.

    Raises:
        UsageError: it cannot be counted.
    """
    got = tuple(keras.tree.flatten(outputs)[0].shape)
    parameters = 0 if id(layer) in seen else count_layer_parameters(layer)
    seen.add(id(layer))
    macs = layer_macs(layer, given[0].shape, got) if given else 0
    return LayerCost(name, type(layer).__name__, got, parameters, macs)


def count_layer_parameters(layer: keras.Layer) -> int:
    """The parameters of one layer, as `count_parameters` counts."""
    return _count(layer)


def _count(layer: keras.Layer) -> int:
    """All weights of a layer or model but the running statistics, those of layers inside too."""
    inside = layer._flatten_layers()
    statistics = {id(variable) for each in inside for variable in _statistics(each)}
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
    for kind in type(layer).__mro__:
        if kind in MACS:
            return MACS[kind](layer, given, got)
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
