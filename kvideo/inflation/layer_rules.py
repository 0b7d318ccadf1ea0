"""What each layer for pictures becomes in a network for clips: the rules of `kvideo.inflate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kvideo.errors import UsageError
from kvideo.layers.depthwise import DepthwiseConv3D
from kvideo.layers.drop_path import DropPath
from kvideo.layers.inflation import (
    EdgeConv3D,
    EdgeDepthwiseConv3D,
    FramePadding,
    FramePooling,
    GroupedConv3D,
    PerFrame,
)
from kvideo.layers.normalization import BatchNorm
from kvideo.layers.pixels import PixelNormalization

Weights = list[np.ndarray]
Config = dict[str, Any]
layers = keras.layers


@dataclass(frozen=True)
class Call:
    """One call of a 2D layer, as a rule sees it.

    Attributes:
        layer: the 2D layer.
        name: of the 3D layer.
        inputs: the 5D tensors that the 3D layer will take (of squeezed maps fewer axes).
        kernel_t: frames that the layer's kernel is to span.
        stride_t: by how many frames its output advances.
        edge: whether time is padded by repeating frames rather than by zeros.
        centre: whether the kernel starts as zeros but for its central frame.
        to_clip: for a layer that squeezes pictures, whether it also squeezes time.
    """

    layer: keras.Layer
    name: str
    inputs: list[Any]
    kernel_t: int
    stride_t: int
    edge: bool
    centre: bool
    to_clip: bool

    @property
    def frames(self) -> int:
        """The length of the clip here."""
        return self.inputs[0].shape[1]

    def config(self, **changes: Any) -> Config:
        """The 2D layer's configuration under the new name, with changes."""
        return {**self.layer.get_config(), "name": self.name, **changes}


@dataclass(frozen=True)
class Inflated:
    """What a 2D layer becomes.

    Attributes:
        layers: called one after another.
        weights: from the 2D layer's weights to those of each of `layers`; None: the last takes
            them as they are.
    """

    layers: Sequence[keras.Layer]
    weights: Callable[[Weights], Sequence[Weights]] | None = None


Rule = Callable[[Call], Inflated]


def refuse(layer: Any, rule: str) -> UsageError:
    """The error for a layer or operation that cannot be inflated."""
    kind = type(layer).__name__
    what = "layer" if isinstance(layer, keras.Layer) else "operation"
    return UsageError(f'{what} "{layer.name}" ({kind}) cannot be inflated: {rule}')


def shifted_axes(axes: Any, rank: int) -> Any:
    """Where an axis of a picture's tensor (or several, or None) is in the clip's.

    A single last axis stays -1.
    """
    if axes is None:
        return None
    if not isinstance(axes, int):
        return [axis % rank + (axis % rank > 0) for axis in axes]
    return -1 if axes % rank == rank - 1 else axes % rank + (axes % rank > 0)


def per_frame(call: Call) -> Inflated:
    """The 2D layer itself, on each frame."""
    if len(call.inputs) != 1:
        raise refuse(call.layer, "it takes several tensors, and frame by frame works with one.")
    inner = type(call.layer).from_config(call.config())
    return Inflated([PerFrame(inner, name=call.name, dtype=call.layer.dtype_policy)])


def _same(call: Call) -> Inflated:
    return _made(type(call.layer), call.config())


def _made(kind: type[keras.Layer], config: Config) -> Inflated:
    return Inflated([kind.from_config(config)])


def _rank(call: Call) -> int:
    """Of the 2D layer's input."""
    return len(call.inputs[0].shape) - 1


def _axis(call: Call) -> Inflated:
    axis = shifted_axes(call.layer.get_config()["axis"], _rank(call))
    return _made(type(call.layer), call.config(axis=axis))


def _batch_norm(call: Call) -> Inflated:
    config = call.config()
    if shifted_axes(config.pop("axis"), _rank(call)) not in (-1, [_rank(call)]):
        raise refuse(call.layer, "it normalizes another axis than the last, the channels.")
    if config.get("renorm"):
        raise refuse(call.layer, "batch renormalization has no form for clips.")
    options = ("synchronized", "renorm", "renorm_clipping", "renorm_momentum")
    return _made(BatchNorm, {key: value for key, value in config.items() if key not in options})


def _check_channels(call: Call) -> None:
    if getattr(call.layer, "data_format", "channels_last") == "channels_first":
        raise refuse(call.layer, 'data_format="channels_first" is not supported.')


def _sizes(call: Call) -> Config:
    """Kernel, strides and padding of the 3D convolution."""
    _check_channels(call)
    return {
        "kernel_size": (call.kernel_t, *call.layer.kernel_size),
        "strides": (call.stride_t, *call.layer.strides),
        "padding": call.layer.padding,
    }


