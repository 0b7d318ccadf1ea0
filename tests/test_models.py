"""Models: what the first ones compute, their arguments, the package's names.

What every registered model must do is in `test_registry_models.py`.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo.models
from kvideo import registry
from kvideo.analysis import count_macs, count_parameters, layer_costs
from kvideo.errors import UnknownNameError, UsageError
from kvideo.layers import PixelNormalization
from kvideo.models import backbones
from kvideo.models.efficientnet_lite import efficientnet_lite0

TINY = (4, 16, 16, 3)
FRAME_MODELS = ("single_frame", "late_fusion", "early_fusion")


def clips(shape, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), "uint8")


def tiny(name, **options):
    keras.utils.set_random_seed(0)
    return registry.get_builder(name)(5, input_shape=TINY, **options)


def test_the_package_is_lazy_and_its_names_are_builders():
    program = """
import sys
import kvideo.models
assert "slow_fusion" in dir(kvideo.models)
assert not {"keras", "tensorflow"} & set(sys.modules)
import kvideo.models.c3d
from kvideo.models.c3d import STAGES
assert callable(kvideo.models.c3d) and len(STAGES) == 5
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_model_gets_a_suggestion():
    with pytest.raises(AttributeError, match='Did you mean "slow_fusion"'):
        kvideo.models.slow_fsion  # noqa: B018


# The lecture's networks, for 20 frames of 64×64.


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [  # weights and biases of conv1, conv2 and logits, counted by hand
        ("late_fusion", 336 + 2616 + 150, 20 * (64 * 64 * 324 + 16 * 16 * 2592) + 144),
        ("early_fusion", 6492 + 2616 + 150, 64 * 64 * 6480 + 16 * 16 * 2592 + 144),
        ("slow_fusion", 984 + 7800 + 150, 20 * 64 * 64 * 972 + 5 * 16 * 16 * 7776 + 144),
    ],
)
def test_counts_of_the_lectures_networks(name, parameters, macs):
    model = registry.get_builder(name)(6, batch_norm=False)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs
    assert count_parameters(registry.get_builder(name)(6)) == parameters + 12 + 24


def test_sizes_of_slow_fusion():
    shapes = {
        cost.name: cost.output_shape[1:] for cost in layer_costs(kvideo.models.slow_fusion(6))
    }
    assert shapes["conv1"] == (20, 64, 64, 12)
    assert shapes["pool1"] == (5, 16, 16, 12)
    assert shapes["conv2"] == (5, 16, 16, 24)
    assert shapes["features"] == (24,)


