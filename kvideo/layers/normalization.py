"""Batch norm: fused where that is fast, exact and synchronized where runs must agree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_LANES = 16  # bfloat16 values at once; oneDNN's batch norm crawls where channels do not fill them
_PICTURES = "_kvideo_pictures"  # the attribute of a tensor that holds its 4D view
_exact = False


def use_exact_statistics(exact: bool) -> None:
    """Sets, for graphs traced from now on, how a single device takes batch statistics.

    Args:
        exact: True takes the means in two stages, right to six digits, as several devices always
            do; then one device and several give the same numbers. False takes TensorFlow's fused
            kernel, right to about four digits and two to three times faster.
    """
    global _exact
    _exact = exact


@contextlib.contextmanager
def exact_statistics() -> Iterator[None]:
    """As `use_exact_statistics(True)`, inside a `with` block."""
    before = _exact
    use_exact_statistics(True)
    try:
        yield
    finally:
        use_exact_statistics(before)


@keras.saving.register_keras_serializable("kvideo")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization over all axes but the last, in float32, synchronized over devices.

    The same numbers, arguments and four variables as `keras.layers.BatchNormalization` with
    `synchronized=True`; moving averages take the biased variance, as Keras's do. What differs is
    the way.

    On one device TensorFlow's fused kernel runs on a 4D view of the input, with time in the batch:
    one pass where Keras makes five. Inputs in bfloat16 keep their type but for widths that the
    kernel is slow for on a CPU.

    On several devices, and after `use_exact_statistics(True)`, each mean is taken over height and
    width first and then over the rest, forward and backward. A clip has millions of positions, and
    a plain float32 sum over them is wrong in the fourth digit, in another way for another batch
    size; in two stages it keeps six, so that two devices with half a batch each train like one
    with the whole batch.

    Input shape:
        (B, ..., C).

    Output shape:
        The same.

    References:
        Ioffe & Szegedy 2015, "Batch Normalization".
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("synchronized", True)
        super().__init__(**options)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes; with `training`, by the batch's statistics, which it also notes.

        Raises:
            ValueError: a mask came; padded clips are not supported.
        """
        if mask is not None:
            raise ValueError("kvideo's BatchNorm takes no mask.")
        channels = inputs.shape[-1]
        gamma = self.gamma.value if self.scale else tf.ones((channels,), tf.float32)
        beta = self.beta.value if self.center else tf.zeros((channels,), tf.float32)
        gamma, beta = tf.cast(gamma, tf.float32), tf.cast(beta, tf.float32)
        if not (training and self.trainable):
            return self._by_moving_statistics(inputs, gamma, beta)
        if _exact or _num_devices() > 1:
            outputs, mean, variance = _normalize_exactly(inputs, gamma, beta, self.epsilon)
        else:
            outputs, mean, variance = _normalize_fused(inputs, gamma, beta, self.epsilon)
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + tf.stop_gradient(mean) * (1.0 - keep))
        self.moving_variance.assign(
            self.moving_variance * keep + tf.stop_gradient(variance) * (1.0 - keep)
        )
        return outputs

    def _by_moving_statistics(self, inputs: Any, gamma: Any, beta: Any) -> Any:
        mean = tf.cast(self.moving_mean.value, tf.float32)
        variance = tf.cast(self.moving_variance.value, tf.float32)
        view = _as_pictures(inputs)
        if _fused_dtype(view) != view.dtype:  # two operations, but in the input's type
            factor = gamma * tf.math.rsqrt(variance + self.epsilon)
            offset = beta - mean * factor
            return inputs * tf.cast(factor, inputs.dtype) + tf.cast(offset, inputs.dtype)
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=view,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=False,
        )[0]
        return _shaped_like(outputs, inputs)


@keras.saving.register_keras_serializable("kvideo")
class ReLU(keras.layers.ReLU):
    """`keras.layers.ReLU` that in training becomes one operation with the batch norm before it.

    TensorFlow fuses the two on a CPU only where nothing stands between them. The 5D view that
    `BatchNorm` returns does; so this layer looks for the 4D one behind it.

    Input shape:
        Any.

    Output shape:
        The same.
    """

    def call(self, inputs: Any) -> Any:
        """The positive part."""
        pictures = getattr(inputs, _PICTURES, None)
        if pictures is None:
            return super().call(inputs)
        return _shaped_like(super().call(pictures), inputs)


