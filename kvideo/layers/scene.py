"""Actors that look at the scene around them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable("kvideo")
class ActorSceneBlock(keras.layers.Layer):
    """A non-local block from actors to a map: each takes from all places, by how related they are.

    The output of actor i is `x_i + out(Σ_j softmax_j(θ(x_i) · φ(m_j) / √inner) · g(m_j))` over the
    places j of the map. It begins as the identity, since `out` begins as zero.

    Args:
        inner_channels: channels of θ, φ and g; by default half of the actors'.

    Input shape:
        A list of actors (B, N, C) and a map (B, T, H, W, D).

    Output shape:
        (B, N, C).

    Raises:
        UsageError: `inner_channels` is less than 1.

    References:
        Wang et al. 2018, "Non-local Neural Networks"; Sun et al. 2018, "Actor-Centric Relation
        Network", for actors and scene.
    """

    def __init__(self, inner_channels: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        if inner_channels is not None and inner_channels < 1:
            raise UsageError(f"inner_channels must be at least 1, not {inner_channels!r}.")
        self.inner_channels = inner_channels

    def build(self, input_shape: Any) -> None:
        """Makes the projections."""
        actors, scene = (tuple(shape) for shape in input_shape)
        inner = self.inner_channels or max(1, actors[-1] // 2)

        def dense(units: int, name: str, shape: Shape, **options: Any) -> keras.layers.Dense:
            layer = keras.layers.Dense(units, name=name, dtype=self.dtype_policy, **options)
            layer.build(shape)
            return layer

        self.theta = dense(inner, "theta", actors)
        self.phi, self.g = dense(inner, "phi", scene), dense(inner, "g", scene)
        self.out = dense(actors[-1], "out", (*actors[:-1], inner), kernel_initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """See the class."""
        actors, scene = inputs
        values = self.g(scene)
        values = tf.reshape(values, (tf.shape(values)[0], -1, values.shape[-1]))
        return actors + self.out(tf.matmul(tf.cast(self.attention(inputs), values.dtype), values))

    def attention(self, inputs: Any) -> tf.Tensor:
        """Where each actor looks, (B, N, T·H·W) float32; its weights add up to 1."""
        actors, scene = inputs
        keys = tf.cast(self.phi(scene), tf.float32)
        keys = tf.reshape(keys, (tf.shape(keys)[0], -1, keys.shape[-1]))
        queries = tf.cast(self.theta(actors), tf.float32) * keys.shape[-1] ** -0.5
        return tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The actors'."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "inner_channels": self.inner_channels}
