"""Operations said with others, for formats that lack them; the numbers stay the same.

LiteRT's plain interpreter has no 3D pools. A 3D pool is two 2D pools: over height and width of
every frame, then over time, on a view whose height is time. For an average at the rim, where a
window is partly filled, this holds as well: how many positions it covers is a product of how many
it covers along each axis.

LiteRT has a 3D convolution, but a slow one, and phones' accelerators have none. A 3D convolution is
a sum of 2D ones, one for each frame of its kernel; along time alone it is one, of the same view.
That is 1.3 times (R3D-18) to 1.7 times (SlowFast) as fast on a CPU, and takes less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from kvideo.exporting.graph import Rewrite

Attributes = Mapping[str, Any]


def max_pool_3d(attributes: Attributes, x: tf.Tensor) -> tf.Tensor | None:
    """`MaxPool3D` by 2D pools."""
    return _pool_3d(tf.nn.max_pool2d, attributes, x)


def average_pool_3d(attributes: Attributes, x: tf.Tensor) -> tf.Tensor | None:
    """`AvgPool3D` by 2D pools."""
    return _pool_3d(tf.nn.avg_pool2d, attributes, x)


def conv_3d(attributes: Attributes, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor | None:
    """`Conv3D` by 2D convolutions; kernel (kT, kH, kW, C, F)."""
    if not _fixed(x) or not kernel.shape.is_fully_defined() or kernel.shape[3] != x.shape[4]:
        return None  # unknown sizes, or groups
    (step, *steps), (rate, *rates) = _sizes(attributes, "strides"), _sizes(attributes, "dilations")
    padding = _padding(attributes)
    taps, height, width, channels, filters = kernel.shape
    if (height, width, *steps) == (1, 1, 1, 1):
        weights = tf.reshape(kernel, (taps, 1, channels, filters))
        return _along_time(
            x, lambda y: tf.nn.conv2d(y, weights, (step, 1), padding, dilations=(rate, 1))
        )
    reach = (taps - 1) * rate
    before, after = _rims(x.shape[1], reach + 1, step) if padding == "SAME" else (0, 0)
    count = (x.shape[1] + before + after - reach - 1) // step + 1
    if before or after:
        x = tf.pad(x, ((0, 0), (before, after), (0, 0), (0, 0), (0, 0)))

    def part(tap: int) -> tf.Tensor:
        first, last = tap * rate, tap * rate + (count - 1) * step
        seen = x if (count, step) == (x.shape[1], 1) else x[:, first : last + 1 : step]
        return _each_frame(
            seen, lambda y: tf.nn.conv2d(y, kernel[tap], steps, padding, dilations=rates)
        )

    total = part(0)
    for tap in range(1, taps):
        total += part(tap)
    return total


def erfc(_: Attributes, x: tf.Tensor) -> tf.Tensor:
    """`Erfc`, of the exact GELU, by `Erf`."""
    return 1.0 - tf.math.erf(x)


LITERT: dict[str, Rewrite] = {
    "MaxPool3D": max_pool_3d,
    "AvgPool3D": average_pool_3d,
    "Conv3D": conv_3d,
}
ONNX: dict[str, Rewrite] = {"Erfc": erfc}


def _pool_3d(pool: Callable[..., Any], attributes: Attributes, x: tf.Tensor) -> tf.Tensor | None:
    if not _fixed(x):
        return None
    (size, *sizes), (step, *steps) = _sizes(attributes, "ksize"), _sizes(attributes, "strides")
    padding = _padding(attributes)
    if (*sizes, *steps) != (1, 1, 1, 1):
        x = _each_frame(x, lambda y: pool(y, sizes, steps, padding))
    if (size, step) != (1, 1):
        x = _along_time(x, lambda y: pool(y, (size, 1), (step, 1), padding))
    return x


def _each_frame(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Every frame through a function of (B, H, W, C)."""
    frames, height, width, channels = x.shape[1:]
    y = function(tf.reshape(x, (-1, height, width, channels)))
    return tf.reshape(y, (-1, frames, *y.shape[1:]))


def _along_time(x: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """A function of (B, H, W, C) along time: H is time, W is every place of the picture."""
    frames, height, width, channels = x.shape[1:]
    y = function(tf.reshape(x, (-1, frames, height * width, channels)))
    return tf.reshape(y, (-1, y.shape[1], height, width, y.shape[3]))


def _rims(size: int, window: int, step: int) -> tuple[int, int]:
    """Zeros before and after that TensorFlow's "SAME" adds."""
    total = max((-(-size // step) - 1) * step + window - size, 0)
    return total // 2, total - total // 2


def _padding(attributes: Attributes) -> str:
    return attributes["padding"].s.decode()


def _sizes(attributes: Attributes, name: str) -> list[int]:
    """(T, H, W) of an attribute for (B, T, H, W, C)."""
    return list(attributes[name].list.i)[1:4]


def _fixed(x: tf.Tensor) -> bool:
    """Whether all sizes but the batch's are known."""
    return x.shape[1:].is_fully_defined()
