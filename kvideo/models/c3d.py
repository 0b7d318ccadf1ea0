"""C3D, the first 3D network whose features were widely used (Tran et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import check_choice
from kvideo.layers.conv import conv_unit
from kvideo.layers.dropout import Dropout
from kvideo.layers.mean_cube import MeanCubeSubtraction
from kvideo.models.classifier import (
    check_dropout,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
)
from kvideo.weights.c3d import C3D
from kvideo.weights.mean_cube import load_mean_cube


@dataclass(frozen=True)
class Stage:
    """3×3×3 convolutions of the given names and width, then a max-pool with stride = size."""

    convolutions: tuple[str, ...]
    filters: int
    pool: tuple[int, int, int] = (2, 2, 2)


STAGES = (
    Stage(("conv1a",), 64, pool=(1, 2, 2)),
    Stage(("conv2a",), 128),
    Stage(("conv3a", "conv3b"), 256),
    Stage(("conv4a", "conv4b"), 512),
    Stage(("conv5a", "conv5b"), 512),
)
FC_UNITS = 4096

_MEAN_CUBE = "mean_cube"
# How pixels are normalized; all but the first as the publishers of weights do. Sports-1M's mean is
# that of the published mean cube's middle, over which it varies by about 10.
PREPROCESSING: dict[str, dict[str, Any]] = {
    "scaled": {},
    "mmaction2": {"mean": (104.0, 117.0, 128.0), "std": 1.0},
    "sports1m": {"mean": (95.13, 102.86, 107.75), "std": 1.0, "channel_order": "bgr"},
    _MEAN_CUBE: {},  # a layer of its own
}
POOL5_PADDING = ("after", "both")


@made_for(ClipSpec(16, 25.0, (112, 112), short_side=128), Views(num_clips=10), family=C3D)
def c3d(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (16, 112, 112, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    dropout: float = 0.5,
    preprocessing: str = "scaled",
    mean_cube: str | None = None,
    pool5_padding: str = "after",
    name: str = "c3d",
) -> keras.Model:
    """C3D: eight 3×3×3 convolutions, five pools, two layers of 4096 (Tran et al. 2015, section 3).

    Pools keep windows that are only partly filled, as in the published network, so that the last
    one makes 4×4 of 7×7 and `fc6` takes 1·4·4·512 = 8192 numbers. `features` is the output of
    `fc7` after its ReLU. At 101 classes it has 78,409,573 parameters; 16×112×112 takes 38.55 G
    multiply-adds.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights (`"sports1m"`, `"ucf101"`), or a
            file: of a like model, or a published checkpoint.
        dropout: after `fc6` and `fc7`.
        preprocessing: how pixels are normalized: `"scaled"` to about -2..2, or as for published
            weights `"mmaction2"` (RGB less a mean), `"sports1m"` (BGR less a mean) or `"mean_cube"`
            (BGR less a mean clip). A file of published weights brings its own by default.
        mean_cube: a `.npy` file with the mean clip of Sports-1M, which the model keeps as a weight;
            means `preprocessing="mean_cube"`.
        pool5_padding: `"after"` has the partly filled windows of the last pool at the end, as the
            first implementation (in Caffe); `"both"` pads all around, as other publishers' code
            does; a file of published weights brings its publisher's by default.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` or `mean_cube` cannot be used.
    """
    _, weights_file = check_weights(weights, family=C3D)
    preprocessing = preprocessing if mean_cube is None else _MEAN_CUBE
    check_choice("preprocessing", preprocessing, PREPROCESSING)
    check_choice("pool5_padding", pool5_padding, POOL5_PADDING)
    dropout = check_dropout(dropout)
    shape = check_input_shape(input_shape)
    inputs, x = clip_input(shape, **PREPROCESSING[preprocessing])
    if preprocessing == _MEAN_CUBE:
        subtraction = MeanCubeSubtraction(name="normalization")
        x = subtraction(inputs)
        if mean_cube is not None:
            subtraction.cube.assign(load_mean_cube(mean_cube, shape))
    for number, stage in enumerate(STAGES, start=1):
        for convolution in stage.convolutions:
            x = conv_unit(x, stage.filters, 3, name=convolution, norm=None)
        padding = "same"
        if number == len(STAGES):
            x = keras.layers.Identity(name="feature_map")(x)  # (B, 2, 7, 7, 512)
            if pool5_padding == "both":
                x = keras.layers.ZeroPadding3D((0, 1, 1), name="pool5_pad")(x)
                padding = "valid"
        x = keras.layers.MaxPooling3D(stage.pool, padding=padding, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(FC_UNITS, "relu", kernel_initializer="he_normal", name="fc6")(x)
    x = Dropout(dropout, name="dropout6")(x)
    x = keras.layers.Dense(FC_UNITS, "relu", kernel_initializer="he_normal", name="fc7")(x)
    x = keras.layers.Identity(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=C3D)
