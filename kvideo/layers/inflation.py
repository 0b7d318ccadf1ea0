"""Layers that a 2D network needs when time comes in: see `kvideo.inflate`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvideo.errors import UsageError, check_choice
from kvideo.layers.depthwise import DepthwiseConv3D

Shape = tuple[int | None, ...]
Pair = tuple[int, int]

PADDINGS = ("zero", "edge")
POOLINGS = ("mean", "max")


@keras.saving.register_keras_serializable("kvideo")
class FramePadding(keras.layers.Layer):
    """Adds frames before and after a clip, for a convolution with `padding="valid"` to use up.

    Keras pads time with zeros only. A video that stands still keeps standing still when its first
    and last frames are repeated instead.

    Args:
        frames: how many are added before and after.
        mode: `"zero"`: black frames; `"edge"`: the first and the last frame again.
        same_for: None, or the sizes and strides ((kH, kW), (sH, sW)) of a convolution: the pictures
            then get the zeros around that TensorFlow's `"same"` gives for it. Of a dilated kernel
            the size from end to end.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, before + T + after, H', W', C).

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(
        self,
        frames: Pair,
        mode: str = "edge",
        same_for: tuple[Pair, Pair] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if len(frames) != 2 or min(frames) < 0:
            raise UsageError(f"frames must be two numbers of at least 0, not {frames!r}.")
        check_choice("mode", mode, PADDINGS)
        self.frames, self.mode = (int(frames[0]), int(frames[1])), mode
        self.same_for = None if same_for is None else tuple(tuple(pair) for pair in same_for)
        self.input_spec = keras.InputSpec(ndim=5)

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, before + T + after, H', W', C)."""
        shape, around = self.compute_output_shape(tuple(inputs.shape)), [(0, 0), (0, 0)]
        if self.same_for is not None:
            sizes = [
                known if known is not None else tf.shape(inputs)[axis]
                for axis, known in ((2, inputs.shape[2]), (3, inputs.shape[3]))
            ]
            around = [
                _same(size, kernel, stride, tf.maximum)
                for size, kernel, stride in zip(sizes, *self.same_for, strict=True)
            ]
        if self.mode == "edge":
            inputs = self._repeat_edges(inputs)
        outer = (0, 0) if self.mode == "edge" else self.frames
        # PadV2: where Pad stands before a convolution with a bias, TensorFlow's optimizer of
        # training graphs stumbles ("remapper failed").
        outputs = tf.raw_ops.PadV2(
            input=inputs,
            paddings=[(0, 0), outer, *around, (0, 0)],
            constant_values=tf.zeros((), inputs.dtype),
        )
        outputs.set_shape(shape)
        return outputs

    def _repeat_edges(self, x: tf.Tensor) -> tf.Tensor:
        """`tf.slice`, because the gradient of Python's slices is slow on a CPU."""
        before, after = self.frames
        if before == after == 1:  # mirroring one frame is repeating it
            return tf.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)], "SYMMETRIC")
        last = tf.shape(x)[1] - 1 if x.shape[1] is None else x.shape[1] - 1
        first_frame = tf.slice(x, [0, 0, 0, 0, 0], [-1, 1, -1, -1, -1])
        last_frame = tf.slice(x, [0, last, 0, 0, 0], [-1, 1, -1, -1, -1])
        return tf.concat([first_frame] * before + [x] + [last_frame] * after, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, before + T + after, H', W', C)."""
        batch, time, *picture, channels = input_shape
        before, after = self.frames
        if self.same_for is not None:
            for axis, (size, kernel, stride) in enumerate(
                zip(picture, *self.same_for, strict=True)
            ):
                if size is not None:
                    picture[axis] = size + sum(_same(size, kernel, stride, max))
        return (batch, None if time is None else before + time + after, *picture, channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        same_for = self.same_for
        return {
            **super().get_config(),
            "frames": list(self.frames),
            "mode": self.mode,
            "same_for": None if same_for is None else [list(pair) for pair in same_for],
        }


def _same(size: Any, kernel: int, stride: int, larger: Any) -> tuple[Any, Any]:
    """Zeros before and after, as TensorFlow's "SAME" has them."""
    total = larger((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@keras.saving.register_keras_serializable("kvideo")
class FramePooling(keras.layers.Layer):
    """Mean or maximum over time.

    Args:
        mode: `"mean"` or `"max"`.

    Input shape:
        (B, T, ...).

    Output shape:
        (B, ...).

    Raises:
        UsageError: unknown `mode`.
    """

    def __init__(self, mode: str = "mean", **options: Any) -> None:
        super().__init__(**options)
        check_choice("mode", mode, POOLINGS)
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        """(B, T, ...) -> (B, ...)."""
        return ops.mean(inputs, axis=1) if self.mode == "mean" else ops.max(inputs, axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, ...)."""
        return (input_shape[0], *input_shape[2:])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable("kvideo")
class PerFrame(keras.layers.Wrapper):
    """Runs a layer for pictures on each frame by itself, all frames as one batch.

    `keras.layers.TimeDistributed` does the same with a loop over the frames, which is slower.

    Args:
        layer: any layer of one input and one output.

    Input shape:
        (B, T, ...), where the layer takes (B, ...).

    Output shape:
        (B, T, ...).
    """

    def build(self, input_shape: Shape) -> None:
        """Builds the layer for single frames."""
        super().build((None, *input_shape[2:]))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(B, T, ...) -> (B, T, ...)."""
        options = {"training": training} if self.layer._call_has_training_arg else {}
        frames = ops.shape(inputs)[1]
        outputs = self.layer(ops.reshape(inputs, (-1, *ops.shape(inputs)[2:])), **options)
        return ops.reshape(outputs, (-1, frames, *ops.shape(outputs)[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T, ...)."""
        frame = keras.KerasTensor((None, *input_shape[2:]), dtype=self.compute_dtype)
        return (*input_shape[:2], *self.layer.compute_output_spec(frame).shape[1:])

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply-adds of one call: the layer's, for all frames."""
        from kvideo.analysis import layer_macs

        given, got = ((shape[0] * shape[1], *shape[2:]) for shape in (input_shape, output_shape))
        return layer_macs(self.layer, given, got)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> PerFrame:
        """The layer of a configuration, which is left as it is."""
        return super().from_config(dict(config), custom_objects)


@keras.saving.register_keras_serializable("kvideo")
class GroupedConv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D` with `groups`, as one convolution for each group.

    TensorFlow has no grouped 3D convolution on a CPU, so that Keras compiles it with XLA, which is
    many times slower there. Arguments, weights and outputs are those of `Conv3D`.

    Input shape:
        (B, T, H, W, C); C is a multiple of `groups`.

    Output shape:
        (B, T', H', W', filters).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """(B, T, H, W, C) -> (B, T', H', W', filters), without bias."""
        inputs_of, kernels_of = (ops.split(x, self.groups, axis=-1) for x in (inputs, kernel))
        convolve = super().convolution_op
        return ops.concatenate(
            [convolve(x, part) for x, part in zip(inputs_of, kernels_of, strict=True)], axis=-1
        )


@keras.saving.register_keras_serializable("kvideo")
class EdgeConv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D` whose first and last frames stand before and after the clip.

    Where Keras would put black frames. Only what the black frames lack is added to the outputs at
    the ends, which costs a few 2D convolutions; a longer clip would cost two copies of it.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T, H', W', filters).

    Raises:
        UsageError: there is a stride or a dilation in time, or `padding` is not `"same"`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"padding": "same", **options})
        if self.strides[0] > 1 or self.dilation_rate[0] > 1 or self.padding != "same":
            raise UsageError(
                'EdgeConv3D has padding="same", no stride in time, no dilation in time.'
            )

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """(B, T, H, W, C) -> (B, T, H', W', filters), without bias."""
        outputs, taps = super().convolution_op(inputs, kernel), self.kernel_size[0]
        frames = inputs.shape[1] or tf.shape(inputs)[1]
        before, after = (taps - 1) // 2, taps // 2
        # Output t misses the first `before - t` taps, t frames before the last the last ones.
        missing = [kernel[: before - t] for t in range(before)]
        parts = [outputs, self._ends(_frame(inputs, 0), missing, frames, first=True)]
        missing = [kernel[taps - after + t :] for t in range(after)]
        parts.append(self._ends(_frame(inputs, frames - 1), missing, frames, first=False))
        return tf.add_n([part for part in parts if part is not None])

    def _ends(self, frame: Any, kernels: list[Any], frames: Any, first: bool) -> Any:
        """What a frame, repeated outside, adds to each output of that end; zeros elsewhere."""
        if isinstance(frames, int):
            kernels = kernels[:frames]
        if not kernels:
            return None
        ends = [
            ops.conv(
                frame,
                ops.sum(kernel, axis=0),
                strides=list(self.strides[1:]),
                padding="same",
                dilation_rate=self.dilation_rate[1:],
                data_format="channels_last",
            )
            for kernel in (kernels if first else reversed(kernels))
        ]
        zeros = frames - len(ends)
        widths = [0, zeros] if first else [zeros, 0]
        return tf.pad(tf.stack(ends, axis=1), [[0, 0], widths, [0, 0], [0, 0], [0, 0]])


@keras.saving.register_keras_serializable("kvideo")
class EdgeDepthwiseConv3D(DepthwiseConv3D):
    """`DepthwiseConv3D` whose first and last frames stand before and after the clip.

    `padding` is that of height and width; time keeps its length.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T, H', W', C * depth_multiplier).

    Raises:
        UsageError: there is a stride in time.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.strides[0] > 1:
            raise UsageError("EdgeDepthwiseConv3D has no stride in time.")

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, T, H', W', C * depth_multiplier)."""
        kernel, before = ops.convert_to_tensor(self.kernel), (self.kernel_size[0] - 1) // 2
        frames = inputs.shape[1] or tf.shape(inputs)[1]
        outputs = tf.add_n(
            [
                _held(self._each_frame(inputs, kernel[tap]), tap - before, frames)
                for tap in range(self.kernel_size[0])
            ]
        )
        if self.bias is not None:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, T, H', W', C * depth_multiplier)."""
        batch, _, *rest = super().compute_output_shape(input_shape)
        return (batch, input_shape[1], *rest)


def _frame(x: tf.Tensor, index: Any) -> tf.Tensor:
    """(B, T, ...) -> (B, ...). The gradient of Python's slices is slow on a CPU."""
    return tf.squeeze(tf.slice(x, [0, index, 0, 0, 0], [-1, 1, -1, -1, -1]), axis=1)


def _held(x: tf.Tensor, shift: int, frames: Any) -> tf.Tensor:
    """Frame t is frame t + shift of `x`, or the first or last one where there is none."""
    if isinstance(frames, int):
        shift = max(-frames, min(shift, frames))
    if shift == 0:
        return x
    kept = tf.slice(x, [0, max(shift, 0), 0, 0, 0], [-1, frames - abs(shift), -1, -1, -1])
    edge = _frame(x, 0 if shift < 0 else frames - 1)[:, None]
    return tf.concat([edge] * -shift + [kept] + [edge] * shift, axis=1)
