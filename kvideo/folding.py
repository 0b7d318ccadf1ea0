"""Batch norm folded into the convolution before it: the same model, with less to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kvideo.errors import UsageError
from kvideo.graphs import as_functional, functional_graph, graph_nodes
from kvideo.layers.depthwise import DepthwiseConv3D

_BY_CHANNEL = (  # kernels that end in (channels, multiplier)
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    DepthwiseConv3D,
)
_BY_FILTER = (  # kernels that end in the output channels
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A copy of the model in which convolutions do the work of the batch norms behind them.

    At test time a batch norm multiplies each channel and adds to it, which a convolution's kernel
    and bias can do as well (Jacob et al. 2018, section 3.2). Dense, separable and depthwise layers
    count as convolutions. Layer names stay; a batch norm that went becomes an `Identity`. One that
    does not follow a convolution, or follows one whose output others use too, stays.

    The copy is for prediction and export. Trained further it is a network without batch norm.

    Args:
        model: a functional or sequential model; models within it are folded too.

    Returns:
        A model with the same outputs up to rounding, of the same ClipSpec and class names. Where
        there is nothing to fold it is the model itself.

    Raises:
        UsageError: the model is of another kind, so its layers are not known.
    """
    source = as_functional(model)
    if source is None:
        name = getattr(model, "name", model)
        raise UsageError(f'the model "{name}" is not functional, so its batch norms are not known.')
    info, model = getattr(model, "kvideo_info", None), source
    if info is not None:
        source.kvideo_info = info
    partner = {id(norm): convolution for norm, convolution in _foldable(model)}
    if not partner:
        return source  # layers of other packages cannot always be made anew from their settings
    folded = {id(convolution) for convolution in partner.values()}
    copies: dict[int, Any] = {}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if id(layer) in partner:
            copy = keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        else:
            if id(layer) in folded:
                config["use_bias"] = True
            copy = type(layer).from_config(config)
        copies[id(layer)] = copy
        return copy

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        # An Identity takes none of the arguments that the batch norm was called with.
        return (
            layer(args[0]) if isinstance(layer, keras.layers.Identity) else layer(*args, **kwargs)
        )

    # Made here, because Keras would give the copy's inputs other names.
    inputs = [
        keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x._keras_history.operation.name)
        for x in model.inputs
    ]
    result = keras.models.clone_model(
        model,
        input_tensors=keras.tree.pack_sequence_as(model.input, inputs),
        clone_function=clone,
        call_function=call,
        recursive=True,
    )
    norms = {id(convolution): norm for norm, convolution in _foldable(model)}
    for layer in inner_layers(model):
        if id(layer) in norms:
            copies[id(layer)].set_weights(_folded_weights(layer, norms[id(layer)]))
        elif id(layer) not in partner and layer.weights:
            copies[id(layer)].set_weights(layer.get_weights())
    if info is not None:
        result.kvideo_info = info
    return result


def can_fold(model: keras.Model) -> bool:
    """Whether the model's layers are known, so that `fold_batch_norm` takes it."""
    return as_functional(model) is not None


def inner_layers(model: Any) -> Iterator[Any]:
    """The layers of the model and of models within it, without these themselves."""
    for layer in model.layers:
        if functional_graph(layer) is not None:
            yield from inner_layers(layer)
        else:
            yield layer


def _foldable(model: Any) -> Iterator[tuple[Any, Any]]:
    """(batch norm, convolution) for each pair that can become one layer."""
    nodes = graph_nodes(model)
    uses: dict[int, list[Any]] = {}  # by output tensor
    calls: dict[int, int] = {}  # by layer
    for node in nodes:
        calls[id(node.operation)] = calls.get(id(node.operation), 0) + 1
        for tensor in node.arguments.keras_tensors:
            uses.setdefault(id(tensor), []).append(node)
    results = {id(tensor) for tensor in keras.tree.flatten(model.outputs)}
    for node in nodes:
        layer = node.operation
        if functional_graph(layer) is not None:
            yield from _foldable(layer)
            continue
        if not _is_linear(layer) or calls[id(layer)] > 1 or id(node.outputs[0]) in results:
            continue
        followers = uses.get(id(node.outputs[0]), [])
        if len(followers) == 1:
            norm = followers[0].operation
            if _is_last_axis_norm(norm) and calls[id(norm)] == 1:
                yield norm, layer


def _is_linear(layer: Any) -> bool:
    kinds = (*_BY_FILTER, *_BY_CHANNEL, *_SEPARABLE)
    return isinstance(layer, kinds) and layer.activation is keras.activations.linear


def _is_last_axis_norm(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.BatchNormalization):
        return False
    return layer.axis in (-1, len(layer.input.shape) - 1)


def _folded_weights(layer: Any, norm: Any) -> list[np.ndarray]:
    """Kernel(s) and bias that do what the convolution and the batch norm did."""
    mean, variance = (np.asarray(v, "float64") for v in (norm.moving_mean, norm.moving_variance))
    factor = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, "float64")
    offset = np.asarray(norm.beta, "float64") if norm.center else 0.0
    *kernels, last = [np.asarray(w, "float64") for w in layer.get_weights()[: _kernels(layer)]]
    bias = np.asarray(layer.bias, "float64") if layer.use_bias else 0.0
    by_channel = isinstance(layer, _BY_CHANNEL)
    scale = factor.reshape(last.shape[-2:]) if by_channel else factor
    return [*kernels, last * scale, (bias - mean) * factor + offset]


def _kernels(layer: Any) -> int:
    return 2 if isinstance(layer, _SEPARABLE) else 1