def _padded(call: Call) -> tuple[list[keras.Layer], Config]:
    """Layers that pad, where the convolution cannot itself, and its sizes behind them."""
    layer, kernel_t = call.layer, call.kernel_t
    same = layer.padding == "same"
    if kernel_t == 1 or (same and call.stride_t == 1 and not call.edge):
        return [], _sizes(call)
    kernel, dilation = layer.kernel_size, layer.dilation_rate
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    padding = FramePadding(
        ((kernel_t - 1) // 2, kernel_t // 2),
        "edge" if call.edge else "zero",
        (extent, layer.strides) if same else None,
        name=f"{call.name}_pad_t",
        dtype=layer.dtype_policy,
    )
    return [padding], {**_sizes(call), "padding": "valid"}


def inflate_kernel(kernel: np.ndarray, kernel_t: int, centre: bool) -> np.ndarray:
    """(kH, kW, …) -> (kT, kH, kW, …): copies divided by kT, or zeros around one copy."""
    if not centre:
        return np.repeat(kernel[None] / kernel_t, kernel_t, axis=0)
    inflated = np.zeros((kernel_t, *kernel.shape), kernel.dtype)
    inflated[(kernel_t - 1) // 2] = kernel
    return inflated


def _held_at_ends(call: Call) -> bool:
    return call.edge and call.kernel_t > 1 and call.stride_t == 1


def _conv(call: Call) -> Inflated:
    layer, channels = call.layer, call.inputs[0].shape[-1]
    if layer.groups == channels > 1:
        return _depthwise_from_groups(call)
    dilation = (1, *layer.dilation_rate)
    if _held_at_ends(call) and layer.padding == "same" and layer.groups == 1:
        edge = EdgeConv3D.from_config(call.config(**_sizes(call), dilation_rate=dilation))
        return Inflated([edge], _first_inflated(call, 0))
    pads, sizes = _padded(call)
    kind = layers.Conv3D if layer.groups == 1 else GroupedConv3D
    config = call.config(**sizes, dilation_rate=dilation)
    return Inflated([*pads, kind.from_config(config)], _first_inflated(call, len(pads)))


def _first_inflated(
    call: Call, padding_layers: int, view: Callable[[np.ndarray], np.ndarray] | None = None
) -> Callable[[Weights], Sequence[Weights]]:
    """Of weights [kernel, bias] the first is inflated; padding layers before have none."""

    def weights(old: Weights) -> Sequence[Weights]:
        kernel = old[0] if view is None else view(old[0])
        new = [inflate_kernel(kernel, call.kernel_t, call.centre), *old[1:]]
        return [*([] for _ in range(padding_layers)), new]

    return weights


_DEPTHWISE_OPTIONS = (
    "name", "trainable", "dtype", "activation", "use_bias", "bias_initializer",
)  # fmt: skip


def _depthwise_3d(call: Call, multiplier: int, **options: Any) -> Inflated | None:
    """Padding and a depthwise 3D convolution; None where only the 2D form exists."""
    layer = call.layer
    if max(layer.dilation_rate) > 1 or len(set(layer.strides)) > 1:
        if max(call.kernel_t, call.stride_t) > 1:
            raise refuse(
                layer,
                "depthwise convolutions over time take neither dilation nor unequal strides; a "
                "mapping kernel_t that leaves this layer out keeps it as it is.",
            )
        return None
    options["depth_multiplier"] = multiplier
    if _held_at_ends(call):
        return Inflated([EdgeDepthwiseConv3D(**_sizes(call), **options)])
    pads, sizes = _padded(call)
    return Inflated([*pads, DepthwiseConv3D(**sizes, **options)])


def _depthwise(call: Call) -> Inflated:
    config = call.config()
    options = {key: config[key] for key in _DEPTHWISE_OPTIONS}
    options |= {key: config[key] for key in ("depthwise_initializer", "depthwise_regularizer")}
    found = _depthwise_3d(call, call.layer.depth_multiplier, **options)
    if found is None:
        return per_frame(call)
    return Inflated(found.layers, _first_inflated(call, len(found.layers) - 1))


def _depthwise_from_groups(call: Call) -> Inflated:
    """A convolution with a group for each channel, as in ConvNeXt, is a depthwise one."""
    config, channels = call.config(), call.layer.groups
    options = {key: config[key] for key in _DEPTHWISE_OPTIONS}
    options["depthwise_initializer"] = config["kernel_initializer"]
    options["depthwise_regularizer"] = config["kernel_regularizer"]
    multiplier = call.layer.filters // channels
    found = _depthwise_3d(call, multiplier, **options)
    if found is None:
        return per_frame(call)

    def view(kernel: np.ndarray) -> np.ndarray:  # (kH, kW, 1, C*m) -> (kH, kW, C, m)
        return kernel.reshape(*kernel.shape[:2], channels, multiplier)

    return Inflated(found.layers, _first_inflated(call, len(found.layers) - 1, view))


def _separable(call: Call) -> Inflated:
    """Depthwise (`NAME_depthwise`) and pointwise (`NAME`) convolution become two layers."""
    config = call.config()
    depthwise = _depthwise_3d(
        call,
        call.layer.depth_multiplier,
        name=f"{call.name}_depthwise",
        trainable=config["trainable"],
        dtype=config["dtype"],
        use_bias=False,
        depthwise_initializer=config["depthwise_initializer"],
        depthwise_regularizer=config["depthwise_regularizer"],
    )
    if depthwise is None:
        return per_frame(call)
    shared = ("name", "trainable", "dtype", "filters", "activation", "use_bias", "bias_initializer",
              "bias_regularizer", "bias_constraint", "activity_regularizer")  # fmt: skip
    pointwise = {key: config[key] for key in shared}
    for role in ("initializer", "regularizer", "constraint"):
        pointwise[f"kernel_{role}"] = config[f"pointwise_{role}"]
    inflate_first = _first_inflated(call, len(depthwise.layers) - 1)

    def weights(old: Weights) -> Sequence[Weights]:  # [depthwise, pointwise, bias]
        return [*inflate_first(old[:1]), [old[1][None], *old[2:]]]

    return Inflated(
        [*depthwise.layers, layers.Conv3D.from_config({**pointwise, "kernel_size": 1})], weights
    )


_POOLS = {
    layers.MaxPooling2D: layers.MaxPooling3D,
    layers.AveragePooling2D: layers.AveragePooling3D,
}


def _pool(call: Call) -> Inflated:
    """Over pictures; over time only where a stride in time is asked for, and then as far as it."""
    _check_channels(call)
    sizes = {
        "pool_size": (call.stride_t, *call.layer.pool_size),
        "strides": (call.stride_t, *call.layer.strides),
    }
    return _made(_POOLS[type(call.layer)], call.config(**sizes))


_GLOBAL_POOLS = {
    layers.GlobalAveragePooling2D: (layers.GlobalAveragePooling3D, "mean"),
    layers.GlobalMaxPooling2D: (layers.GlobalMaxPooling3D, "max"),
}


def _global_pool(call: Call) -> Inflated:
    """Per frame where its result goes back to the frames, else over time as well."""
    _check_channels(call)
    if not call.to_clip:
        return per_frame(call)
    kind, mode = _GLOBAL_POOLS[type(call.layer)]
    if not call.layer.keepdims:
        return _made(kind, call.config())
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
    return _made(layers.Reshape, call.config(target_shape=(call.frames, *call.layer.target_shape)))


def _permute(call: Call) -> Inflated:
    dims = (1, *(axis + 1 for axis in call.layer.dims))
    return _made(layers.Permute, call.config(dims=dims))


def _around(value: Any) -> Callable[[Call], Inflated]:
    """Zero padding and cropping: nothing in time."""

    def rule(call: Call) -> Inflated:
        _check_channels(call)
        key = "padding" if value is layers.ZeroPadding3D else "cropping"
        return _made(value, call.config(**{key: ((0, 0), *call.layer.get_config()[key])}))

    return rule


def _upsampling(call: Call) -> Inflated:
    _check_channels(call)
    config = call.config()
    if config.pop("interpolation") != "nearest":
        return per_frame(call)
    return _made(layers.UpSampling3D, {**config, "size": (1, *call.layer.size)})


def _dropout(call: Call) -> Inflated:
    """What is dropped in one frame is dropped in all where the noise has a given shape."""
    shape = call.layer.get_config()["noise_shape"]
    if shape is None:
        return _same(call)
    return _made(type(call.layer), call.config(noise_shape=(shape[0], 1, *shape[1:])))


def _spatial_dropout(call: Call) -> Inflated:
    _check_channels(call)
    return _made(layers.SpatialDropout3D, call.config())


def _prelu(call: Call) -> Inflated:
    """All frames share one slope."""
    shared = [1, *(axis + 1 for axis in call.layer.shared_axes or ())]
    new = layers.PReLU.from_config(call.config(shared_axes=shared))
    return Inflated([new], lambda old: [[weight[None] for weight in old]])


CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
STRIDED = (*CONVOLUTIONS, *_POOLS)

# Layers that treat every position alike, or the last axis only.
_POSITIONWISE = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Dense,
    layers.Rescaling, layers.GaussianNoise, layers.GaussianDropout,
    PixelNormalization, DropPath,
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
    **dict.fromkeys(_POSITIONWISE, _same),
    **dict.fromkeys(MERGES, _same),
    layers.Concatenate: _axis,
    **dict.fromkeys(_FRAME_BY_FRAME, per_frame),
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_GLOBAL_POOLS, _global_pool),
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.BatchNormalization: _batch_norm,
    BatchNorm: _batch_norm,
    layers.LayerNormalization: _axis,
    layers.Normalization: _axis,
    layers.Softmax: _axis,
    layers.UnitNormalization: _axis,
    layers.Dropout: _dropout,
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
    raise refuse(
        layer,
        f'there is no rule for its class. per_frame=["{layer.name}"] runs it on each frame by '
        "itself; otherwise build it of other layers.",
    )


def squeezes(operation: Any) -> bool:
    """Whether an operation on a map leaves no height and width."""
    if isinstance(operation, layers.Reshape):
        return len(operation.target_shape) == 1
    return type(operation) in (*_GLOBAL_POOLS, layers.Flatten)
