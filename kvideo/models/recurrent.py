"""Memory over time: a CNN followed by an RNN, and networks that are recurrent in every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError, check_choice
from kvideo.layers.conv import NORM
from kvideo.layers.conv_rnn import ConvGRU2D, ConvRNN2D
from kvideo.layers.dropout import Dropout
from kvideo.layers.frames import (
    FoldTime,
    FoldWindows,
    LastFrame,
    RepeatFrames,
    SpatialPooling,
    UnfoldTime,
)
from kvideo.models.backbones import IMAGENET, LECTURE, backbone_2d
from kvideo.models.classifier import (
    check_count,
    check_dropout,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
)
from kvideo.models.stacks import LECTURE_WIDTHS, lecture_stack

OUTPUTS = ("video", "frames")
POOLINGS = ("last", "mean")
STATES = ("vector", "map")
RNNS: dict[str, Callable[..., Any]] = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "rnn": keras.layers.SimpleRNN,
}
CONV_RNNS: dict[str, Callable[..., Any]] = {
    "lstm": keras.layers.ConvLSTM2D,
    "gru": ConvGRU2D,
    "rnn": ConvRNN2D,
}
_CLIP = ClipSpec(20, 10.0, (64, 64))
_BACKBONE_CLIP = ClipSpec(16, 8.0, (224, 224))  # what ImageNet's networks were made for
_VIEWS = Views(num_clips=5)


def _clip_for(backbone: str = LECTURE, **_: Any) -> ClipSpec:
    return _CLIP if backbone == LECTURE else _BACKBONE_CLIP


@made_for(_CLIP, _VIEWS, _clip_for)
def cnn_rnn(
    num_classes: int,
    *,
    output: str = "video",
    rnn: str = "gru",
    states: str | None = None,
    units: int | Sequence[int] | None = None,
    bidirectional: bool = False,
    pooling: str | None = None,
    grid: int = 1,
    input_shape: Sequence[int] = (20, 64, 64, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    backbone: str = "lecture",
    frozen_backbone: bool = False,
    widths: Sequence[int] = LECTURE_WIDTHS,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    name: str = "cnn_rnn",
) -> keras.Model:
    """A 2D network on every frame, and a recurrent one over what it says of them (LRCN).

    Args:
        num_classes: classes.
        output: `"video"`: one label for the clip. `"frames"`: one for each frame.
        rnn: `"lstm"`, `"gru"` or `"rnn"` (a simple one).
        states: `"vector"`: the recurrent layers see the mean of each frame's map, which says what
            is there (LRCN). `"map"`: they are convolutional (3×3) and see the map itself, so they
            can tell where something moves. None: "map" for the lecture's stack, whose few channels
            mean little by themselves, "vector" for deep backbones.
        units: of the recurrent layer, or of several; None: 128, or 32 for maps.
        bidirectional: whether each layer also runs from the clip's end. Then the network cannot
            follow a live stream frame by frame.
        pooling: for `"video"`: `"last"`: the state at the clip's end; `"mean"`: the mean over all.
            None: "last" for vectors, "mean" for maps.
        grid: for vectors: each frame's map is averaged over grid×grid cells, which are laid side by
            side; 1 tells the recurrent layer what is there, more tell it where.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), `"imagenet"` (the backbone's), or a file of a like model.
        backbone: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by name.
        frozen_backbone: whether the backbone's weights stay as they are in training. `kvideo fit`
            then computes what it says of each frame once and keeps it on disk.
        widths: of the lecture's stack; see `kvideo.models.stacks.lecture_stages`.
        dropout: before each recurrent layer and the last one.
        recurrent_dropout: share of the state set to 0 in training, the same at all steps.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes), or to
        (B, T, num_classes) for `output="frames"`.

    Raises:
        UsageError: an argument is out of its range, or there is no such backbone.

    References:
        Donahue et al. 2015, "Long-term Recurrent Convolutional Networks for Visual Recognition and
        Description".
    """
    check_choice("output", output, OUTPUTS)
    states = states or ("map" if backbone == LECTURE else "vector")
    check_choice("states", states, STATES)
    pooling = pooling or ("mean" if states == "map" else "last")
    check_choice("pooling", pooling, POOLINGS)
    if units is None:
        units = 32 if states == "map" else 128
    if states == "map" and grid != 1:
        raise UsageError('grid is for states="vector" only.')
    weights_name, weights_file = check_weights(weights, (IMAGENET,))
    shape = check_input_shape(input_shape)
    network = backbone_2d(
        backbone, weights=weights_name, widths=widths, norm=NORM, channels=shape[-1]
    )
    inputs, x = clip_input(shape, **network.pixels)
    x = network.build(FoldTime(name="fold_time")(x))  # (B*T, H', W', C)
    x = UnfoldTime(shape[0], name="frame_map" if states == "map" else "feature_map")(x)
    if frozen_backbone:
        for layer in keras.Model(inputs, x).layers:
            layer.trainable = False
    if states == "map":
        x = _rnn_stack(
            x, CONV_RNNS, rnn, units, bidirectional, dropout, recurrent_dropout,
            kernel_size=3, padding="same",
        )  # fmt: skip
        x = keras.layers.Identity(name="feature_map")(x)  # (B, T, H', W', units)
        x = SpatialPooling(name="frame_features")(x)
    else:
        x = SpatialPooling(check_count("grid", grid), name="frame_features")(x)  # (B, T, grid²·C)
        x = _rnn_stack(x, RNNS, rnn, units, bidirectional, dropout, recurrent_dropout)
    x = _over_frames(x, output, pooling)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(ClipSpec(32, 10.0, (64, 64)), _VIEWS)
def cnn3d_rnn(
    num_classes: int,
    *,
    output: str = "video",
    window: int = 8,
    rnn: str = "lstm",
    units: int | Sequence[int] = 64,
    bidirectional: bool = False,
    pooling: str = "last",
    input_shape: Sequence[int] = (32, 64, 64, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    widths: Sequence[int] = LECTURE_WIDTHS,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    name: str = "cnn3d_rnn",
) -> keras.Model:
    """A 3D network on short windows of the clip, and a recurrent one over the windows.

    Args:
        num_classes: classes.
        output: `"video"`, or `"frames"`: a label for each frame, that of its window.
        window: frames in a window; the clip's number of frames is a multiple of it.
        rnn: `"lstm"`, `"gru"` or `"rnn"`.
        units: of the recurrent layer, or of several.
        bidirectional: whether each layer also runs from the clip's end.
        pooling: for `"video"`: `"last"` or `"mean"`.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), or a file of a like model.
        widths: of the 3D stack; see `kvideo.models.stacks.lecture_stages`.
        dropout: before each recurrent layer and the last one.
        recurrent_dropout: share of the state set to 0 in training.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes), or to
        (B, T, num_classes) for `output="frames"`.

    Raises:
        UsageError: an argument is out of its range.

    References:
        Baccouche et al. 2011, "Sequential Deep Learning for Human Action Recognition".
    """
    check_choice("output", output, OUTPUTS)
    check_choice("pooling", pooling, POOLINGS)
    _, weights_file = check_weights(weights)
    shape = check_input_shape(input_shape)
    if shape[0] % check_count("window", window):
        raise UsageError(
            f"input_shape must hold a multiple of window ({window}) frames, not {shape[0]}."
        )
    inputs, x = clip_input(shape)
    x = FoldWindows(window, name="fold_windows")(x)  # (B*n, window, H, W, 3)
    x = lecture_stack(x, widths)
    x = keras.layers.Identity(name="window_map")(x)  # (B*n, T', H', W', C)
    x = keras.layers.GlobalAveragePooling3D(keepdims=True, name="window_mean")(x)
    x = keras.layers.Reshape((1, 1, x.shape[-1]), name="window_vector")(x)
    x = UnfoldTime(shape[0] // window, name="feature_map")(x)  # (B, n, 1, 1, C)
    x = SpatialPooling(name="window_features")(x)
    x = _rnn_stack(x, RNNS, rnn, units, bidirectional, dropout, recurrent_dropout)
    if output == "frames":
        x = RepeatFrames(window, name="repeat")(x)
    x = _over_frames(x, output, pooling)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


@made_for(_CLIP, _VIEWS)
def recurrent_conv(
    num_classes: int,
    *,
    output: str = "video",
    cell: str = "gru",
    widths: Sequence[int] = (16, 32, 64),
    kernel_size: int = 3,
    pooling: str = "mean",
    input_shape: Sequence[int] = (20, 64, 64, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    name: str = "recurrent_conv",
) -> keras.Model:
    """A recurrent convolutional network: every layer remembers.

    Each layer is fed by the layer below at the same frame and by itself at the frame before. The
    first one halves the picture by its stride; between layers a max-pool halves it again.

    Args:
        num_classes: classes.
        output: `"video"`: one label for the clip. `"frames"`: one for each frame.
        cell: `"gru"`, `"rnn"` or `"lstm"`.
        widths: channels of the layers.
        kernel_size: of all convolutions, (k, k).
        pooling: for `"video"`: `"mean"`: over all frames; `"last"`: the states at the clip's end.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), or a file of a like model.
        dropout: before the last layer.
        recurrent_dropout: share of the states set to 0 in training, the same at all frames.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes), or to
        (B, T, num_classes) for `output="frames"`.

    Raises:
        UsageError: an argument is out of its range.

    References:
        Ballas et al. 2016, "Delving Deeper into Convolutional Networks for Learning Video
        Representations", section 3.2.
    """
    check_choice("output", output, OUTPUTS)
    check_choice("pooling", pooling, POOLINGS)
    check_choice("cell", cell, CONV_RNNS)
    _, weights_file = check_weights(weights)
    if isinstance(widths, int) or not widths:
        raise UsageError(f"widths must list at least one width, such as (16, 32), not {widths!r}.")
    shape = check_input_shape(input_shape)
    if min(shape[1:3]) < 2 ** len(widths):
        raise UsageError(
            f"input_shape is too small: {len(widths)} widths need at least {2 ** len(widths)} "
            f"pixels, not {shape[1]}x{shape[2]}."
        )
    inputs, x = clip_input(shape)
    for number, width in enumerate(widths, start=1):
        if number > 1:
            x = keras.layers.MaxPooling3D((1, 2, 2), padding="same", name=f"pool{number - 1}")(x)
        x = CONV_RNNS[cell](
            check_count("widths", width),
            check_count("kernel_size", kernel_size),
            strides=2 if number == 1 else 1,
            padding="same",
            return_sequences=True,
            recurrent_dropout=check_dropout(recurrent_dropout, "recurrent_dropout"),
            name=f"recurrent{number}",
        )(x)
    x = keras.layers.Identity(name="feature_map")(x)  # (B, T, H', W', C)
    x = SpatialPooling(name="frame_features")(x)
    x = _over_frames(x, output, pooling)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file)


def _rnn_stack(
    x: Any,
    kinds: Mapping[str, Callable[..., Any]],
    rnn: str,
    units: int | Sequence[int],
    bidirectional: bool,
    dropout: float,
    recurrent_dropout: float,
    **options: Any,
) -> Any:
    """(B, T, …, C) -> (B, T, …, units): recurrent layers `rnn1`, `rnn2` …, dropout before each."""
    check_choice("rnn", rnn, kinds)
    check_dropout(recurrent_dropout, "recurrent_dropout")
    if not (widths := list(units) if isinstance(units, list | tuple) else [units]):
        raise UsageError(f"units must list at least one layer's, such as (64, 64), not {units!r}.")
    for number, width in enumerate(widths, start=1):
        if check_dropout(dropout):
            x = Dropout(dropout, name=f"rnn{number}_dropout")(x)
        layer = kinds[rnn](
            check_count("units", width),
            return_sequences=True,
            recurrent_dropout=recurrent_dropout,
            **options,
            name=f"rnn{number}",
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=f"rnn{number}")
        x = layer(x)
    return x


def _over_frames(x: Any, output: str, pooling: str) -> Any:
    """`features`: (B, T, C) for each frame, or (B, C) of the last one or the mean of all."""
    if output == "frames":
        return keras.layers.Identity(name="features")(x)
    if pooling == "last":
        return LastFrame(name="features")(x)
    return keras.layers.GlobalAveragePooling1D(name="features")(x)
