"""Counting parameters and multiply-adds of any model."""

import keras
import numpy as np
import pytest

import kvideo
from kvideo.analysis import count_macs, count_parameters, layer_costs
from kvideo.errors import ModelFileError, UsageError
from kvideo.layers import NonLocalBlock3D


def sequential(*layers, shape=(8, 8, 4)):
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [  # output positions times the multiplications for one of them
        (keras.layers.Conv1D(5, 3, padding="same"), (8, 4), 8 * 3 * 4 * 5),
        (keras.layers.Conv2D(6, 3, strides=2), (8, 8, 4), 3 * 3 * (3 * 3 * 4 * 6)),
        (keras.layers.Conv2D(6, 1, groups=2), (8, 8, 4), 64 * (2 * 6)),
        (keras.layers.Conv2D(6, 3, dilation_rate=2), (8, 8, 4), 16 * (9 * 4 * 6)),
        (keras.layers.Conv3D(2, (1, 2, 3)), (4, 4, 4, 3), 4 * 3 * 2 * (6 * 3 * 2)),
        (keras.layers.DepthwiseConv2D(3, padding="same"), (8, 8, 4), 64 * 9 * 4),
        (keras.layers.DepthwiseConv2D(1, depth_multiplier=3), (8, 8, 4), 64 * 4 * 3),
        (keras.layers.SeparableConv2D(6, 3, padding="same"), (8, 8, 4), 64 * (9 * 4 + 4 * 6)),
        (keras.layers.Conv2DTranspose(6, 2, strides=2), (8, 8, 4), 64 * (4 * 4 * 6)),
        (keras.layers.Dense(7), (5, 4), 5 * 4 * 7),
        (keras.layers.BatchNormalization(), (8, 8, 4), 0),
        (keras.layers.MaxPooling2D(), (8, 8, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else None,
)
def test_multiply_adds(layer, shape, macs):
    assert count_macs(sequential(layer, shape=shape)) == macs


def test_running_statistics_are_no_parameters():
    model = sequential(keras.layers.Conv2D(6, 3), keras.layers.BatchNormalization())
    assert model.count_params() == 4 * 9 * 6 + 6 + 4 * 6
    assert count_parameters(model) == 4 * 9 * 6 + 6 + 2 * 6
    model.trainable = False
    assert count_parameters(model) == 4 * 9 * 6 + 6 + 2 * 6


def test_running_statistics_of_a_layer_inside_of_another():
    model = sequential(NonLocalBlock3D(), shape=(4, 8, 8, 6))
    assert sum(cost.parameters for cost in layer_costs(model)) == count_parameters(model)
    assert count_parameters(model) == model.count_params() - 2 * 6  # mean and variance


def test_nested_and_shared_layers():
    """A nested model is looked into; a layer called twice works twice."""
    inner = sequential(keras.layers.Conv2D(4, 1, name="inside"))
    twice = keras.layers.Conv2D(4, 1, name="twice")
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, twice(inner(twice(inputs))))
    costs = layer_costs(model)
    assert [cost.name.rpartition("/")[2] for cost in costs] == ["twice", "inside", "twice"]
    assert [cost.parameters for cost in costs] == [20, 20, 0]
    assert count_macs(model) == 3 * 64 * 16
    assert sum(cost.parameters for cost in costs) == count_parameters(model) == 40


def test_open_sizes_are_given():
    model = sequential(keras.layers.Conv2D(6, 1), shape=(None, None, 4))
    assert count_macs(model, (2, 3, 4)) == 6 * 4 * 6
    with pytest.raises(UsageError, match="no fixed size: give input_shape"):
        count_macs(model)


class Mystery(keras.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(4, 4))

    def call(self, inputs):
        return inputs @ self.kernel


class Open(Mystery):
    def macs(self, input_shape, output_shape):
        return int(np.prod(input_shape)) * 4


def test_a_layer_that_is_not_known_says_so_or_counts_itself():
    with pytest.raises(UsageError, match=r'"who" \(Mystery\) are not known'):
        count_macs(sequential(Mystery(name="who")))
    assert count_macs(sequential(Open())) == 64 * 4 * 4


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Subclassed(name="opaque")(inputs))
    with pytest.raises(UsageError, match="opaque"):
        count_macs(model)


def test_a_file_of_keras_itself(tmp_path):
    """It has neither class names nor a ClipSpec; a summary needs none."""
    model = sequential(keras.layers.Conv3D(4, 3, name="own"), shape=(8, 16, 16, 3))
    model.save(tmp_path / "plain.keras")
    found = kvideo.summary(tmp_path / "plain.keras")
    assert found.layers[-1].field.size == (3, 3, 3) and found.clip is None
    with pytest.raises(UsageError, match="options and classes are fixed"):
        kvideo.summary(tmp_path / "plain.keras", options={"widths": (4, 6)})
    sequential(Mystery(), shape=(4, 4)).save(tmp_path / "odd.keras")
    with pytest.raises(ModelFileError, match="Could not locate class 'Mystery'") as caught:
        kvideo.summary(tmp_path / "odd.keras")
    assert "config" not in str(caught.value)
    keras.Sequential([keras.layers.Dense(3)]).save(tmp_path / "unbuilt.keras")
    with pytest.raises(UsageError, match="has not been built"):
        kvideo.summary(tmp_path / "unbuilt.keras")
