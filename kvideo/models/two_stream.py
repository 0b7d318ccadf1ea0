"""Two-stream networks: what is seen in a frame, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from kvideo.clip_spec import MODALITIES, ClipSpec, Views, modality_of
from kvideo.errors import UsageError, check_choice
from kvideo.layers.frames import MiddleFrame, TakeChannels
from kvideo.models.backbones import IMAGENET, LECTURE, inline
from kvideo.models.classifier import (
    Shape,
    check_input_shape,
    check_weights,
    classifier_head,
    finish,
    made_for,
    pooled_features,
)
from kvideo.models.fusion import early_fusion, single_frame
from kvideo.models.i3d import HEAD_WINDOW, i3d
from kvideo.models.stacks import LECTURE_WIDTHS

STREAMS = {"spatial": "rgb", "temporal": "flow", "both": "rgb+flow"}
_CLIP = ClipSpec(10, 10.0, (64, 64), modality="rgb+flow")
_BACKBONE_CLIP = ClipSpec(10, 25.0, (224, 224), modality="rgb+flow")  # Simonyan & Zisserman's
_I3D_CLIP = ClipSpec(64, 25.0, (224, 224), modality="rgb+flow", short_side=256)
_VIEWS = Views(num_clips=10)


def _clip_for(stream: str | None = None, backbone: str = LECTURE, **_: Any) -> ClipSpec:
    spec = _of_stream(_CLIP if backbone == LECTURE else _BACKBONE_CLIP, stream)
    return spec.replace(num_frames=1) if spec.modality == "rgb" else spec


def _i3d_clip_for(stream: str | None = None, **_: Any) -> ClipSpec:
    return _of_stream(_I3D_CLIP, stream)


def _of_stream(spec: ClipSpec, stream: str | None) -> ClipSpec:
    if stream is not None:
        check_choice("stream", stream, STREAMS)
    return spec.replace(modality=STREAMS[stream or "both"])


@made_for(_CLIP, _VIEWS, _clip_for)
def two_stream(
    num_classes: int,
    *,
    stream: str | None = None,
    input_shape: Sequence[int] | None = None,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    backbone: str = "lecture",
    widths: Sequence[int] = LECTURE_WIDTHS,
    batch_norm: bool = True,
    dropout: float = 0.0,
    name: str = "two_stream",
) -> keras.Model:
    """Two 2D networks: one sees a frame, the other the optical flow (Simonyan & Zisserman 2014).

    The spatial stream is `single_frame`. The temporal stream is early fusion of flow: its first
    convolution sees the L flows between L + 1 frames as 2L channels. Each can be trained alone,
    and two runs be joined by `kvideo fuse`, as in the paper. With both in one network the spatial
    stream sees the clip's middle frame, and the class scores of the two are added before the
    softmax.

    Args:
        num_classes: classes.
        stream: `"spatial"`, `"temporal"` or `"both"`; by default what the channels say.
        input_shape: (T, H, W, C): C is 3 for the spatial stream (mostly with T = 1; the features
            of several frames are averaged), 2 for the temporal stream, 5 for both. By default
            (10, 64, 64, C), with another backbone (10, 224, 224, C), and T = 1 for frames.
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's; the temporal stream's first kernel is
            its mean over the colours, repeated), or a file of a like model.
        backbone: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by name.
        widths: of the lecture's stack; see `kvideo.models.stacks.lecture_stages`.
        batch_norm: whether the lecture's stack has batch norm.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, C), RGB 0..255 and behind it flow (dx, dy) in
        pixels per frame, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone.

    References:
        Wang et al. 2016, "Temporal Segment Networks": weights of the temporal stream.
    """
    stream, shape = _check_stream(stream, input_shape or _clip_for(stream, backbone).shape)
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    options: dict[str, Any] = {
        "classifier_activation": classifier_activation,
        "weights": weights_name,
        "backbone": backbone,
        "widths": widths,
        "batch_norm": batch_norm,
        "dropout": dropout,
    }
    if stream != "both":
        builder = single_frame if stream == "spatial" else early_fusion
        model = builder(num_classes, input_shape=shape, name=name, **options)
        return finish(model.input, model.output, name, weights_file)
    inputs, x = _joined(
        shape,
        lambda part: single_frame(num_classes, input_shape=part, **options),
        lambda part: early_fusion(num_classes, input_shape=part, **options),
        one_frame=True,
    )
    x = pooled_features(x)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(_I3D_CLIP, _VIEWS, _i3d_clip_for)
def two_stream_i3d(
    num_classes: int,
    *,
    stream: str | None = None,
    input_shape: Sequence[int] | None = None,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    spatial_weights: str | None = None,
    temporal_weights: str | None = None,
    width_multiplier: float = 1.0,
    head_window: Sequence[int] | None = HEAD_WINDOW,
    dropout: float = 0.5,
    name: str = "two_stream_i3d",
) -> keras.Model:
    """Two I3D networks, one for pictures and one for optical flow (Carreira & Zisserman 2017).

    Their class scores are added before the softmax, as there. A stream alone is `i3d`.

    Args:
        num_classes: classes.
        stream: `"spatial"`, `"temporal"` or `"both"`; by default what the channels say.
        input_shape: (T, H, W, C): C is 3 for the spatial stream, 2 for the temporal, 5 for both.
            By default (64, 224, 224, C).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), or a file of a like model.
        spatial_weights: of the spatial stream, whatever `i3d` takes.
        temporal_weights: of the temporal stream, likewise. Of weights for RGB its first kernel is
            the mean over the colours.
        width_multiplier: what all numbers of filters are multiplied by.
        head_window: see `i3d`.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, C), RGB 0..255 and behind it flow (dx, dy) in
        pixels per frame, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    stream, shape = _check_stream(stream, input_shape or _i3d_clip_for(stream).shape)
    for which, given in (("spatial", spatial_weights), ("temporal", temporal_weights)):
        if given is not None and stream not in (which, "both"):
            raise UsageError(f'{which}_weights are of no use to stream="{stream}".')
    _, weights_file = check_weights(weights)
    options: dict[str, Any] = {
        "classifier_activation": classifier_activation,
        "width_multiplier": width_multiplier,
        "head_window": head_window,
        "dropout": dropout,
    }
    if stream != "both":
        own = spatial_weights if stream == "spatial" else temporal_weights
        model = i3d(num_classes, input_shape=shape, name=name, weights=own, **options)
        return finish(model.input, model.output, name, weights_file)
    inputs, x = _joined(
        shape,
        lambda part: i3d(num_classes, input_shape=part, weights=spatial_weights, **options),
        lambda part: i3d(num_classes, input_shape=part, weights=temporal_weights, **options),
    )
    x = pooled_features(x, head_window)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


