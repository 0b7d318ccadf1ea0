"""Batch norm folded into convolutions: the same outputs, and nothing else changed."""

import inspect

import keras
import numpy as np
import pytest

import kvideo
from kvideo.clip_spec import ClipSpec, recommended_clip
from kvideo.errors import UsageError
from kvideo.inference import Predictor
from kvideo.layers import BatchNorm, DepthwiseConv3D, conv_unit
from kvideo.registry import MODELS, entries, get_builder
from kvideo.saving import ModelInfo


def randomize(model, seed=0):
    """Batch norms as after training: no statistic is 0 or 1."""
    rng = np.random.default_rng(seed)
    for layer in norms(model):
        size = layer.moving_mean.shape
        layer.moving_mean.assign(rng.normal(size=size))
        layer.moving_variance.assign(rng.uniform(0.5, 2.0, size))
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.5, 1.5, size))
        if layer.center:
            layer.beta.assign(rng.normal(size=size))


def norms(model):
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def assert_same_outputs(model, folded, tolerance=1e-4):
    shape = (2, *model.input_shape[1:])
    inputs = np.random.default_rng(5).normal(size=shape).astype("float32")
    expected, result = np.asarray(model(inputs)), np.asarray(folded(inputs))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(result, expected, atol=tolerance * np.abs(expected).max())


LAYERS = {
    "conv1d": (keras.layers.Conv1D(5, 3), (8, 3)),
    "conv2d": (keras.layers.Conv2D(5, 3, use_bias=False), (8, 8, 3)),
    "conv2d_groups": (keras.layers.Conv2D(6, 3, groups=3), (8, 8, 3)),
    "conv3d": (keras.layers.Conv3D(5, 3, strides=2), (4, 8, 8, 3)),
    "depthwise1d": (keras.layers.DepthwiseConv1D(3), (8, 4)),
    "depthwise2d": (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3)),
    "depthwise3d": (DepthwiseConv3D(3, use_bias=False, depth_multiplier=2), (4, 8, 8, 3)),
    "separable2d": (keras.layers.SeparableConv2D(5, 3, use_bias=False), (8, 8, 3)),
    "dense": (keras.layers.Dense(5), (4,)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_each_kind_of_layer(layer, shape, options):
    layer = type(layer).from_config(layer.get_config())
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.ReLU()(BatchNorm(**options)(layer(inputs))))
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    assert not norms(folded) and len(norms(model)) == 1
    assert_same_outputs(model, folded)


def test_names_stay_and_the_original_is_left_alone():
    inputs = keras.Input((4, 8, 8, 3))
    model = keras.Model(inputs, conv_unit(inputs, 4, 3, name="a"), name="mine")
    model.kvideo_info = ModelInfo(ClipSpec(4, size=(8, 8)), ("x",) * 4)
    randomize(model)
    before = model.get_weights()
    folded = kvideo.fold_batch_norm(model)
    assert folded.name == "mine" and folded.kvideo_info is model.kvideo_info
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def shared_convolution(x):
    convolution = keras.layers.Conv2D(3, 3, padding="same")
    return BatchNorm()(convolution(BatchNorm()(convolution(x))))


def two_followers(x):
    y = keras.layers.Conv2D(3, 3, padding="same")(x)
    return keras.layers.Add()([y, BatchNorm()(y)])


def with_activation(x):
    return BatchNorm()(keras.layers.Conv2D(3, 3, activation="relu")(x))


def norm_first(x):
    return keras.layers.Conv2D(3, 3)(BatchNorm()(x))


def other_axis(x):
    return keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(3, 1)(x))


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (shared_convolution, 2),
        (two_followers, 1),
        (with_activation, 1),
        (norm_first, 1),
        (other_axis, 1),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_cannot_be_folded_stays(build, left):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, build(inputs))
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    assert len(norms(folded)) == left
    assert_same_outputs(model, folded)


