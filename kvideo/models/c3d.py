"""C3D, the first 3D network whose features were widely used (Tran et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.layers.conv import conv_unit
from kvideo.models.classifier import (
    check_dropout,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
)


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


@made_for(ClipSpec(16, 25.0, (112, 112), short_side=128), Views(num_clips=10))
def c3d(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (16, 112, 112, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    dropout: float = 0.5,
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
        weights: None (random), or a file of a like model.
        dropout: after `fc6` and `fc7`.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
    """
    _, weights_file = check_weights(weights)
    dropout = check_dropout(dropout)
    inputs, x = clip_input(check_input_shape(input_shape))
    for number, stage in enumerate(STAGES, start=1):
        for convolution in stage.convolutions:
            x = conv_unit(x, stage.filters, 3, name=convolution, norm=None)
        if number == len(STAGES):
            x = keras.layers.Identity(name="feature_map")(x)  # (B, 2, 7, 7, 512)
        x = keras.layers.MaxPooling3D(stage.pool, padding="same", name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(FC_UNITS, "relu", kernel_initializer="he_normal", name="fc6")(x)
    x = keras.layers.Dropout(dropout, name="dropout6")(x)
    x = keras.layers.Dense(FC_UNITS, "relu", kernel_initializer="he_normal", name="fc7")(x)
    x = keras.layers.Identity(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)
