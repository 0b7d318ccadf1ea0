"""The convolution unit that models are made of: convolution, batch norm, activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from kvideo.layers.conv3d import Conv3D, ZeroPadding3D
from kvideo.layers.normalization import BatchNorm, ReLU

Sizes = int | tuple[int, ...]

_CONVOLUTIONS = {4: keras.layers.Conv2D, 5: Conv3D}


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


def batch_norm(name: str, norm: Norm = NORM, *, zero_scale: bool = False) -> keras.Layer:
    """The batch norm of every model here; its statistics are those of all devices together.

    Args:
        name: the layer's name.
        norm: momentum and epsilon.
        zero_scale: begins with a scale of 0: put last in a residual branch, it makes the block
            begin as the identity (Goyal et al. 2017, section 5.1).
    """
    return BatchNorm(
        momentum=norm.momentum,
        epsilon=norm.epsilon,
        gamma_initializer="zeros" if zero_scale else "ones",
        name=name,
    )


def conv_unit(
    inputs: Any,
    filters: int,
    kernel_size: Sizes,
    *,
    name: str,
    strides: Sizes = 1,
    padding: str = "same",
    dilation: Sizes = 1,
    norm: Norm | None = NORM,
    zero_scale: bool = False,
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
        padding: `"same"` (as TensorFlow), `"valid"`, or `"half"`: kernel // 2 zeros on both
            sides, as PyTorch's models have it. These differ from "same" where the stride is 2 and
            the size even; a layer `name_pad` makes them then.
        dilation: steps from one element of the kernel to the next, as `kernel_size`; only with
            strides of 1.
        norm: the batch norm that follows, or None.
        zero_scale: whether its scale begins at 0; see `batch_norm`.
        activation: a Keras activation's name, or None.

    Returns:
        A Keras tensor of the same rank with `filters` channels.
    """
    x, padding = _pad(inputs, kernel_size, strides, padding, name)
    convolution = _CONVOLUTIONS[len(inputs.shape)](
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=norm is None,
        kernel_initializer="he_normal",
        name=name,
    )
    return _norm_and_activation(convolution(x), name, norm, activation, zero_scale)


def max_pool(
    inputs: Any, pool_size: Sizes, *, strides: Sizes, name: str, padding: str = "half"
) -> Any:
    """3D max-pool whose `"half"` padding is that of `conv_unit`.

    Zeros pad it, so its input must not be negative (it follows a ReLU).

    Args:
        inputs: Keras tensor (B, T, H, W, C).
        pool_size: one size for all axes, or (T, H, W).
        strides: likewise.
        name: the layer's name.
        padding: `"same"`, `"valid"` or `"half"`.
    """
    x, padding = _pad(inputs, pool_size, strides, padding, name)
    return keras.layers.MaxPooling3D(pool_size, strides, padding=padding, name=name)(x)


def _pad(x: Any, kernel: Sizes, strides: Sizes, padding: str, name: str) -> tuple[Any, str]:
    """The padded tensor, and the padding that is left to the layer itself."""
    if padding != "half":
        return x, padding
    rank = len(x.shape) - 2
    kernels = (kernel,) * rank if isinstance(kernel, int) else tuple(kernel)
    steps = (strides,) * rank if isinstance(strides, int) else tuple(strides)
    if all(
        size % 2 and (step == 1 or size == 1) for size, step in zip(kernels, steps, strict=True)
    ):
        return x, "same"  # the same zeros, and no copy
    layer = ZeroPadding3D if rank == 3 else keras.layers.ZeroPadding2D
    return layer(tuple(size // 2 for size in kernels), name=f"{name}_pad")(x), "valid"


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


def _norm_and_activation(
    x: Any, name: str, norm: Norm | None, activation: str | None, zero_scale: bool = False
) -> Any:
    if norm is not None:
        x = batch_norm(f"{name}_bn", norm, zero_scale=zero_scale)(x)
    if activation is not None:
        name = f"{name}_{activation}"
        relu = activation == "relu"
        x = ReLU(name=name)(x) if relu else keras.layers.Activation(activation, name=name)(x)
    return x