def test_receptive_fields_of_slow_fusion():
    """Which pixels the gradient of one unit reaches; over many clips, as a max-pool takes one."""
    model = kvideo.models.slow_fusion(6, batch_norm=False)
    names = ("conv1", "pool1", "conv2", "features")
    hooks = keras.Model(model.input, [model.get_layer(name).output for name in names])
    pixels = tf.random.Generator.from_seed(0).uniform((24, 20, 64, 64, 3), 0, 255)
    extents = []
    for index, place in enumerate([(10, 32, 32), (2, 8, 8), (2, 8, 8), ()]):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            unit = tf.reduce_sum(hooks(pixels)[index][(slice(None), *place)])
        reached = np.abs(tape.gradient(unit, pixels)).max(axis=(0, 4)) > 0
        used = [np.flatnonzero(reached.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
        extents.append(tuple(axis[-1] - axis[0] + 1 for axis in used))
    assert extents == [(3, 3, 3), (6, 6, 6), (14, 14, 14), (20, 64, 64)]


def test_more_widths_add_convolutions_and_pools():
    model = kvideo.models.slow_fusion(6, widths=(8, 16, 32, 64), input_shape=(7, 64, 64, 3))
    assert model.get_layer("feature_map").output.shape[1:] == (1, 4, 4, 64)


def test_single_frame_averages_the_features_of_its_frames():
    one, four = (
        kvideo.models.single_frame(5, input_shape=(frames, 16, 16, 3)) for frames in (1, 4)
    )
    four.set_weights(one.get_weights())
    pixels = clips(TINY)
    features = [
        keras.Model(model.input, model.get_layer("features").output) for model in (one, four)
    ]
    frames = pixels.reshape(-1, 1, *TINY[1:])
    expected = np.asarray(features[0](frames)).reshape(2, 4, -1).mean(axis=1)
    np.testing.assert_allclose(features[1](pixels), expected, atol=1e-5)


def test_fc_fusion_tells_the_order_of_frames():
    pixels = clips(TINY)
    for fusion, same in (("average", True), ("fc", False)):
        model = kvideo.models.late_fusion(5, fusion=fusion, input_shape=TINY, hidden=7)
        assert np.allclose(model(pixels), model(pixels[:, ::-1]), atol=1e-5) is same
    assert model.get_layer("features").output.shape == (None, 7)
    assert model.get_layer("fc1").kernel.shape == (4 * 24, 7)


# C3D (Tran et al. 2015).


def test_c3d_has_the_published_size():
    model = kvideo.models.c3d(101)
    assert count_parameters(model) == model.count_params() == 78_409_573
    assert round(count_macs(model) / 1e9, 2) == 38.55
    costs = {cost.name: cost for cost in layer_costs(model)}
    convolutions = [name for name, cost in costs.items() if cost.kind == "Conv3D"]
    assert convolutions == [
        "conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b",
    ]  # fmt: skip
    pools = [cost.output_shape[1:] for cost in costs.values() if cost.kind == "MaxPooling3D"]
    assert pools == [
        (16, 56, 56, 64), (8, 28, 28, 128), (4, 14, 14, 256), (2, 7, 7, 512), (1, 4, 4, 512),
    ]  # fmt: skip
    assert costs["fc6"].output_shape == costs["fc7"].output_shape == (1, 4096)


def test_c3d_features_are_fc7_after_its_relu():
    model = tiny("c3d")
    hooks = keras.Model(model.input, [model.get_layer(n).output for n in ("fc7", "features")])
    fc7, features = hooks(clips(TINY))
    np.testing.assert_array_equal(fc7, features)
    assert np.min(fc7) == 0 < np.max(fc7)


# 2D backbones.


def test_preprocessing_is_that_of_keras():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype("float32")
    models = backbones.applications()
    assert len(models) >= 35
    for name, make in models.items():
        ours = PixelNormalization(**backbones.application_pixels(make))(pixels)
        expected = sys.modules[make.__module__].preprocess_input(pixels.copy())
        np.testing.assert_allclose(ours, expected, atol=2e-4, err_msg=name)


def shaken(network):
    """Random numbers for all weights, so that a mistake in copying them shows."""
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.5, 1, v.shape) * rng.choice((-1, 1), v.shape)
                         if v.name == "kernel" else rng.uniform(0.5, 1, v.shape)
                         for v in network.weights])  # fmt: skip
    return network


def test_inlined_layers_compute_what_the_network_computes():
    network = shaken(
        keras.applications.MobileNetV2(
            include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35
        )
    )
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, backbones.inline(network, inputs))
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
    expected = network.predict(x, verbose=0)
    assert np.std(expected) > 0
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5)
    middle = model.get_layer("block_3_expand")  # found by name, and part of this graph alone
    assert keras.Model(inputs, middle.output)(x).shape == (2, 8, 8, 48)


@pytest.mark.slow
def test_convnext_is_normalized_as_in_keras():
    make = keras.applications.ConvNeXtTiny
    network = shaken(make(include_top=False, weights=None, input_shape=(32, 32, 3)))
    model = kvideo.models.single_frame(5, backbone="convnext_tiny", input_shape=(1, 32, 32, 3))
    model.set_weights([*network.get_weights(), *model.get_weights()[-2:]])
    pixels = clips((1, 32, 32, 3))
    expected = network(pixels[:, 0].astype("float32"))
    found = keras.Model(model.input, model.get_layer("feature_map").output)(pixels)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAME_MODELS)
def test_backbone_of_keras_applications(name, tmp_path):
    options = {"backbone": "mobilenet_v2", "input_shape": (2, 32, 32, 3)}
    model = registry.get_builder(name)(5, **options)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    pixels = clips((2, 32, 32, 3))
    np.testing.assert_allclose(loaded(pixels), model(pixels), atol=1e-6)


def test_layer_names_are_the_same_every_time():
    """These have layers that Keras names by a counter of the process."""
    for backbone, name in (
        ("mobilenet_v3_small", "backbone_rescaling_1"),
        ("convnext_tiny", "backbone_layer_normalization_1"),
    ):
        models = [
            kvideo.models.single_frame(5, backbone=backbone, input_shape=(1, 32, 32, 3))
            for _ in range(2)
        ]
        one, two = ([layer.name for layer in model.layers] for model in models)
        assert one == two and name in one
        paths = ([variable.path.rpartition("/")[0] for variable in m.weights] for m in models)
        one, two = paths  # Keras numbers a variable that its layer gives no name
        assert one == two


