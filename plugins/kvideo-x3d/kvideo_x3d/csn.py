"""Channel-separated networks: a ResNet whose 3×3×3 convolutions are depthwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras

from kvideo import ClipSpec, Views
from kvideo.layers import conv_unit, max_pool
from kvideo_x3d.blocks import bottleneck, classifier, clip_input
from kvideo_x3d.names import CSN

_DEPTHS = (3, 4, 23, 3)
_WIDENING = 4  # of a block's output over its inner channels


def csn_r101(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (32, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | os.PathLike[str] | None = None,
    stem_filters: int = 64,
    dropout: float = 0.0,
    name: str = "csn_r101",
) -> keras.Model:
    """ir-CSN-101 as PyTorchVideo has it.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: "softmax"; "sigmoid" for several labels a video; None for logits.
        weights: None, PyTorchVideo's checkpoint, or a file of a like model.
        stem_filters: channels of the first convolution; all others are multiples of it.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: the shape is none of RGB clips.
        ModelFileError: the file of `weights` does not fit.

    References:
        Tran et al. 2019, "Video Classification with Channel-Separated Convolutional Networks".
    """
    inputs, x = clip_input(input_shape)
    x = conv_unit(x, stem_filters, (3, 7, 7), name="stem", strides=(1, 2, 2), padding="half")
    x = max_pool(x, (1, 3, 3), strides=(1, 2, 2), name="stem_pool")
    for number, depth in enumerate(_DEPTHS):
        inner = stem_filters * 2**number
        for block in range(depth):
            x = bottleneck(
                x,
                inner,
                _WIDENING * inner,
                name=f"res{number + 2}_{block}",
                strides=(1, 1, 1) if block or not number else (2, 2, 2),
                first=not block,
            )
    x = keras.layers.Identity(name="feature_map")(x)  # (B, T/8, H/32, W/32, C)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)  # (B, C)
    return classifier(inputs, x, num_classes, classifier_activation, dropout, name, weights, CSN)


csn_r101.clip_spec = ClipSpec(  # type: ignore[attr-defined]
    num_frames=32, frame_rate=15.0, size=(224, 224), short_side=256
)
csn_r101.views = Views(num_clips=10, num_crops=3)  # type: ignore[attr-defined]
csn_r101.family = CSN  # type: ignore[attr-defined]  # for `kvideo convert`
