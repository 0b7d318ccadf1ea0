"""I3D and S3D: sizes and counts of the literature, published numbers, the flow stream."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from layer_checks import run_layer_check

import kvideo
from kvideo.analysis import count_macs, count_parameters
from kvideo.clip_spec import recommended_clip, recommended_views
from kvideo.errors import UsageError
from kvideo.layers import FlowNormalization, PixelNormalization
from kvideo.models.i3d import INCEPTION_V1, Mixed

RANDOM = np.random.default_rng(0)
NARROW = {"width_multiplier": 0.125}

SIZES = {  # (channels, T, H, W) by end point, for 64×224×224
    "conv1a": (64, 32, 112, 112),
    "pool2a": (64, 32, 56, 56),
    "conv2b": (64, 32, 56, 56),
    "conv2c": (192, 32, 56, 56),
    "pool3a": (192, 32, 28, 28),
    "mixed3b": (256, 32, 28, 28),
    "mixed3c": (480, 32, 28, 28),
    "pool4a": (480, 16, 14, 14),
    "mixed4b": (512, 16, 14, 14),
    "mixed4c": (512, 16, 14, 14),
    "mixed4d": (512, 16, 14, 14),
    "mixed4e": (528, 16, 14, 14),
    "mixed4f": (832, 16, 14, 14),
    "pool5a": (832, 8, 7, 7),
    "mixed5b": (832, 8, 7, 7),
    "mixed5c": (1024, 8, 7, 7),
    "feature_map": (1024, 8, 7, 7),
    "head_window": (1024, 7, 1, 1),
}


def test_i3d_at_full_size() -> None:
    """Parameters of pytorch-i3d; the original's 12,689,984 leave out the batch norms' scales."""
    model = kvideo.models.i3d(400)
    assert count_parameters(model) == 12_697_264
    assert sum(layer.gamma.shape[0] for layer in _norms(model)) == 12_697_264 - 12_689_984
    assert count_macs(model) == 111_150_686_208
    for name, (channels, *size) in SIZES.items():
        assert model.get_layer(name).output.shape[1:] == (*size, channels), name
    assert model.get_layer("features").output.shape == (None, 1024)
    assert {layer.epsilon for layer in _norms(model)} == {1e-3}
    spec = recommended_clip(kvideo.models.i3d)
    assert (spec.num_frames, spec.frame_rate, spec.size) == (64, 25.0, (224, 224))
    assert spec.test_short_side == 256


def _norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_s3d_at_full_size() -> None:
    """Parameters and multiply-adds (17.98 G for 16 frames) that torchvision states."""
    model = kvideo.models.s3d(400, input_shape=(16, 224, 224, 3))
    assert count_parameters(model) == 8_320_048
    assert round(count_macs(model) / 1e9, 2) == 17.98
    assert model.get_layer("feature_map").output.shape == (None, 2, 7, 7, 1024)
    spec = recommended_clip(kvideo.models.s3d)
    assert (spec.num_frames, spec.frame_rate, spec.test_short_side) == (128, 15.0, 256)
    assert len(recommended_views(kvideo.models.s3d)) == 1


def test_the_flow_stream_at_full_size() -> None:
    """Two channels: 7·7·7·64 parameters fewer; the original has 12,668,032 without scales."""
    model = kvideo.models.i3d(400, input_shape=(64, 224, 224, 2))
    assert count_parameters(model) == 12_668_032 + 7_280
    assert isinstance(model.get_layer("normalization"), FlowNormalization)


def test_the_table_is_the_published_one() -> None:
    blocks = [row for row in INCEPTION_V1 if isinstance(row, Mixed)]
    outputs = [block.b0 + block.b1[1] + block.b2[1] + block.b3 for block in blocks]
    assert outputs == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert len(INCEPTION_V1) == 16


ENDS = {  # arrays of the oracles: layers
    "inception_i3d": {
        "act_Conv3d_1a_7x7": "conv1a_relu",
        "act_MaxPool3d_3a_3x3": "pool3a",
        "act_Mixed_3c": "mixed3c",
        "act_Mixed_4f": "mixed4f",
        "act_Mixed_5c": "feature_map",
    },
    "s3d": {
        "act_features0": "conv1a_t_relu",
        "act_features3": "conv2c_t_relu",
        "act_features6": "mixed3c",
        "act_features12": "mixed4f",
        "act_features15": "feature_map",
    },
}
BUILDERS = {
    "inception_i3d": ("i3d", {"head_window": (2, 2, 2)}),
    "s3d": ("s3d", {"head_window": None}),
}


@pytest.mark.parametrize("oracle", BUILDERS)
@pytest.mark.parametrize("odd", ["", "_odd"])
def test_published_numbers(oracle: str, odd: str, shared: Path) -> None:
    name, options = BUILDERS[oracle]
    with np.load(shared / "oracles" / "torch" / f"{oracle}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    clip = np.transpose(arrays[f"input{odd}"], (0, 2, 3, 4, 1))
    model = getattr(kvideo.models, name)(
        7,
        input_shape=clip.shape[1:],
        classifier_activation=None,
        weights=str(shared / "oracles" / "torch" / f"{oracle}.pyth"),
        **NARROW,
        **options,
    )
    ends = [] if odd else list(ENDS[oracle])
    layers = [model.get_layer(ENDS[oracle][end]).output for end in ends]
    # The oracles' inputs are normalized already.
    inner = keras.Model(model.get_layer("normalization").output, [*layers, model.output])
    *maps, logits = keras.tree.flatten(inner.predict(clip, verbose=0))
    expected = arrays[f"logits{odd}"]
    assert np.abs(logits - expected).max() <= 1e-3 * max(1, np.abs(expected).max())
    for end, got in zip(ends, maps, strict=True):
        wanted = np.transpose(arrays[end], (0, 2, 3, 4, 1))
        assert np.abs(got[:1] - wanted).max() <= 1e-3 * max(1, np.abs(wanted).max()), end


def test_the_head_averages_windows() -> None:
    """With 4 frames left and windows of 2, the first and the last weigh half; DeepMind's head."""
    model = kvideo.models.i3d(3, input_shape=(32, 64, 64, 3), **NARROW)
    hooks = [model.get_layer(name).output for name in ("feature_map", "features", "logits")]
    clip = RANDOM.integers(0, 256, (1, 32, 64, 64, 3)).astype("uint8")
    maps, features, logits = (np.asarray(x) for x in keras.Model(model.input, hooks)(clip))
    frames = maps.mean(axis=(2, 3))[0]  # (4, C)
    np.testing.assert_allclose(features[0], np.array([1, 2, 2, 1]) / 6 @ frames, rtol=1e-4)
    kernel, bias = (w.numpy() for w in model.get_layer("logits").weights)
    per_step = [(frames[i] + frames[i + 1]) / 2 @ kernel + bias for i in range(3)]
    np.testing.assert_allclose(logits[0], np.mean(per_step, axis=0), rtol=1e-3, atol=1e-5)
    plain = kvideo.models.i3d(3, input_shape=(32, 64, 64, 3), head_window=None, **NARROW)
    hooks = [plain.get_layer(name).output for name in ("feature_map", "features")]
    maps, features = (np.asarray(x) for x in keras.Model(plain.input, hooks)(clip))
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2, 3)), rtol=1e-4, atol=1e-6)