def _check_stream(stream: str | None, input_shape: Sequence[int]) -> tuple[str, Shape]:
    """The stream and the checked shape.

    Raises:
        UsageError: no such stream, or other channels than it takes.
    """
    shape = check_input_shape(input_shape, tuple(MODALITIES.values()))
    modality = modality_of(shape[-1])
    by_channels = next(name for name, of in STREAMS.items() if of == modality)
    if stream is None:
        return by_channels, shape
    check_choice("stream", stream, STREAMS)
    if stream != by_channels:
        wanted = MODALITIES[STREAMS[stream]]
        raise UsageError(
            f'stream="{stream}" takes clips of {wanted} channels; input_shape {shape} ends in '
            f"{shape[-1]}."
        )
    return stream, shape


def _joined(
    shape: Shape,
    spatial: Callable[[Shape], keras.Model],
    temporal: Callable[[Shape], keras.Model],
    one_frame: bool = False,
) -> tuple[Any, Any]:
    """The input, and the `feature_map` of both streams side by side.

    A last layer on their pooled features is the sum of a last layer on each.
    """
    _, height, width, _ = shape
    inputs = keras.Input(shape, name="clip", dtype="float32")
    rgb = TakeChannels(0, MODALITIES["rgb"], name="rgb")(inputs)
    flow = TakeChannels(MODALITIES["rgb"], MODALITIES["flow"], name="flow")(inputs)
    if one_frame:
        rgb = MiddleFrame(name="middle_frame")(rgb)
    maps = []
    for name, build, x in (("spatial", spatial, rgb), ("temporal", temporal, flow)):
        network = build((x.shape[1], height, width, x.shape[-1]))
        until_map = keras.Model(network.input, network.get_layer("feature_map").output)
        maps.append(inline(until_map, x, prefix=f"{name}_"))
    return inputs, keras.layers.Concatenate(name="feature_map")(maps)