def test_efficientnet_lite0_has_the_published_size():
    model = efficientnet_lite0()
    assert count_parameters(model) == 4_652_008
    assert model.output_shape == (None, 1000)
    without = efficientnet_lite0(include_top=False, input_shape=(64, 96, 3))
    assert without.output_shape == (None, 2, 3, 1280)


@pytest.mark.slow
def test_no_network_is_one_sentence(tmp_path):
    program = """
import kvideo.models
from kvideo.errors import KVideoError
try:
    kvideo.models.late_fusion(5, backbone="resnet50", weights="imagenet")
except KVideoError as error:
    print(error)
"""
    nobody = "http://127.0.0.1:9"  # nothing listens there
    environment = os.environ | {
        "KERAS_HOME": str(tmp_path), "HTTPS_PROXY": nobody, "https_proxy": nobody,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    sentence = done.stdout.strip().splitlines()[-1]
    assert sentence.startswith('the ImageNet weights of backbone "resnet50" could not be')
    assert 'backbone="efficientnet_lite0"' in sentence


# Wrong arguments.


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("slow_fusion", {"input_shape": (0, 64, 64, 3)}, "input_shape must hold sizes"),
        ("slow_fusion", {"input_shape": (None, 64, 64, 3)}, "input_shape must be"),
        ("slow_fusion", {"input_shape": (20, 64, 64)}, "input_shape must be"),
        ("slow_fusion", {"input_shape": (20, 64, 64, 1)}, "3 channels.*not 1"),
        ("slow_fusion", {"input_shape": (20, 3, 64, 3)}, "too small for 2 widths: of 3x64"),
        ("early_fusion", {"input_shape": (20, 64, 2, 3)}, "too small"),
        ("slow_fusion", {"widths": ()}, "widths must list"),
        ("slow_fusion", {"widths": (12, 0)}, "widths must be a whole number.*not 0"),
        ("slow_fusion", {"dropout": 1.0}, "dropout.*not 1.0"),
        ("c3d", {"dropout": -0.1}, "dropout"),
        ("c3d", {"classifier_activation": "sofmax"}, "classifier_activation.*sofmax"),
        ("c3d", {"weights": "sports2m"}, 'weights must be None, "sports1m".*sports2m'),
        ("c3d", {"weights": "missing.keras"}, "no weights file missing.keras"),
        ("late_fusion", {"weights": "imagnet"}, 'weights must be None, "imagenet" or'),
        ("late_fusion", {"weights": "imagenet"}, 'backbone="lecture" has no ImageNet'),
        ("late_fusion", {"fusion": "max"}, "fusion must be one of average, fc, not 'max'"),
        ("late_fusion", {"fusion": "fc", "hidden": 0}, "hidden must be.*not 0"),
        (
            "single_frame",
            {"backbone": "ResNet50", "input_shape": (1, 16, 16, 3)},
            'backbone "ResNet50": .*at least 32x32',
        ),
    ],
)
def test_refuses(model, arguments, message):
    with pytest.raises(UsageError, match=message):
        registry.get_builder(model)(5, **arguments)


@pytest.mark.parametrize("num_classes", [0, -1, 2.5, True, "6"])
def test_refuses_a_number_of_classes(num_classes):
    with pytest.raises(UsageError, match="num_classes must be a whole number"):
        kvideo.models.slow_fusion(num_classes)


def test_refuses_more_classes_than_memory_holds():
    with pytest.raises(UsageError, match="num_classes must be at most 1,000,000, not 1000000000"):
        kvideo.models.slow_fusion(10**9)


def test_unknown_backbone_gets_a_suggestion():
    for wrong, right in (
        ("resnet5", "ResNet50"),
        ("lectur", "lecture"),
        ("MobileNet_V22", "Mobile"),
    ):
        with pytest.raises(UnknownNameError, match=f'Did you mean "{right}'):
            kvideo.models.late_fusion(5, backbone=wrong)


def test_weights_file(tmp_path, capsys):
    model = kvideo.models.slow_fusion(5, input_shape=TINY)
    model.save(tmp_path / "m.keras")
    again = kvideo.models.slow_fusion(5, input_shape=TINY, weights=str(tmp_path / "m.keras"))
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other = kvideo.models.slow_fusion(6, input_shape=TINY, weights=str(tmp_path / "m.keras"))
    for a, b in zip(model.get_weights()[:-2], other.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert "m.keras has 5 classes" in capsys.readouterr().err
    smaller = (TINY[0] // 2, *TINY[1:])
    with pytest.raises(UsageError, match="do not fit early_fusion: "):
        kvideo.models.early_fusion(5, input_shape=smaller, weights=str(tmp_path / "m.keras"))