def _as_pictures(x: tf.Tensor) -> tf.Tensor:
    """The 4D view that the fused kernel wants: (B, T, H, W, C) -> (B*T, H, W, C)."""
    sizes = [size if size is not None else tf.shape(x)[i] for i, size in enumerate(x.shape)]
    while len(sizes) < 4:
        sizes.insert(1, 1)
    return tf.reshape(x, [-1, *sizes[-3:]])


def _shaped_like(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    shaped = tf.reshape(x, tf.shape(like))
    shaped.set_shape(like.shape)
    return shaped


def _fused_dtype(x: tf.Tensor) -> tf.DType:
    """The type in which the fused kernel is fastest for this input."""
    if x.dtype not in (tf.float32, tf.bfloat16, tf.float16):
        return tf.float32
    narrow = x.dtype != tf.float32 and x.shape[-1] % _LANES
    return tf.float32 if narrow and not tf.config.list_physical_devices("GPU") else x.dtype


def _normalize_fused(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Outputs, mean and (biased) variance of the batch by TensorFlow's kernel."""
    view = _as_pictures(inputs)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.cast(view, _fused_dtype(view)),
        scale=gamma,
        offset=beta,
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(view) // view.shape[-1], tf.float32)
    variance *= (count - 1.0) / count  # the kernel's is unbiased
    outputs = tf.cast(outputs, inputs.dtype)
    shaped = _shaped_like(outputs, inputs)
    setattr(shaped, _PICTURES, outputs)
    return shaped, mean, variance


def _normalize_exactly(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Outputs, mean and variance of a batch, the last two over all devices."""

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        dtype, x = x.dtype, tf.cast(x, tf.float32)
        mean, variance = _moments(x)
        inverse = tf.math.rsqrt(variance + epsilon)
        outputs = tf.raw_ops.FusedBatchNormV3(  # in one pass
            x=_as_pictures(x),
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=epsilon,
            is_training=False,
        )[0]

        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            upstream = tf.cast(upstream, tf.float32)
            normed = (x - mean) * inverse
            local = tf.stack([_local_mean(upstream), _local_mean(upstream * normed)])
            count = tf.cast(tf.size(upstream), tf.float32) / upstream.shape[-1]
            shared = tf.reduce_mean(_of_all_devices(local), axis=0)
            inner = upstream - shared[0] - normed * shared[1]
            return tf.cast(gamma * inverse * inner, dtype), local[1] * count, local[0] * count

        return (tf.cast(_shaped_like(outputs, x), dtype), mean, variance), gradient

    return normalize(inputs, gamma, beta)


def _moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(C,) mean and (biased) variance over all axes but the last, of all devices."""
    mean = _local_mean(x)
    variance = _local_mean(tf.math.squared_difference(x, mean))
    means, variances = tf.unstack(_of_all_devices(tf.stack([mean, variance])), axis=1)
    mean = tf.reduce_mean(means, axis=0)
    return mean, tf.reduce_mean(variances + tf.math.squared_difference(means, mean), axis=0)


def _local_mean(x: tf.Tensor) -> tf.Tensor:
    """(C,) mean over all axes but the last, in stages: the inner ones first."""
    while x.shape.rank > 3:
        x = tf.reduce_mean(x, axis=[-3, -2])
    return tf.reduce_mean(x, axis=list(range(x.shape.rank - 1)))


def _num_devices() -> int:
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _of_all_devices(local: tf.Tensor) -> tf.Tensor:
    """(devices, ...) what each device has; every one holds the same number of clips."""
    devices = _num_devices()
    if devices == 1:
        return local[tf.newaxis]
    context = tf.distribute.get_replica_context()
    own = tf.one_hot(context.replica_id_in_sync_group, devices)
    rows = tf.tensordot(own, local, axes=0)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
