"""The 18-layer video ResNets of Tran et al. 2018: R3D, MC3 and R(2+1)D, as torchvision has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.layers.conv import conv_unit
from kvideo.models.classifier import (
    check_count,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
    pooled_features,
)
from kvideo.weights.torchvision import VIDEO_RESNET

PIXELS: dict[str, Any] = {
    "mean": (0.43216 * 255, 0.394666 * 255, 0.37645 * 255),
    "std": (0.22803 * 255, 0.22145 * 255, 0.216989 * 255),
}
_CLIP = ClipSpec(16, 15.0, (112, 112), short_side=128)
_VIEWS = Views(num_clips=5)

R3D, MC3, R2PLUS1D = ("3d",) * 4, ("3d", "2d", "2d", "2d"), ("2+1d",) * 4
"""The kind of convolution in each of the four stages."""

_STEM_MIDDLE = 45


@made_for(_CLIP, _VIEWS, family=VIDEO_RESNET)
def r3d_18(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (16, 112, 112, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    stem_filters: int = 64,
    zero_scale: bool = False,
    dropout: float = 0.0,
    name: str = "r3d_18",
) -> keras.Model:
    """R3D: ResNet-18 with every 3×3 convolution made 3×3×3 (Tran et al. 2018, section 3.2).

    33,371,472 parameters at 400 classes.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 3×7×7, stride 1,2,2 | 16×56×56×64 |
    | layer1 | [3×3×3, 3×3×3] × 2 | 16×56×56×64 |
    | layer2 | [3×3×3, 3×3×3] × 2 | 8×28×28×128 |
    | layer3 | [3×3×3, 3×3×3] × 2 | 4×14×14×256 |
    | layer4 | [3×3×3, 3×3×3] × 2 | 2×7×7×512 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights, or a file: of a like model, or a
            checkpoint of torchvision.
        stem_filters: channels of the first convolution; all others are multiples of it.
        zero_scale: whether residual branches begin at zero (Goyal et al. 2017).
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _video_resnet(
        num_classes,
        R3D,
        input_shape=input_shape,
        classifier_activation=classifier_activation,
        weights=weights,
        stem_filters=stem_filters,
        zero_scale=zero_scale,
        dropout=dropout,
        name=name,
    )


@made_for(_CLIP, _VIEWS, family=VIDEO_RESNET)
def mc3_18(num_classes: int, **options: Any) -> keras.Model:
    """MC3: 3D convolutions at the bottom, 2D ones above (Tran et al. 2018, section 3.3).

    11,695,440 parameters at 400 classes.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 3×7×7, stride 1,2,2 | 16×56×56×64 |
    | layer1 | [3×3×3, 3×3×3] × 2 | 16×56×56×64 |
    | layer2 | [1×3×3, 1×3×3] × 2 | 16×28×28×128 |
    | layer3 | [1×3×3, 1×3×3] × 2 | 16×14×14×256 |
    | layer4 | [1×3×3, 1×3×3] × 2 | 16×7×7×512 |

    Args:
        num_classes: classes.
        **options: as for `r3d_18`.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _video_resnet(num_classes, MC3, **{"name": "mc3_18", **options})


@made_for(_CLIP, _VIEWS, family=VIDEO_RESNET)
def r2plus1d_18(num_classes: int, **options: Any) -> keras.Model:
    """R(2+1)D: 1×3×3 then 3×1×1 for every 3×3×3, as many parameters (Tran et al. 2018, 3.5).

    31,505,325 parameters at 400 classes. The widths between the two are such that a block has
    about as many parameters as R3D's.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 1×7×7 to 45, 3×1×1, stride 1,2,2 | 16×56×56×64 |
    | layer1 | [1×3×3, 3×1×1, 1×3×3, 3×1×1] × 2 | 16×56×56×64 |
    | layer2 | [1×3×3, 3×1×1, 1×3×3, 3×1×1] × 2 | 8×28×28×128 |
    | layer3 | [1×3×3, 3×1×1, 1×3×3, 3×1×1] × 2 | 4×14×14×256 |
    | layer4 | [1×3×3, 3×1×1, 1×3×3, 3×1×1] × 2 | 2×7×7×512 |

    Args:
        num_classes: classes.
        **options: as for `r3d_18`; `stem_middle` is the stem's width between its two
            convolutions, 45.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _video_resnet(num_classes, R2PLUS1D, **{"name": "r2plus1d_18", **options})


def _video_resnet(
    num_classes: int,
    kinds: Sequence[str],
    *,
    name: str,
    input_shape: Sequence[int] = (16, 112, 112, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    stem_filters: int = 64,
    stem_middle: int = _STEM_MIDDLE,
    zero_scale: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Two basic blocks in each of four stages, whose convolutions are of the given kinds."""
    _, weights_file = check_weights(weights, family=VIDEO_RESNET)
    filters = check_count("stem_filters", stem_filters)
    inputs, x = clip_input(check_input_shape(input_shape), **PIXELS)
    if kinds[0] == "2+1d":
        middle = check_count("stem_middle", stem_middle)
        x = conv_unit(x, middle, (1, 7, 7), strides=(1, 2, 2), name="stem_xy", padding="half")
        x = conv_unit(x, filters, (3, 1, 1), name="stem_t", padding="half")
    else:
        x = conv_unit(x, filters, (3, 7, 7), strides=(1, 2, 2), name="stem", padding="half")
    for number, kind in enumerate(kinds, start=1):
        width = filters * 2 ** (number - 1)
        for block in range(2):
            stride = 2 if number > 1 and block == 0 else 1
            x = _basic_block(x, width, kind, stride, zero_scale, f"layer{number}_{block}")
    x = keras.layers.Identity(name="feature_map")(x)
    x = pooled_features(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=VIDEO_RESNET)


def _basic_block(x: Any, width: int, kind: str, stride: int, zero_scale: bool, name: str) -> Any:
    """Two convolutions plus the shortcut; then ReLU."""
    strides = (1 if kind == "2d" else stride, stride, stride)
    shortcut = x
    if strides != (1, 1, 1):
        shortcut = conv_unit(
            x,
            width,
            1,
            strides=strides,
            name=f"{name}_downsample",
            padding="half",
            activation=None,
        )
    # One width for both convolutions of a block, from the block's own input.
    middle = 27 * x.shape[-1] * width // (9 * x.shape[-1] + 3 * width)
    y = _convolution(x, width, kind, strides, middle, f"{name}_conv1")
    y = _convolution(y, width, kind, (1, 1, 1), middle, f"{name}_conv2", zero_scale, None)
    y = keras.layers.Add(name=f"{name}_add")([shortcut, y])
    return keras.layers.Activation("relu", name=f"{name}_relu")(y)


def _convolution(
    x: Any,
    width: int,
    kind: str,
    strides: tuple[int, int, int],
    middle: int,
    name: str,
    zero_scale: bool = False,
    activation: str | None = "relu",
) -> Any:
    """One convolution of a block: 3×3×3, 1×3×3, or 1×3×3 to `middle` channels and 3×1×1."""
    if kind == "2+1d":
        over_space, strides = (1, *strides[1:]), (strides[0], 1, 1)
        x = conv_unit(x, middle, (1, 3, 3), strides=over_space, name=f"{name}_xy", padding="half")
        name = f"{name}_t"
    kernel = {"3d": (3, 3, 3), "2d": (1, 3, 3), "2+1d": (3, 1, 1)}[kind]
    return conv_unit(
        x,
        width,
        kernel,
        strides=strides,
        name=name,
        padding="half",
        zero_scale=zero_scale,
        activation=activation,
    )
