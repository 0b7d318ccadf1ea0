"""What layers depend on, given what their inputs depend on: a rule for each class of layers.

A layer of another package takes part by a method `receptive_field(fields, input_shape,
output_shape)` that gives a `Field` for its output, or by `kvideo.analysis.register_layer`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kvideo import layers
from kvideo.analysis.fields import (
    AXES,
    BATCH,
    CHANNELS,
    HEIGHT,
    TIME,
    WIDTH,
    WINDOWS,
    Field,
    Span,
    joined_fields,
)
from kvideo.errors import UsageError
from kvideo.layers.frames import slow_indices

Shape = tuple[int, ...]
Rule = Callable[[Any, Sequence[Field], Shape, Shape], Field | None]
RULES: dict[type, Rule] = {}


def field_of(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field | None:
    """What a layer's output depends on.

    Args:
        layer: a built layer, or an operation of a graph.
        fields: of its inputs.
        given: shape of its first input, with a batch of one clip.
        got: shape of its output.

    Returns:
        None if that is not known.
    """
    if hasattr(layer, "receptive_field"):
        return layer.receptive_field(list(fields), given, got)
    for kind in type(layer).__mro__:
        if kind in RULES:
            return RULES[kind](layer, fields, given, got)
    if type(layer).__name__ in _POINTWISE:
        return _pointwise(layer, fields, given, got)
    return None


def _rule(*kinds: type) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


# Operations on Keras tensors that work place by place, by name: their classes are not public.
_POINTWISE = {
    *("Absolute", "Add", "Cast", "Clip", "Divide", "Exp", "Maximum", "Minimum", "Multiply"),
    *("Negative", "Power", "Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Sqrt", "Square"),
    *("HardSigmoid", "HardSilu", "Gelu", "Subtract", "Tanh", "TrueDivide", "ZerosLike"),
}


@_rule(
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.Dense,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Concatenate,
    layers.BatchNorm,
    layers.DropPath,
    layers.FlowNormalization,
    layers.MeanCubeSubtraction,
    layers.PixelNormalization,
    layers.TakeChannels,
    layers.WeightedMean,
)
def _pointwise(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return joined_fields(fields)


@_rule(keras.layers.LayerNormalization)
def _layer_norm(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    """Over other axes than the channels, all of these is seen."""
    (field,) = fields
    axes = [axis % len(given) for axis in _listed(layer.axis)]
    over = [field.layout[axis] for axis in axes if field.layout[axis] in AXES]
    sizes = {axis: given[field.layout.index(axis)] for axis in over}
    merged = field.merged(over, keep=True)
    spans = {axis: merged.spans[axis].repeated(size) for axis, size in sizes.items()}
    return merged.with_spans(**spans)


@_rule(
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    layers.DepthwiseConv3D,
)
def _convolution(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    dilation = getattr(layer, "dilation_rate", 1)
    return _slid(fields[0], layer.kernel_size, layer.strides, dilation, layer.padding, given, got)


@_rule(
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
)
def _pooling(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return _slid(fields[0], layer.pool_size, layer.strides, 1, layer.padding, given, got)


def _slid(
    field: Field,
    kernel: Any,
    strides: Any,
    dilation: Any,
    padding: str,
    given: Shape,
    got: Shape,
) -> Field:
    """Behind a kernel over the axes before the channels."""
    rank = len(given) - 2
    sizes, steps, holes = (_tuple(value, rank) for value in (kernel, strides, dilation))
    spans = {}
    for place in range(rank):
        axis, length = field.layout[1 + place], given[1 + place]
        if axis not in AXES:
            raise UsageError(f"a kernel over the dimension {axis} cannot be followed.")
        before = 0
        reach = (sizes[place] - 1) * holes[place] + 1
        if padding == "same":
            before = max((math.ceil(length / steps[place]) - 1) * steps[place] + reach - length, 0)
            before //= 2
        spans[axis] = field.spans[axis].slid(
            sizes[place], steps[place], holes[place], before, got[1 + place]
        )
    return field.with_spans(**spans)


@_rule(keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
def _padding(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    (field,) = fields
    pads = {field.layout[1 + place]: pair for place, pair in enumerate(layer.padding)}
    return _padded(field, pads, got)


@_rule(layers.FramePadding)
def _frame_padding(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    (field,) = fields
    pads = {TIME: (layer.frames[0], layer.frames[1])}
    for place, axis in ((2, HEIGHT), (3, WIDTH)):
        total = got[place] - given[place]
        pads[axis] = (total // 2, total - total // 2)
    return _padded(field, pads, got)


def _padded(field: Field, pads: Mapping[str, Sequence[int]], got: Shape) -> Field:
    spans = {
        axis: field.spans[axis].slid(1, before=pair[0], count=got[field.layout.index(axis)])
        for axis, pair in pads.items()
    }
    return field.with_spans(**spans)


@_rule(keras.layers.Cropping2D, keras.layers.Cropping3D)
def _cropping(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    (field,) = fields
    pads = {field.layout[1 + p]: (-pair[0], -pair[1]) for p, pair in enumerate(layer.cropping)}
    return _padded(field, pads, got)


@_rule(keras.layers.UpSampling2D, keras.layers.UpSampling3D)
def _upsampling(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    (field,) = fields
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return field.everywhere()
    times = {field.layout[1 + place]: int(size) for place, size in enumerate(layer.size)}
    return field.with_spans(**{a: field.spans[a].repeated(count) for a, count in times.items()})


@_rule(
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
def _global_pooling(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    axes = [name for name in fields[0].layout[1:-1] if name in AXES]
    return fields[0].merged(axes, keep=layer.keepdims)


@_rule(layers.SpatialPooling)
def _spatial_pooling(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].merged((HEIGHT, WIDTH))  # each cell is a channel


@_rule(layers.FramePooling)
def _frame_pooling(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].merged((TIME,))


@_rule(layers.FramesToChannels)
def _frames_to_channels(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].merged((TIME,))


@_rule(keras.layers.Flatten)
def _flatten(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].merged([name for name in fields[0].layout[1:] if name in AXES])


@_rule(keras.layers.Reshape)
def _reshape(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field | None:
    """Dimensions of 1 come and go; what else is not there any more is laid into the channels."""
    (field,) = fields
    kept: list[str] = []
    left = list(zip(field.layout[1:-1], given[1:-1], strict=True))
    for size in reversed(got[1:-1]):
        while left and left[-1][1] != size:
            left.pop()
        if not left:
            return None
        kept.insert(0, left.pop()[0])
    gone = [name for name in field.positions if name not in kept]
    if math.prod(given) != math.prod(got):
        return None
    merged = field.merged([name for name in gone if name != field.layout[0]])
    return merged.with_layout(field.layout[0], *kept, CHANNELS)


@_rule(layers.FoldTime)
def _fold_time(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].with_layout(*fields[0].layout[1:])


@_rule(layers.FoldWindows)
def _fold_windows(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    """Inside of the windows time begins at 0 again."""
    (field,) = fields
    window = field.spans[TIME].take(range(layer.num_frames))
    return field.with_layout(
        WINDOWS, *field.layout[1:], window=layer.num_frames, spans={**field.spans, TIME: window}
    )


@_rule(layers.UnfoldTime)
def _unfold_time(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field | None:
    (field,) = fields
    if field.layout[0] == TIME:
        return field.with_layout(BATCH, *field.layout)
    if field.layout[0] == BATCH and layer.num_frames == 1:  # behind FramesToChannels
        return field.with_layout(BATCH, TIME, *field.layout[1:])
    if field.layout[0] != WINDOWS or TIME in field.layout or field.window is None:
        return None
    inside, starts = field.spans[TIME], field.window * np.arange(layer.num_frames)
    span = Span(inside.low[0] + starts, inside.high[0] + starts, field.window)
    return field.with_layout(
        BATCH, TIME, *field.layout[1:], window=None, spans={**field.spans, TIME: span}
    )


@_rule(layers.RepeatFrames)
def _repeat_frames(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].with_spans(**{TIME: fields[0].spans[TIME].repeated(layer.count)})


@_rule(layers.LastFrame)
def _last_frame(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    field = fields[0].with_spans(**{TIME: fields[0].spans[TIME].take([given[1] - 1])})
    return field.with_layout(BATCH, *field.layout[2:])


@_rule(layers.MiddleFrame)
def _middle_frame(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return fields[0].with_spans(**{TIME: fields[0].spans[TIME].take([given[1] // 2])})


@_rule(layers.SlowFrames)
def _slow_frames(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    chosen = slow_indices(given[1], layer.alpha)
    return fields[0].with_spans(**{TIME: fields[0].spans[TIME].take(chosen)})


@_rule(layers.PerFrame, keras.layers.TimeDistributed)
def _per_frame(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field | None:
    (field,) = fields
    frame = field.with_layout(BATCH, *field.layout[2:])
    found = field_of(layer.layer, [frame], (1, *given[2:]), (1, *got[2:]))
    return None if found is None else found.with_layout(BATCH, TIME, *found.layout[1:])


@_rule(layers.ConvRNN, keras.layers.RNN)
def _recurrent(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    """All of the past; of maps a part that grows from step to step: it is the last frame's."""
    field = fields[0]
    if hasattr(layer.cell, "kernel_size"):
        field = _of_maps(layer.cell, field, given, got[-4:] if layer.return_sequences else got)
        # A gate on the state before its convolution sees by a convolution of its own.
        convolutions = 1 if getattr(layer.cell, "reset_after", True) else 2
        steps = (given[1] - 1) * convolutions
        for axis, size in zip((HEIGHT, WIDTH), layer.cell.kernel_size, strict=True):
            before = (size - 1) // 2
            grown = field.spans[axis].grown(steps * before, steps * (size - 1 - before))
            field = field.with_spans(**{axis: grown})
    span = field.spans[TIME]
    span = (
        span.merged(field.sizes[TIME], len(span))
        if layer.go_backwards
        else span.past(field.sizes[TIME])
    )
    field = field.with_spans(**{TIME: span})
    if layer.return_sequences:
        return field
    field = field.with_spans(**{TIME: span.take([given[1] - 1])})
    return field.with_layout(BATCH, *field.layout[2:])


def _of_maps(cell: Any, field: Field, given: Shape, got: Shape) -> Field:
    """The convolution of the input, frame by frame."""
    frames = field.with_layout(TIME, *field.layout[2:])
    frame = (1, *given[2:])
    found = _slid(
        frames, cell.kernel_size, cell.strides, cell.dilation_rate, cell.padding, frame,
        (1, *got[-3:]),
    )  # fmt: skip
    return found.with_layout(BATCH, *found.layout)


@_rule(keras.layers.Bidirectional)
def _both_ways(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    field = fields[0].with_spans(
        **{TIME: fields[0].spans[TIME].merged(fields[0].sizes[TIME], given[1])}
    )
    if layer.forward_layer.return_sequences:
        return field
    field = field.with_spans(**{TIME: field.spans[TIME].take([0])})
    return field.with_layout(BATCH, *field.layout[2:])


@_rule(layers.NonLocalBlock3D, keras.layers.MultiHeadAttention, keras.layers.Attention)
def _attention(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    return joined_fields(fields).everywhere()


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (int(value),) * rank if isinstance(value, int) else tuple(int(each) for each in value)


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
