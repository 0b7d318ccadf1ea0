"""The lecture's ways to fuse time: not at all, late, early, slowly (Karpathy et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import check_choice
from kvideo.layers.conv import NORM, Norm
from kvideo.layers.frames import FoldTime, FramesToChannels, UnfoldTime
from kvideo.models.backbones import IMAGENET, LECTURE, Backbone, backbone_2d
from kvideo.models.classifier import (
    Shape,
    check_count,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
)
from kvideo.models.stacks import LECTURE_WIDTHS, lecture_stack

FUSIONS = ("average", "fc")
LECTURE_SHAPE = (20, 64, 64, 3)
_CLIP = ClipSpec(20, 10.0, (64, 64))
_BACKBONE_CLIP = ClipSpec(8, 4.0, (224, 224))  # what ImageNet's networks were made for
_VIEWS = Views(num_clips=10)


def _clip_for(backbone: str = LECTURE, **_: Any) -> ClipSpec:
    return _CLIP if backbone == LECTURE else _BACKBONE_CLIP


def _frame_for(**options: Any) -> ClipSpec:
    return _clip_for(**options).replace(num_frames=1)


@made_for(_CLIP.replace(num_frames=1), _VIEWS, _frame_for)
def single_frame(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (1, 64, 64, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    backbone: str = "lecture",
    widths: Sequence[int] = LECTURE_WIDTHS,
    batch_norm: bool = True,
    dropout: float = 0.0,
    name: str = "single_frame",
) -> keras.Model:
    """A 2D network on single frames: the baseline that any video model must beat.

    It is trained on one random frame of each video, and tested on the average over frames. Given
    more than one frame, it averages their features.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's), or a file of a like model.
        backbone: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by name.
        widths: of the lecture's stack; see `kvideo.models.stacks.lecture_stages`.
        batch_norm: whether the lecture's stack has batch norm.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone.
    """
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    shape = check_input_shape(input_shape)
    network = _network(backbone, weights_name, widths, batch_norm, shape)
    inputs, x = _each_frame(network, shape)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(_CLIP, _VIEWS, _clip_for)
def late_fusion(
    num_classes: int,
    *,
    fusion: str = "average",
    input_shape: Sequence[int] = LECTURE_SHAPE,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    backbone: str = "lecture",
    widths: Sequence[int] = LECTURE_WIDTHS,
    batch_norm: bool = True,
    hidden: int = 256,
    dropout: float = 0.0,
    name: str = "late_fusion",
) -> keras.Model:
    """A 2D network on every frame, whose outputs are fused at the end.

    Args:
        num_classes: classes.
        fusion: `"average"`: mean over space and time. `"fc"`: the frames' features, each averaged
            over space, are concatenated and go through a fully connected layer.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's), or a file of a like model.
        backbone: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by name.
        widths: of the lecture's stack; see `kvideo.models.stacks.lecture_stages`.
        batch_norm: whether the lecture's stack has batch norm.
        hidden: units of the fully connected layer of `fusion="fc"`.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone.
    """
    check_choice("fusion", fusion, FUSIONS)
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    shape = check_input_shape(input_shape)
    network = _network(backbone, weights_name, widths, batch_norm, shape)
    inputs, x = _each_frame(network, shape)
    if fusion == "average":
        x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    else:
        x = _flat_frames(x)
        hidden = check_count("hidden", hidden)
        x = keras.layers.Dense(hidden, "relu", kernel_initializer="he_normal", name="fc1")(x)
        x = keras.layers.Identity(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(_CLIP, _VIEWS, _clip_for)
def early_fusion(
    num_classes: int,
    *,
    input_shape: Sequence[int] = LECTURE_SHAPE,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    backbone: str = "lecture",
    widths: Sequence[int] = LECTURE_WIDTHS,
    batch_norm: bool = True,
    dropout: float = 0.0,
    name: str = "early_fusion",
) -> keras.Model:
    """A 2D network whose first convolution sees all frames at once, as 3T channels.

    It can learn motion, but a motion that starts one frame later is another pattern to it.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's; its first kernel repeated for every
            frame), or a file of a like model.
        backbone: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by name.
        widths: of the lecture's stack; see `kvideo.models.stacks.lecture_stages`.
        batch_norm: whether the lecture's stack has batch norm.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone.
    """
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    shape = check_input_shape(input_shape)
    network = _network(backbone, weights_name, widths, batch_norm, shape)
    inputs, x = clip_input(shape, **network.pixels)
    x = FramesToChannels(name="frames_to_channels")(x)  # (B, H, W, 3T)
    x = network.build(x)
    x = UnfoldTime(1, name="feature_map")(x)  # (B, 1, H', W', C)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(_CLIP, _VIEWS)
def slow_fusion(
    num_classes: int,
    *,
    input_shape: Sequence[int] = LECTURE_SHAPE,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    widths: Sequence[int] = LECTURE_WIDTHS,
    batch_norm: bool = True,
    dropout: float = 0.0,
    name: str = "slow_fusion",
) -> keras.Model:
    """A 3D network: convolutions and pools over space and time fuse the frames little by little.

    The default is the lecture's example for 20×64×64:

    | layer | kernel | output T×H×W×C | receptive field T×H×W |
    | --- | --- | --- | --- |
    | conv1 | 3×3×3 | 20×64×64×12 | 3×3×3 |
    | pool1 | 4×4×4 | 5×16×16×12 | 6×6×6 |
    | conv2 | 3×3×3 | 5×16×16×24 | 14×14×14 |
    | features | mean | 24 | 20×64×64 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), or a file of a like model.
        widths: channels of the convolutions; see `kvideo.models.stacks.lecture_stages`.
        batch_norm: whether batch norm follows each convolution.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
    """
    _, weights_file = check_weights(weights)
    inputs, x = clip_input(check_input_shape(input_shape))
    x = lecture_stack(x, widths, norm=_norm(batch_norm))
    x = keras.layers.Identity(name="feature_map")(x)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


def _norm(batch_norm: bool) -> Norm | None:
    return NORM if batch_norm else None


def _network(
    backbone: str, weights: str | None, widths: Sequence[int], batch_norm: bool, shape: Shape
) -> Backbone:
    norm = _norm(batch_norm)
    return backbone_2d(backbone, weights=weights, widths=widths, norm=norm, channels=shape[-1])


def _each_frame(network: Backbone, shape: Shape) -> tuple[Any, Any]:
    """The input, and `feature_map` (B, T, H', W', C): every frame through a 2D network."""
    inputs, x = clip_input(shape, **network.pixels)
    x = FoldTime(name="fold_time")(x)  # (B*T, H, W, 3)
    x = network.build(x)
    return inputs, UnfoldTime(shape[0], name="feature_map")(x)


def _flat_frames(feature_map: Any) -> Any:
    """(B, T, H, W, C) -> (B, T*C), averaged over space."""
    _, frames, height, width, channels = feature_map.shape
    window = (1, height, width)
    x = keras.layers.AveragePooling3D(window, name="frame_features")(feature_map)
    return keras.layers.Reshape((frames * channels,), name="flatten")(x)
