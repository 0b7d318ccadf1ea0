"""The non-local block: every place of a clip takes from all others, by how related they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError, check_choice
from kvideo.layers.normalization import BatchNorm

MODES = ("softmax", "dot_product", "concatenation")
Shape = tuple[int | None, ...]
Triple = tuple[int, int, int]


@keras.saving.register_keras_serializable("kvideo")
class NonLocalBlock3D(keras.layers.Layer):
    """Self-attention over space and time with a shortcut around it.

    Position i of the output is `x_i + norm(out(y_i))`, with `y_i` the sum over the keys j of
    `f(x_i, x_j) · g(x_j)`. With N keys, θ, φ and g linear in x:

    | mode | f(x_i, x_j) |
    | --- | --- |
    | `"softmax"` (embedded Gaussian) | softmax over j of `θ_i · φ_j / sqrt(inner_channels)` |
    | `"dot_product"` | `θ_i · φ_j / N` |
    | `"concatenation"` | `relu(pair · [θ_i, φ_j]) / N` |

    The scaling in the softmax is that of PyTorchVideo and PySlowFast. Under mixed precision
    affinities and softmax are float32.

    It begins as the identity: put into a trained network it changes nothing until it is trained.

    Args:
        inner_channels: channels of θ, φ and g; by default half of the input's.
        mode: see above.
        subsample: (T, H, W) of a max-pool over the input of φ and g, which makes fewer keys; cut
            to the map's size where that is smaller. None: every position is a key.
        norm: whether a batch norm follows the last projection.
        zero_scale: whether the block begins as the identity: by the batch norm's scale, or where
            there is none by the last projection, which then are zero.
        momentum: of the batch norm.
        epsilon: of the batch norm.

    Input shape:
        (B, T, H, W, C).

    Output shape:
        The same. Sub-layers are `theta`, `phi`, `g` and `out` (1×1×1 convolutions with bias) and
        `norm`; `pair` is a weight of shape (2·inner_channels,).

    Raises:
        UsageError: an argument is out of its range.

    References:
        Wang et al. 2018, "Non-local Neural Networks".
    """

    def __init__(
        self,
        inner_channels: int | None = None,
        mode: str = "softmax",
        subsample: Sequence[int] | None = (1, 2, 2),
        norm: bool = True,
        zero_scale: bool = True,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choice("mode", mode, MODES)
        if inner_channels is not None and inner_channels < 1:
            raise UsageError(f"inner_channels must be at least 1, not {inner_channels!r}.")
        self.inner_channels, self.mode = inner_channels, mode
        self.subsample = _triple(subsample)
        self.use_norm, self.zero_scale = norm, zero_scale
        self.momentum, self.epsilon = momentum, epsilon
        self.input_spec = keras.InputSpec(ndim=5)

    def build(self, input_shape: Shape) -> None:
        """Makes the projections."""
        channels = input_shape[-1]
        if channels is None:
            raise UsageError("NonLocalBlock3D must know the number of channels.")
        inner = self.inner_channels or max(1, channels // 2)
        self.theta, self.phi, self.g = (self._projection(n, inner) for n in ("theta", "phi", "g"))
        zero = self.zero_scale and not self.use_norm
        self.out = self._projection("out", channels, "zeros" if zero else "glorot_uniform")
        for layer in (self.theta, self.phi, self.g):
            layer.build(input_shape)
        self.out.build((*input_shape[:-1], inner))
        self.norm = None
        if self.use_norm:
            self.norm = BatchNorm(
                momentum=self.momentum,
                epsilon=self.epsilon,
                gamma_initializer="zeros" if self.zero_scale else "ones",
                dtype=self.dtype_policy,
                name="norm",
            )
            self.norm.build(input_shape)
        if self.mode == "concatenation":
            self.pair = self.add_weight(
                name="pair",
                shape=(2 * inner,),
                initializer=keras.initializers.RandomNormal(stddev=(2 * inner) ** -0.5),
            )

    def _projection(
        self, name: str, filters: int, initializer: str = "glorot_uniform"
    ) -> keras.layers.Conv3D:
        return keras.layers.Conv3D(
            filters, 1, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        pooled = self._pool(inputs)
        queries = _as_list(self.theta(inputs))  # (B, M, I)
        keys, values = _as_list(self.phi(pooled)), _as_list(self.g(pooled))  # (B, N, I)
        if self.mode == "dot_product" and self._summary_is_cheaper(queries.shape[1], keys.shape[1]):
            # θ(φᵀg) is (θφᵀ)g without the large matrix of all pairs.
            summary = tf.matmul(keys, values, transpose_a=True)  # (B, I, I)
            count = tf.cast(tf.shape(keys)[1], summary.dtype)
            found = tf.matmul(queries, summary / count)
        else:
            weights = self._weights(queries, keys)  # (B, M, N)
            found = tf.matmul(tf.cast(weights, values.dtype), values)
        found = tf.reshape(found, tf.concat([tf.shape(inputs)[:-1], [found.shape[-1]]], axis=0))
        found.set_shape([*inputs.shape[:-1], found.shape[-1]])
        branch = self.out(found)
        if self.norm is not None:
            branch = self.norm(branch, training=training)
        return inputs + branch

    def attention(self, inputs: Any) -> tf.Tensor:
        """Where each position looks: f of the class's table, for a built layer.

        Args:
            inputs: (B, T, H, W, C), the layer's input.

        Returns:
            (B, T·H·W, N) float32, positions and keys in row-major order of time, height, width;
            `key_shape` gives the keys' (T', H', W'), whose product is N. In mode `"softmax"` the
            weights of one position add up to 1.
        """
        inputs = tf.cast(tf.convert_to_tensor(inputs), self.compute_dtype)
        queries, keys = self.theta(inputs), self.phi(self._pool(inputs))
        return self._weights(_as_list(queries), _as_list(keys))

    def key_shape(self, input_shape: Shape) -> Shape:
        """(T', H', W') of the keys, for the input's (B, T, H, W, C)."""
        sizes = zip(input_shape[1:4], self.subsample, strict=True)
        return tuple(None if size is None else size // min(pool, size) for size, pool in sizes)

    def _weights(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """(B, M, I) and (B, N, I) -> (B, M, N) in float32: bfloat16 rounds exponents too much."""
        queries, keys = tf.cast(queries, tf.float32), tf.cast(keys, tf.float32)
        if self.mode == "softmax":
            queries *= keys.shape[-1] ** -0.5
            return tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True))
        count = tf.cast(tf.shape(keys)[1], tf.float32)
        if self.mode == "dot_product":
            return tf.matmul(queries, keys, transpose_b=True) / count
        # pair · [θ_i, φ_j] is a number of i plus a number of j.
        for_query, for_key = tf.split(tf.cast(self.pair, tf.float32), 2)
        of_query = tf.linalg.matvec(queries, for_query)[:, :, tf.newaxis]
        of_key = tf.linalg.matvec(keys, for_key)[:, tf.newaxis, :]
        return tf.nn.relu(of_query + of_key) / count

    def _pool(self, x: tf.Tensor) -> tf.Tensor:
        """Max-pool with stride = size: 2D over space, then over time."""
        over_time, height, width = (
            pool if size is None else min(pool, size)
            for pool, size in zip(self.subsample, x.shape[1:4], strict=True)
        )
        channels = x.shape[-1]
        if (height, width) != (1, 1):
            frames = tf.shape(x)[1] if x.shape[1] is None else x.shape[1]
            pictures = tf.reshape(x, [-1, *_sizes(x)[2:4], channels])
            pictures = tf.nn.max_pool2d(pictures, (height, width), (height, width), "VALID")
            x = tf.reshape(pictures, [-1, frames, *_sizes(pictures)[1:3], channels])
        if over_time != 1:
            _, frames, *place, _ = _sizes(x)
            count = frames // over_time
            x = tf.slice(x, [0] * 5, [-1, count * over_time, -1, -1, -1])
            x = tf.reduce_max(tf.reshape(x, [-1, count, over_time, *place, channels]), axis=2)
        return x

    def _summary_is_cheaper(self, queries: int | None, keys: int | None) -> bool:
        """Whether θ(φᵀg) takes fewer multiply-adds than (θφᵀ)g; so it does where M, N > I."""
        if queries is None or keys is None:
            return True
        return (queries + keys) * self.theta.filters < 2 * queries * keys

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's."""
        return tuple(input_shape)

    def macs(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiply-adds of one call: the four convolutions and the two matrix products."""
        batch, *sizes, channels = input_shape
        inner = self.theta.filters
        queries = math.prod(sizes)
        keys = math.prod(size or 0 for size in self.key_shape(input_shape))
        convolutions = 2 * (queries + keys) * channels * inner
        if self.mode == "dot_product" and self._summary_is_cheaper(queries, keys):
            products = (queries + keys) * inner * inner
        elif self.mode == "concatenation":
            products = queries * keys * inner + (queries + keys) * inner
        else:
            products = 2 * queries * keys * inner
        return batch * (convolutions + products)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "inner_channels": self.inner_channels,
            "mode": self.mode,
            "subsample": self.subsample,
            "norm": self.use_norm,
            "zero_scale": self.zero_scale,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


def _triple(subsample: Sequence[int] | None) -> Triple:
    values = (1, 1, 1) if subsample is None else subsample
    if isinstance(values, int) or len(values) != 3 or min(values) < 1:
        raise UsageError(
            f"subsample must be None or three numbers of at least 1 (T, H, W), not {subsample!r}."
        )
    first, second, third = (int(value) for value in values)
    return first, second, third


def _sizes(x: tf.Tensor) -> list[Any]:
    """The sizes of all axes: plain where known, else read at run time."""
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)]


def _as_list(x: tf.Tensor) -> tf.Tensor:
    """(B, T, H, W, C) -> (B, T*H*W, C)."""
    batch, frames, height, width, channels = _sizes(x)
    positions = frames * height * width
    return tf.reshape(x, [-1 if isinstance(positions, int) else batch, positions, channels])
