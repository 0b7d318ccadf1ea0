"""The convolution unit that models are made of: convolution, batch norm, activation."""

from __future__ import annotations

from typing import Any

import keras

_CONVOLUTIONS = {4: keras.layers.Conv2D, 5: keras.layers.Conv3D}


def batch_norm(name: str, *, momentum: float = 0.9, epsilon: float = 1e-5) -> keras.Layer:
    """The batch norm of every model here; its statistics are those of all devices together.

    Args:
        name: the layer's name.
        momentum: weight of the past in the moving averages. PyTorch's momentum is 1 minus this.
        epsilon: added to the variance.
    """
    return keras.layers.BatchNormalization(
        momentum=momentum, epsilon=epsilon, synchronized=True, name=name
    )


def conv_unit(
    inputs: Any,
    filters: int,
    kernel_size: int | tuple[int, ...],
    *,
    name: str,
    strides: int | tuple[int, ...] = 1,
    padding: str = "same",
    use_batch_norm: bool = True,
    activation: str | None = "relu",
) -> Any:
    """Convolution, batch norm, activation, as layers `name`, `name_bn` and `name_<activation>`.

    The convolution has a bias only where no batch norm follows.

    Args:
        inputs: a Keras tensor, (B, H, W, C) for a 2D or (B, T, H, W, C) for a 3D convolution.
        filters: output channels.
        kernel_size: one size for all axes, or (H, W) or (T, H, W).
        name: the convolution's name, and the beginning of the others'.
        strides: likewise.
        padding: `"same"` or `"valid"`.
        use_batch_norm: whether a batch norm follows the convolution.
        activation: a Keras activation's name, or None.

    Returns:
        A Keras tensor of the same rank with `filters` channels.
    """
    convolution = _CONVOLUTIONS[len(inputs.shape)](
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=not use_batch_norm,
        kernel_initializer="he_normal",
        name=name,
    )
    x = convolution(inputs)
    if use_batch_norm:
        x = batch_norm(f"{name}_bn")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
    return x
