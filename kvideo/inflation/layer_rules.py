"""Rules of `kvideo.inflate` for all layers but convolutions, and the table of all rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from kvideo.inflation.convolution_rules import CONVOLUTIONS
from kvideo.inflation.rule import (
    Call,
    Inflated,
    Rule,
    check_channels,
    made,
    per_frame,
    refuse,
    shifted_axes,
)
from kvideo.layers.dropout import Dropout, DropPath
from kvideo.layers.inflation import FramePooling
from kvideo.layers.normalization import BatchNorm, ReLU
from kvideo.layers.pixels import PixelNormalization


def _same(call: Call) -> Inflated:
    return made(type(call.layer), call.config())


def _rank(call: Call) -> int:
    """Of the 2D layer's input."""
    return len(call.inputs[0].shape) - 1


def _axis(call: Call) -> Inflated:
    axis = shifted_axes(call.layer.get_config()["axis"], _rank(call))
    return made(type(call.layer), call.config(axis=axis))


def _batch_norm(call: Call) -> Inflated:
    config = call.config()
    if shifted_axes(config.pop("axis"), _rank(call)) not in (-1, [_rank(call)]):
        raise refuse(call.layer, "it normalizes another axis than the last, the channels.")
    if config.get("renorm"):
        raise refuse(call.layer, "batch renormalization has no form for clips.")
    options = ("synchronized", "renorm", "renorm_clipping", "renorm_momentum")
    return made(BatchNorm, {key: value for key, value in config.items() if key not in options})


_POOLS = {
    layers.MaxPooling2D: layers.MaxPooling3D,
    layers.AveragePooling2D: layers.AveragePooling3D,
}


def _pool(call: Call) -> Inflated:
    """Over pictures; over time only where a stride in time is asked for, and then as far as it."""
    check_channels(call)
    sizes = {
        "pool_size": (call.stride_t, *call.layer.pool_size),
        "strides": (call.stride_t, *call.layer.strides),
    }
    return made(_POOLS[type(call.layer)], call.config(**sizes))


_GLOBAL_POOLS = {
    layers.GlobalAveragePooling2D: (layers.GlobalAveragePooling3D, "mean"),
    layers.GlobalMaxPooling2D: (layers.GlobalMaxPooling3D, "max"),
}


def _global_pool(call: Call) -> Inflated:
    """Per frame where its result goes back to the frames, else over time as well."""
    check_channels(call)
    if not call.to_clip:
        return per_frame(call)
    kind, mode = _GLOBAL_POOLS[type(call.layer)]
    if not call.layer.keepdims:
        return made(kind, call.config())
    return _pooled_before(call, mode)


def _pooled_before(call: Call, mode: str = "mean") -> Inflated:
    """Time is pooled first; the 2D layer itself follows."""
    pool = FramePooling(mode, name=f"{call.name}_time", dtype=call.layer.dtype_policy)
    return Inflated([pool, type(call.layer).from_config(call.config())])


def _flatten(call: Call) -> Inflated:
    if call.to_clip:
        return _pooled_before(call)
    sizes = math.prod(call.inputs[0].shape[2:])
    return Inflated([layers.Reshape((call.frames, sizes), name=call.name)])


def _reshape(call: Call) -> Inflated:
    if call.to_clip:
        return _pooled_before(call)
    return made(layers.Reshape, call.config(target_shape=(call.frames, *call.layer.target_shape)))


def _permute(call: Call) -> Inflated:
    dims = (1, *(axis + 1 for axis in call.layer.dims))
    return made(layers.Permute, call.config(dims=dims))


def _around(value: Any) -> Callable[[Call], Inflated]:
    """Zero padding and cropping: nothing in time."""

    def rule(call: Call) -> Inflated:
        check_channels(call)
        key = "padding" if value is layers.ZeroPadding3D else "cropping"
        return made(value, call.config(**{key: ((0, 0), *call.layer.get_config()[key])}))

    return rule


def _upsampling(call: Call) -> Inflated:
    check_channels(call)
    config = call.config()
    if config.pop("interpolation") != "nearest":
        return per_frame(call)
    return made(layers.UpSampling3D, {**config, "size": (1, *call.layer.size)})


def _dropout(call: Call) -> Inflated:
    """What is dropped in one frame is dropped in all where the noise has a given shape."""
    shape = call.layer.get_config()["noise_shape"]
    if shape is None:
        return _same(call)
    return made(type(call.layer), call.config(noise_shape=(shape[0], 1, *shape[1:])))


def _spatial_dropout(call: Call) -> Inflated:
    check_channels(call)
    return made(layers.SpatialDropout3D, call.config())


def _prelu(call: Call) -> Inflated:
    """All frames share one slope."""
    shared = [1, *(axis + 1 for axis in call.layer.shared_axes or ())]
    new = layers.PReLU.from_config(call.config(shared_axes=shared))
    return Inflated([new], lambda old: [[weight[None] for weight in old]])


STRIDED = (*CONVOLUTIONS, *_POOLS)

# Layers that treat every position alike, or the last axis only.
_POSITIONWISE = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Dense,
    layers.Rescaling, layers.GaussianNoise, layers.GaussianDropout,
    PixelNormalization, DropPath, ReLU,
)  # fmt: skip
MERGES = (
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
)  # fmt: skip
_FRAME_BY_FRAME = (
    layers.Conv2DTranspose, layers.GroupNormalization, layers.Resizing, layers.CenterCrop,
)  # fmt: skip
# Layers that modules of keras.applications define for themselves, and do not export.
_OF_APPLICATIONS = ("LayerScale", "StochasticDepth", "CustomScaleLayer")

RULES: dict[type[keras.Layer], Rule] = {
    **CONVOLUTIONS,
    **dict.fromkeys(_POSITIONWISE, _same),
    **dict.fromkeys(MERGES, _same),
    layers.Concatenate: _axis,
    **dict.fromkeys(_FRAME_BY_FRAME, per_frame),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_GLOBAL_POOLS, _global_pool),
    layers.BatchNormalization: _batch_norm,
    BatchNorm: _batch_norm,
    layers.LayerNormalization: _axis,
    layers.Normalization: _axis,
    layers.Softmax: _axis,
    layers.UnitNormalization: _axis,
    layers.Dropout: _dropout,
    Dropout: _dropout,
    layers.SpatialDropout2D: _spatial_dropout,
    layers.PReLU: _prelu,
    layers.ZeroPadding2D: _around(layers.ZeroPadding3D),
    layers.Cropping2D: _around(layers.Cropping3D),
    layers.UpSampling2D: _upsampling,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
}


def rule_for(layer: keras.Layer) -> Rule:
    """The rule of a layer's class; subclasses may do anything, so they have none.

    Raises:
        UsageError: there is none; names the layer and what can be done.
    """
    kind = type(layer)
    if kind.__module__.startswith("keras.src.applications.") and kind.__name__ in _OF_APPLICATIONS:
        return _same
    if kind in RULES:
        return RULES[kind]
    alone = all(len(node.input_tensors) < 2 for node in layer._inbound_nodes)
    hint = f'per_frame=["{layer.name}"] runs it on each frame by itself; otherwise build'
    raise refuse(
        layer,
        f"there is no rule for its class. {hint if alone else 'Build'} it of other layers.",
    )


def squeezes(operation: Any) -> bool:
    """Whether an operation on a map leaves no height and width."""
    if isinstance(operation, layers.Reshape):
        return len(operation.target_shape) == 1
    return type(operation) in (*_GLOBAL_POOLS, layers.Flatten)