def test_a_convolution_whose_output_the_model_returns_stays():
    inputs = keras.Input((8, 8, 3))
    convolved = keras.layers.Conv2D(3, 3)(inputs)
    model = keras.Model(inputs, [convolved, BatchNorm()(convolved)])
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    for expected, result in zip(model(x), folded(x), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_models_within_models():
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 3), BatchNorm()])
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner(conv_unit(inputs, 4, 3, name="a")))
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    assert not norms(folded)
    assert_same_outputs(model, folded)


def test_a_sequential_model():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), BatchNorm()])
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    assert not norms(folded)
    assert_same_outputs(model, folded)


def test_precision_of_the_layers_stays():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((4, 8, 8, 3))
        model = keras.Model(inputs, conv_unit(inputs, 4, 3, name="a"))
    finally:
        keras.config.set_dtype_policy("float32")
    folded = kvideo.fold_batch_norm(model)
    assert folded.get_layer("a").compute_dtype == "bfloat16"
    assert folded.get_layer("a").kernel.dtype == "float32"
    assert_same_outputs(model, folded, 0.02)


def test_a_model_of_unknown_layers_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    model = Own(name="own")
    model(np.zeros((1, 2)))
    with pytest.raises(UsageError, match='"own" is not functional'):
        kvideo.fold_batch_norm(model)


def small_model(name):
    """A registered model, narrow and for small clips, with batch norms as after training."""
    builder = get_builder(name)
    known = inspect.signature(builder).parameters
    options = {"stem_filters": 8} if "stem_filters" in known or "options" in known else {}
    options |= {"width_multiplier": 1 / 8} if "width_multiplier" in known else {}
    frames = recommended_clip(builder).num_frames
    shape = (16 if frames > 16 else frames, 64, 64, 3)
    model = builder(5, input_shape=shape, classifier_activation=None, **options)
    randomize(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", [e.name for e in entries(MODELS).values() if e.builtin])
def test_every_registered_model(name):
    """Logits differ by less than 1e-4 of the largest, and no batch norm is left."""
    model = small_model(name)
    folded = kvideo.fold_batch_norm(model)
    assert not norms(folded)
    clips = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:]))
    expected, result = (np.asarray(m(clips.astype("float32"))) for m in (model, folded))
    np.testing.assert_allclose(result, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_a_predictor_is_traced_once_for_all_batch_sizes():
    model = small_model("slow_fusion")
    predictor = Predictor(model, 4)
    clips = np.random.default_rng(0).integers(0, 256, (7, *model.input_shape[1:]), dtype="uint8")
    for count in (1, 4, 7, 2):
        result = predictor(clips[:count])
        expected = np.asarray(model(clips[:count].astype("float32")))
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert predictor._run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", ["slowfast", "late_fusion"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_settled_predictor_keeps_its_numbers(name, policy):
    """Kernels become constants after some clips, biases do not."""
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model(name)
    finally:
        keras.config.set_dtype_policy(with_policy)
    clips = np.random.default_rng(0).integers(0, 256, (3, *model.input_shape[1:]), dtype="uint8")
    predictor = Predictor(model, 2, settle_after=3)
    first = predictor(clips)
    captured = [len(predictor._run.get_concrete_function().captured_inputs)]
    second = predictor(clips)
    captured.append(len(predictor._run.get_concrete_function().captured_inputs))
    assert 0 < captured[1] < captured[0]
    tolerance = 1e-5 if policy == "float32" else 0.02
    np.testing.assert_allclose(second, first, atol=tolerance)
    np.testing.assert_array_equal(predictor(clips), second)
    unfolded = Predictor(model, 2, fold=False, settle_after=0)  # follows the model's weights
    before = unfolded(clips)
    for weight in model.trainable_weights:
        weight.assign(weight * 0.5)
    assert np.abs(unfolded(clips) - before).max() > 0


def test_what_is_no_model_is_refused():
    with pytest.raises(UsageError, match='"slow.keras" is not functional'):
        kvideo.fold_batch_norm("slow.keras")


def test_inputs_in_a_list():
    inputs = keras.Input((4, 8, 8, 3))
    model = keras.Model([inputs], conv_unit(inputs, 4, 3, name="a"))
    randomize(model)
    folded = kvideo.fold_batch_norm(model)
    assert not norms(folded)
    clips = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(folded([clips]), model([clips]), atol=1e-5)
