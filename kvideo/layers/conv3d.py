"""3D convolution whose weights' gradient takes the fastest of its forms."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kvideo")
class Conv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D`: the same arguments, weights and numbers, faster to train.

    The gradient of a 1×1×1 kernel is one matrix product of the input and the output's gradient,
    and that of a k×1×1 kernel is k of them. TensorFlow computes them as any convolution's, which on
    a CPU takes up to twice as long, and with a stride of 2 in bfloat16 four to six times as long.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T', H', W', filters).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution without bias; some kernels have a gradient of their own."""
        if not (self._is_pointwise() or self._is_over_time()):
            return super().convolution_op(inputs, kernel)
        plain = super().convolution_op
        gradients = self._pointwise_gradients if self._is_pointwise() else self._gradients_over_time

        @tf.custom_gradient
        def convolve(x: tf.Tensor, kernel: tf.Tensor) -> Any:
            return plain(x, kernel), lambda upstream: gradients(x, kernel, upstream)

        return convolve(inputs, tf.convert_to_tensor(kernel))

    def _is_plain(self) -> bool:
        return (
            self.groups == 1
            and self.data_format == "channels_last"
            and self.strides[0] == 1
            and self.dilation_rate == (1, 1, 1)
        )

    def _is_pointwise(self) -> bool:
        return self._is_plain() and self.kernel_size == (1, 1, 1)

    def _is_over_time(self) -> bool:
        column = self.kernel_size[1:] == self.strides[1:] == (1, 1)
        return self._is_plain() and column and self.padding == "same"

    def _pointwise_gradients(
        self, x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Those of the input and of the kernel."""
        steps = self.strides[1:]
        seen = _every(x, steps)  # the positions that the kernel meets
        of_outputs = _rows(upstream)
        of_seen = tf.matmul(of_outputs, kernel[0, 0, 0], transpose_b=True)
        of_kernel = tf.matmul(_rows(seen), of_outputs, transpose_a=True)
        of_seen = tf.reshape(of_seen, tf.shape(seen))
        return _spread(of_seen, tf.shape(x), steps), tf.reshape(of_kernel, kernel.shape)

    def _gradients_over_time(
        self, x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Those of the input and of the kernel."""
        of_x = tf.raw_ops.Conv3DBackpropInputV2(
            input_sizes=tf.shape(x),
            filter=kernel,
            out_backprop=upstream,
            strides=[1] * 5,
            padding="SAME",
        )
        taps = self.kernel_size[0]
        before = (taps - 1) // 2
        of_taps = [
            tf.matmul(
                _rows(_frames(x, tap - before)),
                _rows(_frames(upstream, before - tap)),
                transpose_a=True,
            )
            for tap in range(taps)
        ]
        return of_x, tf.reshape(tf.stack(of_taps), kernel.shape)


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(B, T, H, W, C) -> (B*T*H*W, C)."""
    return tf.reshape(x, [-1, x.shape[-1]])


def _frames(x: tf.Tensor, shift: int) -> tf.Tensor:
    """`x` without its first `shift` frames, or without its last ones where `shift` is negative.

    With more frames to leave out than there are, none is left.
    """
    if shift == 0:
        return x
    count = tf.shape(x)[1]
    first = tf.minimum(max(shift, 0), count)
    kept = tf.maximum(count - abs(shift), 0)
    return tf.slice(x, [0, first, 0, 0, 0], [-1, kept, -1, -1, -1])


def _every(x: tf.Tensor, steps: tuple[int, int]) -> tf.Tensor:
    """(B, T, H, W, C) -> (B, T, ceil(H/s), ceil(W/s), C): every s-th row and column.

    By reshaping and `tf.slice`: TensorFlow's strided slices are several times slower.
    """
    if steps == (1, 1):
        return x
    batch, frames, height, width, channels = tf.unstack(tf.shape(x))
    rows, columns = -(-height // steps[0]), -(-width // steps[1])
    if _may_be_odd(x.shape, steps):
        spare = [rows * steps[0] - height, columns * steps[1] - width]
        x = tf.pad(x, [[0, 0], [0, 0], [0, spare[0]], [0, spare[1]], [0, 0]])
    shape = [batch * frames * rows, steps[0], columns, steps[1] * channels]
    x = tf.slice(tf.reshape(x, shape), [0] * 4, [-1, 1, -1, channels])
    return tf.reshape(x, [batch, frames, rows, columns, channels])


def _spread(x: tf.Tensor, shape: tf.Tensor, steps: tuple[int, int]) -> tf.Tensor:
    """The gradient of `_every`: (B, T, H, W, C) of that shape, zero in between."""
    if steps == (1, 1):
        return x
    batch, frames, rows, columns, channels = tf.unstack(tf.shape(x))
    flat = tf.reshape(x, [batch * frames * rows, 1, columns, channels])
    wide = tf.pad(flat, [[0, 0], [0, steps[0] - 1], [0, 0], [0, (steps[1] - 1) * channels]])
    wide = tf.reshape(wide, [batch, frames, rows * steps[0], columns * steps[1], channels])
    return tf.slice(wide, [0] * 5, shape)


def _may_be_odd(shape: tf.TensorShape, steps: tuple[int, int]) -> bool:
    sizes = zip(shape[2:4], steps, strict=True)
    return any(size is None or size % step for size, step in sizes)
