"""3D convolution of each channel by itself, in the form that is fastest on a CPU."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvideo.errors import UsageError, check_choice

Triple = tuple[int, int, int]
_PADDINGS = ("same", "valid")


@keras.saving.register_keras_serializable("kvideo")
class DepthwiseConv3D(keras.layers.Layer):
    """Depthwise convolution over time, height and width.

    Keras has none, and TensorFlow's grouped 3D convolution goes through XLA on a CPU. Here one
    3D kernel is the sum of kT depthwise 2D convolutions, each of another frame; a kernel over time
    alone is one 2D convolution of a view whose height is time.

    Args:
        kernel_size: one size, or (T, H, W).
        strides: one stride, or (T, H, W); those of height and width are equal.
        padding: `"same"` (as TensorFlow pads) or `"valid"`.
        depth_multiplier: outputs for each input channel.
        use_bias: whether a bias is added.
        activation: a Keras activation, or None.
        depthwise_initializer: of the kernel.
        depthwise_regularizer: of the kernel.
        bias_initializer: of the bias.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T', H', W', C * depth_multiplier). Weights: `kernel` (kT, kH, kW, C, depth_multiplier)
        and `bias`.

    Raises:
        UsageError: an argument is out of its range.
    """

    def __init__(
        self,
        kernel_size: int | Triple,
        strides: int | Triple = 1,
        padding: str = "same",
        depth_multiplier: int = 1,
        use_bias: bool = True,
        activation: Any = None,
        depthwise_initializer: Any = "glorot_uniform",
        depthwise_regularizer: Any = None,
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.kernel_size = _triple("kernel_size", kernel_size)
        self.strides = _triple("strides", strides)
        if self.strides[1] != self.strides[2]:
            raise UsageError(
                f"strides of height and width must be equal here, not {self.strides[1:]}."
            )
        check_choice("padding", padding, _PADDINGS)
        self.padding, self.depth_multiplier, self.use_bias = padding, depth_multiplier, use_bias
        self.activation = keras.activations.get(activation)
        self.depthwise_initializer = keras.initializers.get(depthwise_initializer)
        self.depthwise_regularizer = keras.regularizers.get(depthwise_regularizer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.input_spec = keras.InputSpec(ndim=5)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes kernel and bias."""
        channels = input_shape[-1]
        if channels is None:
            raise UsageError("DepthwiseConv3D must know the number of channels.")
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.depth_multiplier),
            initializer=self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self.bias = None
        if self.use_bias:
            outputs = channels * self.depth_multiplier
            self.bias = self.add_weight(
                name="bias", shape=(outputs,), initializer=self.bias_initializer
            )

    def call(self, inputs: Any) -> Any:
        """(B, T, H, W, C) -> (B, T', H', W', C * depth_multiplier)."""
        kernel = ops.convert_to_tensor(self.kernel)
        if self.kernel_size[1:] == (1, 1) and self.strides == (1, 1, 1):
            outputs = self._over_time(inputs, kernel)
        elif self.strides[0] == 1:
            outputs = self._sum_of_shifted(inputs, kernel)
        else:
            outputs = self._sum_of_chosen(inputs, kernel)
        if self.bias is not None:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return self.activation(outputs)

    def _over_time(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Time as height, height and width as width: one 2D convolution."""
        frames, height, width, channels = x.shape[1:]
        frames, height, width = _known(x, frames, height, width)
        view = tf.reshape(x, [-1, frames, height * width, channels])
        y = tf.nn.depthwise_conv2d(view, kernel[:, 0], [1, 1, 1, 1], self.padding.upper())
        after = frames if self.padding == "same" else frames - self.kernel_size[0] + 1
        return tf.reshape(y, [-1, after, height, width, y.shape[-1]])

    def _sum_of_shifted(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Every tap's 2D convolution of all frames, shifted in time and added.

        `tf.slice`, because the gradient of Python's slices is ten times slower on a CPU.
        """
        taps = self.kernel_size[0]
        frames = _known(x, x.shape[1])[0]
        before, after = _padding(taps, 1, frames, self.padding)
        count = frames + before + after - taps + 1
        # Output t takes the input's frame t + tap - before.
        return tf.add_n(
            [_shifted(self._each_frame(x, kernel[tap]), tap - before, count) for tap in range(taps)]
        )

    def _sum_of_chosen(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """With a stride in time: each tap's 2D convolution of the frames that it meets."""
        taps, stride = self.kernel_size[0], self.strides[0]
        frames = _known(x, x.shape[1])[0]
        before, after = _padding(taps, stride, frames, self.padding)
        count = (frames + before + after - taps) // stride + 1
        spare = taps + stride  # so that reshaping to whole strides never lacks a frame
        padded = tf.pad(x, [[0, 0], [before, after + spare], [0, 0], [0, 0], [0, 0]])
        shape, parts = tf.shape(padded), []
        for tap in range(taps):
            part = tf.slice(padded, [0, tap, 0, 0, 0], [-1, count * stride, -1, -1, -1])
            part = tf.reshape(part, [shape[0], count, stride * shape[2], shape[3], x.shape[-1]])
            part = tf.slice(part, [0, 0, 0, 0, 0], [-1, -1, shape[2], -1, -1])
            part.set_shape([x.shape[0], None, *x.shape[2:]])
            parts.append(self._each_frame(part, kernel[tap]))
        total = tf.add_n(parts)
        total.set_shape(self.compute_output_shape(x.shape))
        return total

    def _each_frame(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """(B, T, H, W, C) -> (B, T, H', W', C'), by one 2D convolution."""
        frames, height, width = _known(x, *x.shape[1:4])
        pictures = tf.reshape(x, [-1, height, width, x.shape[-1]])
        stride = self.strides[1]
        y = tf.nn.depthwise_conv2d(pictures, kernel, [1, stride, stride, 1], self.padding.upper())
        return tf.reshape(y, [-1, frames, *_known(y, *y.shape[1:3]), y.shape[-1]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T', H', W', C * depth_multiplier)."""
        batch, *sizes, channels = input_shape
        after = [
            None if size is None else _length(size, kernel, stride, self.padding)
            for size, kernel, stride in zip(sizes, self.kernel_size, self.strides, strict=True)
        ]
        return (batch, *after, None if channels is None else channels * self.depth_multiplier)

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply-adds of one call."""
        total = 1
        for size in (*output_shape, *self.kernel_size):
            total *= size
        return total

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "depth_multiplier": self.depth_multiplier,
            "use_bias": self.use_bias,
            "activation": keras.activations.serialize(self.activation),
            "depthwise_initializer": keras.initializers.serialize(self.depthwise_initializer),
            "depthwise_regularizer": keras.regularizers.serialize(self.depthwise_regularizer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _triple(name: str, value: int | Triple) -> Triple:
    values = (value,) * 3 if isinstance(value, int) else tuple(int(each) for each in value)
    if len(values) != 3 or min(values) < 1:
        raise UsageError(f"{name} must be one number or three of at least 1, not {value!r}.")
    return values


def _known(x: tf.Tensor, *sizes: int | None) -> list[Any]:
    """Sizes of axes 1, 2 …: plain where known, else read at run time."""
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(sizes, start=1)]


def _length(size: int, kernel: int, stride: int, padding: str) -> int:
    return -(-size // stride) if padding == "same" else (size - kernel) // stride + 1


def _padding(kernel: int, stride: int, size: Any, padding: str) -> tuple[Any, Any]:
    """Zeros before and after, as TensorFlow's "SAME" has them."""
    if padding == "valid":
        return 0, 0
    if stride == 1:
        return (kernel - 1) // 2, kernel // 2
    total = tf.maximum((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _shifted(y: tf.Tensor, shift: int, count: Any) -> tf.Tensor:
    """(B, count, …): frame t is `y`'s frame t + shift, or zero outside."""
    frames = _known(y, y.shape[1])[0]
    first = max(shift, 0)
    last = (
        tf.minimum(count + shift, frames)
        if not _plain(count, frames)
        else min(count + shift, frames)
    )
    ahead = max(-shift, 0)
    kept = tf.slice(y, [0, first, 0, 0, 0], [-1, last - first, -1, -1, -1])
    behind = count - ahead - (last - first)
    if _plain(behind) and ahead == behind == 0:
        return kept
    return tf.pad(kept, [[0, 0], [ahead, behind], [0, 0], [0, 0], [0, 0]])


def _plain(*sizes: Any) -> bool:
    return all(isinstance(size, int) for size in sizes)
