"""Rules of `kvideo.inflate` for convolutions: their kernels get a time axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from kvideo.inflation.rule import (
    Call,
    Config,
    Inflated,
    Rule,
    Weights,
    check_channels,
    per_frame,
    refuse,
)
from kvideo.layers.depthwise import DepthwiseConv3D
from kvideo.layers.inflation import (
    EdgeConv3D,
    EdgeDepthwiseConv3D,
    FramePadding,
    GroupedConv3D,
)


def _sizes(call: Call) -> Config:
    """Kernel, strides and padding of the 3D convolution."""
    check_channels(call)
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


CONVOLUTIONS: dict[type[keras.Layer], Rule] = {
    layers.Conv2D: _conv,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
}