def test_pixels_and_flow_come_to_one() -> None:
    pixels = kvideo.models.i3d(3, input_shape=(8, 32, 32, 3), **NARROW).get_layer("normalization")
    assert isinstance(pixels, PixelNormalization)
    np.testing.assert_allclose(pixels(np.array([[0.0, 127.5, 255.0]])), [[-1, 0, 1]], atol=1e-6)
    flow = kvideo.models.i3d(3, input_shape=(8, 32, 32, 2), **NARROW).get_layer("normalization")
    np.testing.assert_allclose(flow(np.array([[-90.0, 5.0], [20.0, 21.0]])), [[-1, 0.25], [1, 1]])


def test_the_flow_stream_runs_learns_and_saves(tmp_path: Path) -> None:
    model = kvideo.models.i3d(3, input_shape=(8, 32, 32, 2), **NARROW)
    flow = RANDOM.normal(scale=8, size=(2, 8, 32, 32, 2)).astype("float32")
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    history = model.fit(flow, np.array([0, 2]), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "flow.keras")
    loaded = keras.models.load_model(tmp_path / "flow.keras")
    np.testing.assert_allclose(
        loaded.predict(flow, verbose=0), model.predict(flow, verbose=0), atol=1e-6
    )


def test_flow_normalization(tmp_path: Path) -> None:
    shape = (2, 3, 4, 5, 2)
    run_layer_check(FlowNormalization, {"limit": 5.0}, shape, shape, tmp_path)


@pytest.mark.parametrize("name", ["i3d", "s3d"])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 17, 33)])
def test_small_clips(name: str, size: tuple[int, int, int]) -> None:
    model = getattr(kvideo.models, name)(3, input_shape=(*size, 3), **NARROW)
    clip = RANDOM.integers(0, 256, (2, *size, 3)).astype("uint8")
    np.testing.assert_allclose(model(clip).numpy().sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("i3d", {"input_shape": (8, 32, 32, 4)}, r"3 channels \(RGB\) or 2 channels \(optical"),
        ("s3d", {"input_shape": (8, 32, 32, 5)}, r"2 channels \(optical flow\), not 5"),
        ("i3d", {"width_multiplier": 0}, "width_multiplier must be positive"),
        ("i3d", {"head_window": (2, 7)}, "head_window must be"),
        ("s3d", {"dropout": 1}, "dropout must be"),
        ("s3d", {"weights": "nowhere.pth"}, "no weights file"),
    ],
)
def test_wrong_arguments(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        getattr(kvideo.models, name)(3, **{"input_shape": (8, 32, 32, 3), **options})
