"""Networks for pictures turned into networks for clips (Carreira and Zisserman 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.inflation import KernelT, inflate_onto
from kvideo.layers.conv import NORM
from kvideo.models.backbones import IMAGENET, backbone_2d
from kvideo.models.classifier import (
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
)
from kvideo.models.stacks import LECTURE_WIDTHS


@made_for(ClipSpec(8, 4.0, (224, 224)), Views(num_clips=10))
def inflated(
    num_classes: int,
    *,
    backbone: str = "efficientnet_lite0",
    kernel_t: KernelT = 3,
    temporal_padding: str = "zero",
    initialization: str = "mean",
    input_shape: Sequence[int] = (8, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    dropout: float = 0.0,
    name: str = "inflated",
) -> keras.Model:
    """A 2D network inflated by `kvideo.inflate`: it sees motion, and begins with ImageNet weights.

    Layers have the names that they have in `late_fusion` with the same backbone, so that the same
    ones can be frozen.

    Args:
        num_classes: classes.
        backbone: `"efficientnet_lite0"`, `"lecture"`, or a model of `keras.applications` by name.
        kernel_t: over how many frames convolutions look: a number for all that look at more than
            one pixel, or a mapping from layer names or patterns; see `kvideo.inflate`.
        temporal_padding: `"zero"` or `"edge"`: what convolutions see before and after the clip.
        initialization: of the kernels over time, `"mean"` or `"centre"`; see `kvideo.inflate`.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's, inflated), or a file of a like model.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone or layer.

    References:
        Carreira & Zisserman 2017, "Quo Vadis, Action Recognition?", section 2.4.
    """
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    shape = check_input_shape(input_shape)
    network = backbone_2d(
        backbone, weights=weights_name, widths=LECTURE_WIDTHS, norm=NORM, channels=shape[-1]
    )
    inputs, x = clip_input(shape, **network.pixels)
    picture = keras.Input(shape[1:], name="picture")
    x = inflate_onto(
        keras.Model(picture, network.build(picture)),
        x,
        kernel_t=kernel_t,
        temporal_padding=temporal_padding,
        initialization=initialization,
    )
    x = keras.layers.Identity(name="feature_map")(x)  # (B, T, H', W', C)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)
