"""The convolution unit that models are made of: convolution, batch norm, activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from kvideo.layers.normalization import BatchNorm

_CONVOLUTIONS = {4: keras.layers.Conv2D, 5: keras.layers.Conv3D}


@dataclass(frozen=True)
class Norm:
    """The numbers of a batch norm.

    Args:
        momentum: weight of the past in the moving averages. PyTorch's momentum is 1 minus this.
        epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5


NORM = Norm()


def batch_norm(name: str, norm: Norm = NORM) -> keras.Layer:
    """The batch norm of every model here; its statistics are those of all devices together."""
    return BatchNorm(momentum=norm.momentum, epsilon=norm.epsilon, name=name)


def conv_unit(
    inputs: Any,
    filters: int,
    kernel_size: int | tuple[int, ...],
    *,
    name: str,
    strides: int | tuple[int, ...] = 1,
    padding: str = "same",
    norm: Norm | None = NORM,
    activation: str | None = "relu",
) -> Any:
    """Convolution, batch norm, activation, as layers `name`, `name_bn` and `name_<activation>`.

    The convolution has a bias only where no batch norm follows.

    Args:
        inputs: a Keras tensor, (B, H, W, C) for a 2D or (B, T, H, W, C) for a 3D convolution.
        filters: output channels.
        kernel_size: one size for all axes, or (H, W) or (T, H, W).
        name: the convolution's name, and the beginning of the others'.
        strides: as `kernel_size`.
        padding: `"same"` or `"valid"`.
        norm: the batch norm that follows, or None.
        activation: a Keras activation's name, or None.

    Returns:
        A Keras tensor of the same rank with `filters` channels.
    """
    convolution = _CONVOLUTIONS[len(inputs.shape)](
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=norm is None,
        kernel_initializer="he_normal",
        name=name,
    )
    return _norm_and_activation(convolution(inputs), name, norm, activation)


def depthwise_unit_2d(
    inputs: Any,
    kernel_size: int,
    *,
    name: str,
    strides: int = 1,
    padding: str = "same",
    norm: Norm | None = NORM,
    activation: str | None = "relu",
) -> Any:
    """As `conv_unit`, with a convolution of each channel by itself; (B, H, W, C) only."""
    convolution = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=norm is None,
        depthwise_initializer="he_normal",
        name=name,
    )
    return _norm_and_activation(convolution(inputs), name, norm, activation)


def _norm_and_activation(x: Any, name: str, norm: Norm | None, activation: str | None) -> Any:
    if norm is not None:
        x = batch_norm(f"{name}_bn", norm)(x)
    if activation is not None:
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
    return x
