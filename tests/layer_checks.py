"""One check that every layer of kvideo passes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def run_layer_check(
    layer_class: type[keras.Layer],
    init_kwargs: dict[str, Any],
    input_shape: tuple[int, ...],
    expected_output_shape: tuple[int, ...],
    folder: Path,
    *,
    trainable: int = 0,
    non_trainable: int = 0,
    bfloat16_tolerance: float = 0.05,
) -> None:
    """Configuration, shapes, weights, a compiled step, mixed precision, saving.

    Args:
        layer_class: the layer's class.
        init_kwargs: its arguments.
        input_shape: with the batch.
        expected_output_shape: likewise.
        folder: to save a model in.
        trainable: how many trainable variables it has.
        non_trainable: how many others.
        bfloat16_tolerance: largest difference that bfloat16 may make, relative to the largest
            output.
    """
    keras.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).normal(size=input_shape).astype("float32")
    layer = layer_class(**init_kwargs)
    _check_config(layer)

    symbolic = layer(keras.KerasTensor(input_shape))
    outputs = layer(inputs)
    assert tuple(symbolic.shape) == tuple(outputs.shape) == expected_output_shape
    assert layer.compute_output_shape(input_shape) == expected_output_shape
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (
        trainable,
        non_trainable,
    )
    unknown_batch = layer(keras.Input(input_shape[1:]))
    for known, maybe in zip(expected_output_shape, unknown_batch.shape, strict=True):
        assert maybe in (known, None)

    _check_training_step(layer, inputs)
    _check_bfloat16(layer, layer_class, init_kwargs, inputs, bfloat16_tolerance)
    _check_saving(layer, inputs, folder / f"{layer_class.__name__}.keras")


def _check_config(layer: keras.Layer) -> None:
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    serialized = keras.saving.serialize_keras_object(layer)
    assert serialized["registered_name"].startswith("kvideo>")
    assert keras.saving.deserialize_keras_object(serialized).get_config() == config


def _check_training_step(layer: keras.Layer, inputs: np.ndarray) -> None:
    """Gradients of inputs and weights are finite and not all zero, in a compiled function."""

    @tf.function
    def step(x: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            loss = tf.reduce_sum(tf.square(outputs) * _uneven(outputs.shape))
        return tape.gradient(loss, [x, *(v.value for v in layer.trainable_weights)])

    for gradient in step(tf.constant(inputs)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def _uneven(shape: tf.TensorShape) -> tf.Tensor:
    """Weights that make no gradient cancel out."""
    return tf.constant(np.sin(np.arange(1, shape.num_elements() + 1)).reshape(shape), "float32")


def _check_bfloat16(
    layer: keras.Layer,
    layer_class: type[keras.Layer],
    init_kwargs: dict[str, Any],
    inputs: np.ndarray,
    tolerance: float,
) -> None:
    mixed = layer_class(**init_kwargs, dtype="mixed_bfloat16")
    outputs = mixed(inputs)
    mixed.set_weights(layer.get_weights())
    outputs = mixed(inputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert all(variable.dtype == "float32" for variable in mixed.weights)
    expected = np.asarray(layer(inputs))
    difference = np.abs(np.asarray(tf.cast(outputs, "float32")) - expected).max()
    assert difference <= tolerance * max(1.0, np.abs(expected).max())


def _check_saving(layer: keras.Layer, inputs: np.ndarray, path: Path) -> None:
    clip = keras.Input(inputs.shape[1:])
    model = keras.Model(clip, layer(clip))
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded.layers[-1]) is type(layer)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
