"""Batch norm whose statistics are those of all devices, and exact enough to prove it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kvideo")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization over all axes but the last, in float32, synchronized over devices.

    The same numbers, arguments and four variables as `keras.layers.BatchNormalization` with
    `synchronized=True`. What differs is how the means are taken. A clip has millions of
    positions, and a plain float32 sum over them is wrong in the fourth digit, in another way for
    another batch size. Here each mean is taken over height and width first and then over the
    rest, forward and backward, which keeps six digits: two devices with half a batch each train
    like one with the whole batch.

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
            mean = tf.cast(self.moving_mean.value, tf.float32)
            variance = tf.cast(self.moving_variance.value, tf.float32)
            factor = gamma * tf.math.rsqrt(variance + self.epsilon)
            offset = beta - mean * factor
            return inputs * tf.cast(factor, inputs.dtype) + tf.cast(offset, inputs.dtype)
        outputs, mean, variance = _normalize(inputs, gamma, beta, self.epsilon)
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + tf.stop_gradient(mean) * (1.0 - keep))
        self.moving_variance.assign(
            self.moving_variance * keep + tf.stop_gradient(variance) * (1.0 - keep)
        )
        return outputs


def _normalize(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Outputs, mean and variance of a batch, the last two over all devices."""

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        dtype, x = x.dtype, tf.cast(x, tf.float32)
        mean = _mean(x)
        centred = x - mean
        variance = _mean(centred * centred)
        inverse = tf.math.rsqrt(variance + epsilon)
        normed = centred * inverse

        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            upstream = tf.cast(upstream, tf.float32)
            local = tf.stack([_local_mean(upstream), _local_mean(upstream * normed)])
            count = tf.cast(tf.size(upstream), tf.float32) / upstream.shape[-1]
            shared = _over_devices(local)
            inner = upstream - shared[0] - normed * shared[1]
            return tf.cast(gamma * inverse * inner, dtype), local[1] * count, local[0] * count

        return (tf.cast(normed * gamma + beta, dtype), mean, variance), gradient

    return normalize(inputs, gamma, beta)


def _mean(x: tf.Tensor) -> tf.Tensor:
    """(C,) mean over all axes but the last, of all devices."""
    return _over_devices(_local_mean(x))


def _local_mean(x: tf.Tensor) -> tf.Tensor:
    """(C,) mean over all axes but the last, in stages: the inner ones first."""
    while x.shape.rank > 3:
        x = tf.reduce_mean(x, axis=[-3, -2])
    return tf.reduce_mean(x, axis=list(range(x.shape.rank - 1)))


def _over_devices(mean: tf.Tensor) -> tf.Tensor:
    """The mean of all devices' means; each of them has the same number of clips."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return mean
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, mean)
