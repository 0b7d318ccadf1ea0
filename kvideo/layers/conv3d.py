"""3D convolution that takes the fastest of its forms, forward and backward."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from kvideo.hardware import cpu_flags, use_xla
from kvideo.layers.conv3d_forms import (
    gradients_over_time,
    in_blocks,
    over_time_as_products,
    pointwise_gradients,
)

_WIDE = 1024  # input channels from which float32 products beat oneDNN's convolution over time
_THIN = 16  # channels that fill a matrix register: fewer are computed in blocks
_plain = False


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Inside the `with` block every convolution is traced as one operation: for export."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@keras.saving.register_keras_serializable("kvideo")
class Conv3D(keras.layers.Conv3D):
    """`keras.layers.Conv3D`: the same arguments, weights and numbers, faster on a CPU.

    - The gradient of a 1×1×1 or k×1×1 kernel is one matrix product. TensorFlow computes it as any
      convolution's, which takes up to twice as long, and with a stride of 2 in bfloat16 four to six
      times as long.
    - A k×1×1 convolution of very many channels in float32 is k matrix products.
    - Of a single frame only the kernel's middle is computed.
    - The first layer's, of few channels, works on blocks of pixels in bfloat16 where the processor
      has matrix registers (AMX).

    `benchmarks/NOTES.md` has the measurements.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T', H', W', filters).
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution without bias, in the form that suits its shape."""
        if _plain or use_xla() or self.groups > 1 or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        kernel = tf.convert_to_tensor(kernel)
        if self._is_thin(inputs):
            return in_blocks(inputs, kernel, frames=min(2, _THIN // self.filters))
        if self._is_pointwise():
            gradients = functools.partial(pointwise_gradients, steps=self.strides[1:])
            return _with_gradients(super().convolution_op, gradients)(inputs, kernel)
        if self._is_over_time():
            wide = inputs.shape[-1] >= _WIDE and inputs.dtype == tf.float32
            forward = over_time_as_products if wide else super().convolution_op
            return _with_gradients(forward, gradients_over_time)(inputs, kernel)
        if self._is_of_one_frame(inputs):
            middle = (kernel.shape[0] - 1) // 2
            return super().convolution_op(inputs, kernel[middle : middle + 1])
        return super().convolution_op(inputs, kernel)

    def _is_of_one_frame(self, inputs: Any) -> bool:
        """Whether all of the kernel but its middle only meets padding.

        Besides the work, this saves numbers: in bfloat16, with some numbers of channels, oneDNN
        then reads memory that nobody has written.
        """
        return (
            inputs.shape[1] == 1
            and self.kernel_size[0] > 1
            and self.dilation_rate[0] == 1
            and self.padding == "same"
        )

    def _is_dense(self) -> bool:
        return self.strides[0] == 1 and self.dilation_rate == (1, 1, 1)

    def _is_pointwise(self) -> bool:
        return self._is_dense() and self.kernel_size == (1, 1, 1)

    def _is_over_time(self) -> bool:
        column = self.kernel_size[1:] == self.strides[1:] == (1, 1)
        return self._is_dense() and column and self.padding == "same"

    def _is_thin(self, inputs: Any) -> bool:
        return (
            inputs.dtype == tf.bfloat16
            and "amx_bf16" in cpu_flags()
            and inputs.shape[-1] * 4 <= _THIN
            and self.filters <= _THIN
            and self._is_dense()
            and self.strides[1:] == (2, 2)
            and self.padding == "valid"
            and None not in inputs.shape[1:]
        )


def _with_gradients(forward: Any, gradients: Any) -> Any:
    """`forward`, a function of input and kernel, with the gradients that the other one gives."""

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        return forward(x, kernel), lambda upstream: gradients(x, kernel, upstream)

    return convolve


@keras.saving.register_keras_serializable("kvideo")
class ZeroPadding3D(keras.layers.ZeroPadding3D):
    """`keras.layers.ZeroPadding3D`, by another operation in training.

    TensorFlow's graph optimizer would merge the usual one with the convolution behind it, whose
    gradient needs it, and then gives up all that it merged in the graph (TensorFlow 2.21:
    "remapper failed"): batch norms and their ReLUs among others.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        (B, T', H', W', C).
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Zeros around time, height and width."""
        if not training:
            return super().call(inputs)
        return tf.raw_ops.PadV2(
            input=inputs,
            paddings=[(0, 0), *self.padding, (0, 0)],
            constant_values=tf.zeros((), inputs.dtype),
        )
