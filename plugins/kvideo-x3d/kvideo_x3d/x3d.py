"""X3D: a small 2D network, expanded along time, width and depth (Feichtenhofer 2020)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras

from kvideo import ClipSpec, Views
from kvideo.layers import Conv3D, DepthwiseConv3D, ReLU, ZeroPadding3D, batch_norm, conv_unit
from kvideo_x3d.blocks import bottleneck, classifier, clip_input
from kvideo_x3d.names import X3D

_STEM, _WIDTHS, _HEAD = 24, (24, 48, 96, 192), 2048
_EXPANSION = 2.25  # of a block's inner channels
_SQUEEZE = 0.0625  # of these, for squeeze-and-excitation
DEPTHS, DEEP = (3, 5, 11, 7), (5, 10, 25, 15)


def x3d(
    num_classes: int,
    *,
    depths: Sequence[int] = DEPTHS,
    input_shape: Sequence[int] = (16, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | os.PathLike[str] | None = None,
    dropout: float = 0.5,
    name: str = "x3d",
) -> keras.Model:
    """X3D with PyTorchVideo's padding and names.

    Args:
        num_classes: classes.
        depths: blocks of the four stages.
        input_shape: (T, H, W, 3).
        classifier_activation: "softmax"; "sigmoid" for several labels a video; None for logits.
        weights: None, PyTorchVideo's checkpoint, or a file of a like model.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: the shape is none of RGB clips.
        ModelFileError: the file of `weights` does not fit.

    References:
        Feichtenhofer 2020, "X3D: Expanding Architectures for Efficient Video Recognition".
    """
    inputs, x = clip_input(input_shape)
    x = ZeroPadding3D((0, 1, 1), name="stem_xy_pad")(x)
    x = Conv3D(_STEM, (1, 3, 3), strides=(1, 2, 2), use_bias=False, name="stem_xy")(x)
    x = ZeroPadding3D((2, 0, 0), name="stem_t_pad")(x)
    x = DepthwiseConv3D((5, 1, 1), padding="valid", use_bias=False, name="stem_t")(x)
    x = ReLU(name="stem_relu")(batch_norm("stem_t_bn")(x))
    for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True), 2):
        inner = int(_EXPANSION * width)
        for block in range(depth):
            x = bottleneck(
                x,
                inner,
                width,
                name=f"res{stage}_{block}",
                strides=(1, 1, 1) if block else (1, 2, 2),
                squeeze=0 if block % 2 else _rounded(_SQUEEZE * inner),
                activation="silu",
                first=not block,
            )
    x = conv_unit(x, int(_EXPANSION * _WIDTHS[-1]), 1, name="head_conv")
    x = keras.layers.Identity(name="feature_map")(x)  # (B, T, H', W', 432)
    x = keras.layers.GlobalAveragePooling3D(name="head_mean")(x)
    x = keras.layers.Dense(_HEAD, activation="relu", use_bias=False, name="head_dense")(x)
    x = keras.layers.Identity(name="features")(x)  # (B, 2048)
    return classifier(inputs, x, num_classes, classifier_activation, dropout, name, weights, X3D)


def x3d_xs(num_classes: int, **options: Any) -> keras.Model:
    """X3D-XS: 4 frames, 2.5 a second; see `x3d`."""
    return x3d(num_classes, **{"input_shape": (4, 160, 160, 3), "name": "x3d_xs", **options})


def x3d_s(num_classes: int, **options: Any) -> keras.Model:
    """X3D-S: 13 frames, 5 a second; see `x3d`."""
    return x3d(num_classes, **{"input_shape": (13, 160, 160, 3), "name": "x3d_s", **options})


def x3d_m(num_classes: int, **options: Any) -> keras.Model:
    """X3D-M: 16 frames, 6 a second; see `x3d`."""
    return x3d(num_classes, **{"input_shape": (16, 224, 224, 3), "name": "x3d_m", **options})


def x3d_l(num_classes: int, **options: Any) -> keras.Model:
    """X3D-L: more blocks, larger pictures; see `x3d`."""
    shape = (16, 312, 312, 3)
    return x3d(num_classes, **{"depths": DEEP, "input_shape": shape, "name": "x3d_l", **options})


def _rounded(width: float, divisor: int = 8) -> int:
    """To a multiple of 8, at least 8, and no less than 0.9 of it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


for _builder, _frames, _rate, _side, _short in (
    (x3d_xs, 4, 2.5, 160, 182),
    (x3d_s, 13, 5.0, 160, 182),
    (x3d_m, 16, 6.0, 224, 256),
    (x3d_l, 16, 6.0, 312, 356),
):
    _builder.clip_spec = ClipSpec(  # type: ignore[attr-defined]
        num_frames=_frames, frame_rate=_rate, size=(_side, _side), short_side=_short
    )
    _builder.views = Views(num_clips=10, num_crops=3)  # type: ignore[attr-defined]
    _builder.family = X3D  # type: ignore[attr-defined]  # for `kvideo convert`
