"""What X3D and CSN share: bottlenecks with a depthwise 3×3×3 convolution, and the ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.layers import (
    Conv3D,
    DepthwiseConv3D,
    Dropout,
    PixelNormalization,
    ZeroPadding3D,
    batch_norm,
    conv_unit,
)
from kvideo.weights.families import Family
from kvideo.weights.loading import load_checkpoint

MEAN, STD = 0.45 * 255, 0.225 * 255  # PyTorchVideo's


def clip_input(input_shape: Sequence[int]) -> tuple[Any, Any]:
    """The input and the normalized clip.

    Raises:
        UsageError: the clip is no RGB clip.
    """
    shape = tuple(input_shape)
    if len(shape) != 4 or shape[-1] != 3 or min(shape[:3]) < 1:
        raise UsageError(f"input_shape must be (T, H, W, 3), not {shape}.")
    inputs = keras.Input(shape, name="clip", dtype="float32")
    return inputs, PixelNormalization(MEAN, STD, name="normalization")(inputs)


def bottleneck(
    x: Any,
    inner: int,
    filters: int,
    *,
    name: str,
    strides: tuple[int, int, int] = (1, 1, 1),
    squeeze: int = 0,
    activation: str = "relu",
    first: bool = False,
) -> Any:
    """1×1×1, depthwise 3×3×3 with the stride, 1×1×1; a shortcut around it.

    Args:
        x: (B, T, H, W, C).
        inner: channels of the depthwise convolution.
        filters: output channels.
        name: of the block, the beginning of its layers' names.
        strides: (T, H, W).
        squeeze: channels of squeeze-and-excitation (Hu et al. 2018) behind the depthwise
            convolution's batch norm; 0: none.
        activation: behind that.
        first: whether it is its stage's first block, whose shortcut is a convolution.
    """
    y = conv_unit(x, inner, 1, name=f"{name}_a")
    y = ZeroPadding3D((1, 1, 1), name=f"{name}_b_pad")(y)
    y = DepthwiseConv3D(3, strides, "valid", use_bias=False, name=f"{name}_b")(y)
    y = batch_norm(f"{name}_b_bn")(y)
    if squeeze:
        s = keras.layers.GlobalAveragePooling3D(keepdims=True, name=f"{name}_se_mean")(y)
        s = Conv3D(squeeze, 1, activation="relu", name=f"{name}_se_reduce")(s)
        s = Conv3D(inner, 1, activation="sigmoid", name=f"{name}_se_expand")(s)
        y = keras.layers.Multiply(name=f"{name}_se")([y, s])
    y = keras.layers.Activation(activation, name=f"{name}_b_{activation}")(y)
    y = conv_unit(y, filters, 1, name=f"{name}_c", activation=None, zero_scale=True)
    if first:
        same = x.shape[-1] == filters  # as PyTorchVideo has it: then without batch norm
        x = Conv3D(filters, 1, strides=strides, use_bias=False, name=f"{name}_shortcut")(x)
        x = x if same else batch_norm(f"{name}_shortcut_bn")(x)
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def classifier(
    inputs: Any,
    features: Any,
    num_classes: int,
    classifier_activation: Any,
    dropout: float,
    name: str,
    weights: str | os.PathLike[str] | None,
    family: Family,
) -> keras.Model:
    """The model from its input to its probabilities, with the weights of a file.

    Args:
        inputs: the clip.
        features: (B, C), the layer `features`.
        num_classes: classes.
        classifier_activation: of the last layer.
        dropout: before it.
        name: the model's.
        weights: PyTorchVideo's checkpoint, a `.keras` or a `.weights.h5` file; or None.
        family: names the checkpoint's tensors.

    Raises:
        ModelFileError: the file does not fit.
    """
    x = Dropout(dropout, name="dropout")(features)
    x = keras.layers.Dense(num_classes, name="logits", dtype="float32")(x)
    x = keras.layers.Activation(classifier_activation, name="predictions", dtype="float32")(x)
    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        if os.fspath(weights).endswith((".keras", ".weights.h5")):
            model.load_weights(weights)
        else:
            load_checkpoint(model, weights, family).announce()
    return model
