"""Non-local blocks for a model that is trained already."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import keras

from kvideo.errors import UnknownNameError, UsageError
from kvideo.graphs import as_functional
from kvideo.layers.nonlocal_block import NonLocalBlock3D

_MEAN_IS_FEATURES = "feature_map"


def insert_nonlocal(model: keras.Model, after: str | Sequence[str], **options: Any) -> keras.Model:
    """A copy of the model with non-local blocks in it, and the same outputs, bit by bit.

    The blocks begin as the identity; training the copy puts them to use. Layers keep names and
    weights. The block behind `res4_3_relu` is `res4_3_nonlocal`, as in a model that was built with
    it, and the one behind `mixed4c` is `mixed4c_nonlocal`. Where a layer is used several times, so
    is the block behind it. The model itself stays as it was.

    Args:
        model: a functional or sequential model; models within it stay as they are.
        after: names of layers with outputs (B, T, H, W, C). Wang et al. 2018 put blocks behind the
            residual blocks of res3 and res4.
        **options: of `kvideo.layers.NonLocalBlock3D`.

    Returns:
        A model of the same ClipSpec and class names, not compiled.

    Raises:
        UnknownNameError: the model has no such layer; the message suggests a near one.
        UsageError: a layer has another output, has such a block already, or the model is of
            another kind, so its layers are not known; or an option is unknown or out of its range.
    """
    names = [after] if isinstance(after, str) else list(after)
    if not names:
        raise UsageError("after must name at least one layer.")
    source = as_functional(model)
    if source is None:
        name = getattr(model, "name", model)
        raise UsageError(f'the model "{name}" is not functional, so no layer can be put into it.')
    blocks = {name: _block(source, name, options) for name in names}
    if len({block.name for block in blocks.values()}) < len(names):
        raise UsageError(f"after names a place twice: {', '.join(names)}.")
    copies: dict[int, tuple[keras.Layer, keras.Layer]] = {}

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return layer  # a plain operation, which holds nothing
        copies[id(layer)] = layer, type(layer).from_config(layer.get_config())
        return copies[id(layer)][1]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        return blocks[layer.name](outputs) if layer.name in blocks else outputs

    result = keras.models.clone_model(source, clone_function=clone, call_function=call)
    for layer, copy in copies.values():
        if layer.weights:
            copy.set_weights(layer.get_weights())
    if hasattr(model, "kvideo_info"):
        result.kvideo_info = model.kvideo_info
    return result


def _block(model: keras.Model, name: str, options: dict[str, Any]) -> NonLocalBlock3D:
    """The block to put behind a layer of the model."""
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise UnknownNameError(f'the model "{model.name}" has no layer "{name}".{hint}')
    if isinstance(layers[name], keras.layers.InputLayer):
        raise UsageError(f'"{name}" is the model\'s input; name the layer behind it.')
    output = layers[name].output
    if not hasattr(output, "shape") or len(output.shape) != 5:
        shape = getattr(output, "shape", "several tensors")
        raise UsageError(
            f'a non-local block needs (batch, time, height, width, channels); layer "{name}" '
            f"gives {shape}."
        )
    if name == _MEAN_IS_FEATURES:
        raise UsageError(
            f'a block behind "{name}" would keep it from being what "features" is the mean of; '
            "name the layer before it."
        )
    block = f"{name.removesuffix('_relu')}_nonlocal"
    if block in layers:
        raise UsageError(f'the model "{model.name}" has a layer "{block}" already.')
    try:
        return NonLocalBlock3D(**{"dtype": layers[name].dtype_policy, **options, "name": block})
    except (TypeError, ValueError) as cause:
        if isinstance(cause, UsageError):
            raise
        raise UsageError(f"NonLocalBlock3D does not take these options: {cause}.") from cause
