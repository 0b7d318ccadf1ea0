"""The non-local block: the formula, published numbers, and models it is put into."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import run_layer_check

import kvideo
from kvideo.analysis import count_macs
from kvideo.clip_spec import ClipSpec
from kvideo.errors import UnknownNameError, UsageError
from kvideo.layers import NonLocalBlock3D
from kvideo.layers.nonlocal_block import MODES
from kvideo.saving import ModelInfo, load_model, save_model
from kvideo.weights.torch_reader import read_state_dict
from kvideo.weights.transfer import load_torch_state

RANDOM = np.random.default_rng(0)
SHAPE = (2, 3, 4, 6, 8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", [True, False])
def test_layer(mode: str, norm: bool, tmp_path: Path) -> None:
    options = {"mode": mode, "norm": norm, "zero_scale": False}
    run_layer_check(
        NonLocalBlock3D,
        options,
        SHAPE,
        SHAPE,
        tmp_path,
        trainable=8 + 2 * norm + (mode == "concatenation"),
        non_trainable=2 * norm,
    )


def by_formula(x: np.ndarray, layer: NonLocalBlock3D) -> tuple[np.ndarray, np.ndarray]:
    """(outputs, weights) in float64, pair by pair."""
    weights = {w.path.partition("/")[2]: w.numpy().astype("float64") for w in layer.weights}

    def project(name: str, vectors: np.ndarray) -> np.ndarray:
        return vectors @ weights[f"{name}/kernel"][0, 0, 0] + weights[f"{name}/bias"]

    outputs, attention = np.empty_like(x, "float64"), []
    pool = layer.subsample
    for b, clip in enumerate(x.astype("float64")):
        places = [
            clip[t : t + pool[0], h : h + pool[1], w : w + pool[2]].max(axis=(0, 1, 2))
            for t in range(0, clip.shape[0] // pool[0] * pool[0], pool[0])
            for h in range(0, clip.shape[1] // pool[1] * pool[1], pool[1])
            for w in range(0, clip.shape[2] // pool[2] * pool[2], pool[2])
        ]
        keys, values = project("phi", np.stack(places)), project("g", np.stack(places))
        queries = project("theta", clip.reshape(-1, clip.shape[-1]))
        rows = []
        for query in queries:
            if layer.mode == "softmax":
                scores = np.exp([query @ key / np.sqrt(len(key)) for key in keys])
                rows.append(scores / scores.sum())
            elif layer.mode == "dot_product":
                rows.append(np.array([query @ key for key in keys]) / len(keys))
            else:
                pairs = [np.concatenate([query, key]) @ weights["pair"] for key in keys]
                rows.append(np.maximum(pairs, 0) / len(keys))
        attention.append(np.stack(rows))
        outputs[b] = clip + project("out", attention[-1] @ values).reshape(clip.shape)
    return outputs, np.stack(attention)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("subsample", [None, (1, 2, 2), (2, 3, 2)])
def test_is_the_formula(mode: str, subsample: tuple[int, int, int] | None) -> None:
    options = {"mode": mode, "subsample": subsample, "norm": False, "zero_scale": False}
    layer = NonLocalBlock3D(5, name="block", **options)
    x = RANDOM.normal(size=SHAPE).astype("float32")
    layer(x)
    for variable in layer.weights:  # biases too, and none small
        variable.assign(RANDOM.normal(size=variable.shape))
    outputs, attention = by_formula(x, layer)
    np.testing.assert_allclose(layer(x), outputs, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(layer.attention(x), attention, rtol=1e-4, atol=1e-5)
    assert np.prod(layer.key_shape(SHAPE)) == attention.shape[2]
    if mode == "softmax":
        np.testing.assert_allclose(np.sum(layer.attention(x), axis=2), 1, atol=1e-5)


@pytest.mark.parametrize("subsample", [None, (1, 2, 2)])
def test_dot_product_is_the_same_in_either_order(subsample: tuple[int, int, int] | None) -> None:
    """Many channels take one order of the products, few the other."""
    x = RANDOM.normal(size=SHAPE).astype("float32")
    for inner, summary in ((2, True), (400, False)):
        layer = NonLocalBlock3D(inner, "dot_product", subsample, norm=False, zero_scale=False)
        layer.build(SHAPE)
        keys = int(np.prod(layer.key_shape(SHAPE)))
        assert layer._summary_is_cheaper(72, keys) is summary
        expected = by_formula(x, layer)[0]
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["softmax", "dot_product"])
@pytest.mark.parametrize("case", ["", "_pool122", "_nonorm"])
def test_published_outputs(mode: str, case: str, shared: Path) -> None:
    folder = shared / "oracles" / "torch"
    state = read_state_dict(folder / "nonlocal.pyth")
    norm = case != "_nonorm"
    if not norm:
        state = {name: value for name, value in state.items() if not name.startswith("norm.")}
    with np.load(folder / "nonlocal.npz") as arrays:
        x, expected = (
            np.transpose(arrays[name], (0, 2, 3, 4, 1))
            for name in ("input", f"output_{mode}{case}")
        )
    clip = keras.Input(x.shape[1:])
    subsample = (1, 2, 2) if case == "_pool122" else None
    block = NonLocalBlock3D(8, mode, subsample, norm=norm, name="block")
    model = keras.Model(clip, block(clip))

    def torch_name(layer: str) -> str:
        part = layer.removeprefix("block/")
        return part if part == "norm" else f"conv_{part}"

    assert load_torch_state(model, state, torch_name) == []
    np.testing.assert_allclose(model(x), expected, atol=1e-5 * np.abs(expected).max())


def test_unknown_sizes_and_small_maps() -> None:
    x = RANDOM.normal(size=SHAPE).astype("float32")
    for mode in MODES:
        clip = keras.Input((None, None, None, 8))
        block = NonLocalBlock3D(4, mode, (2, 2, 2), zero_scale=False)
        model = keras.Model(clip, block(clip))
        np.testing.assert_allclose(model.predict(x, verbose=0), block(x), rtol=1e-4, atol=1e-5)
    block = NonLocalBlock3D(4, subsample=(4, 2, 2), zero_scale=False)
    assert block(x[:, :, :1, :1]).shape == (2, 3, 1, 1, 8)
    assert block.key_shape((2, 3, 1, 1, 8)) == (1, 1, 1)


def test_affinities_are_float32_under_mixed_precision() -> None:
    x = 30 * RANDOM.normal(size=SHAPE).astype("float32")
    mixed = NonLocalBlock3D(dtype="mixed_bfloat16")
    mixed.build(SHAPE)
    weights = mixed.attention(x)
    assert weights.dtype == tf.float32
    np.testing.assert_allclose(np.sum(weights, axis=2), 1, atol=1e-5)


def test_multiply_adds() -> None:
    """Four convolutions and two products; 3,136 positions and 784 keys of 256 channels."""
    shape = (1, 4, 28, 28, 512)
    block = NonLocalBlock3D()
    block.build(shape)
    convolutions = 2 * (3136 + 784) * 512 * 256
    assert block.macs(shape, shape) == convolutions + 2 * 3136 * 784 * 256
    dotted = NonLocalBlock3D(mode="dot_product")
    dotted.build(shape)
    assert dotted.macs(shape, shape) == convolutions + (3136 + 784) * 256 * 256
    model = kvideo.models.slow_fusion(3)
    inserted = kvideo.insert_nonlocal(model, "pool1", mode="concatenation", subsample=None)
    added = 4 * 1280 * 12 * 6 + 1280 * 1280 * 6 + 2 * 1280 * 6  # 5×16×16 positions, 12 channels
    assert count_macs(inserted) == count_macs(model) + added


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "gaussian"}, "mode must be one of"),
        ({"inner_channels": 0}, "inner_channels must be at least 1"),
        ({"subsample": (2, 2)}, "subsample must be None or three numbers"),
        ({"subsample": 2}, "subsample must be None or three numbers"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        NonLocalBlock3D(**options)


# Model, its arguments, where blocks go, and their arguments.
CASES = {
    "small": ("slow_fusion", {"input_shape": (8, 32, 32, 3)}, ["conv1_relu", "pool1"], {}),
    "no_norm": (
        "slow_fusion",
        {"input_shape": (8, 32, 32, 3)},
        ["conv1", "pool1"],
        {"mode": "dot_product", "norm": False},
    ),
    "c3d": (
        "c3d",
        {"input_shape": (4, 24, 24, 3)},
        ["conv3b", "pool4"],
        {"mode": "concatenation", "subsample": None},
    ),
    "slow": (
        "slow",
        {"input_shape": (4, 32, 32, 3), "stem_filters": 8},
        ["res3_1_relu", "res4_5_relu"],
        {},
    ),
    "slowfast": (
        "slowfast",
        {"input_shape": (8, 32, 32, 3), "stem_filters": 8},
        ["slow_res3_1_relu", "fast_res2_0_relu", "slow_res3_fused"],
        {"mode": "dot_product"},
    ),
    "i3d": (
        "i3d",
        {"input_shape": (8, 32, 32, 3), "width_multiplier": 0.125},
        ["conv2c_relu", "mixed3c", "mixed4b_b1b"],
        {},
    ),
}


def a_model(name: str, **options: Any) -> keras.Model:
    """A model whose batch norms are not at their beginning."""
    keras.utils.set_random_seed(1)
    model = getattr(kvideo.models, name)(5, classifier_activation=None, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(RANDOM.normal(size=layer.moving_mean.shape) / 10)
            layer.moving_variance.assign(RANDOM.uniform(0.5, 2, layer.moving_variance.shape))
            layer.gamma.assign(RANDOM.uniform(0.5, 1.5, layer.gamma.shape))
    return model


LARGE = ("c3d", "slowfast", "i3d")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (c in LARGE)) for c in CASES]
)
def test_insertion_changes_no_bit(case: str) -> None:
    name, arguments, after, options = CASES[case]
    model = a_model(name, **arguments)
    weights = model.get_weights()
    clip = RANDOM.integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    expected, eager = model.predict(clip, verbose=0), model(clip).numpy()
    assert np.ptp(expected, axis=1).min() > 0
    inserted = kvideo.insert_nonlocal(model, after, **options)
    np.testing.assert_array_equal(inserted.predict(clip, verbose=0), expected)
    np.testing.assert_array_equal(inserted(clip), eager)
    blocks = [layer for layer in inserted.layers if isinstance(layer, NonLocalBlock3D)]
    assert len(blocks) == len(after)
    names = {layer.name for layer in inserted.layers} - {block.name for block in blocks}
    assert names == {layer.name for layer in model.layers}
    # Its blocks are used, and its weights are its own.
    for block in blocks:
        last = block.norm.gamma if block.norm else block.out.kernel
        last.assign(np.ones(last.shape))
    assert (inserted(clip).numpy() != eager).any()
    for before, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, now)


def test_an_inserted_model_learns_saves_and_loads(tmp_path: Path) -> None:
    model = a_model("slow_fusion", input_shape=(4, 32, 32, 3))
    names = tuple("abcde")
    model.kvideo_info = ModelInfo(ClipSpec(4, 8.0, (32, 32)), names)
    inserted = kvideo.insert_nonlocal(model, ["conv1_relu", "conv2_relu"], mode="concatenation")
    assert inserted.kvideo_info == model.kvideo_info
    inserted.compile("sgd", "mse", jit_compile=False)
    clips = RANDOM.integers(0, 256, (4, 4, 32, 32, 3)).astype("float32")
    inserted.fit(clips, RANDOM.normal(size=(4, 5)), verbose=0)
    block = inserted.get_layer("conv2_nonlocal")
    assert np.abs(block.norm.gamma.numpy()).max() > 0
    save_model(inserted, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    expected = inserted.predict(clips, verbose=0)
    np.testing.assert_allclose(loaded.predict(clips, verbose=0), expected, rtol=1e-5, atol=1e-5)
    assert {weight.path for weight in block.weights} >= {
        f"conv2_nonlocal/{part}" for part in ("theta/kernel", "phi/bias", "norm/gamma", "pair")
    }


@pytest.mark.slow
def test_the_builders_blocks_are_the_inserted_ones() -> None:
    """A model built with blocks takes the weights of one into which they were put."""
    options = {"input_shape": (4, 32, 32, 3), "stem_filters": 4}
    inserted = kvideo.insert_nonlocal(a_model("slow", **options), ["res3_1_relu", "res4_1_relu"])
    built = a_model("slow", nonlocal_blocks={3: (1,), 4: (1,)}, **options)
    assert [w.path for w in inserted.weights] == [w.path for w in built.weights]
    built.set_weights(inserted.get_weights())
    clip = RANDOM.integers(0, 256, (1, 4, 32, 32, 3)).astype("uint8")
    np.testing.assert_array_equal(built(clip), inserted(clip))


def test_models_of_the_user() -> None:
    """A shared layer, plain operations, a sequential model."""
    clip = keras.Input((2, 4, 4, 3))
    shared = keras.layers.Conv3D(3, 3, padding="same", name="shared")
    model = keras.Model(clip, shared(keras.ops.relu(shared(clip)) + 1.0))
    x = RANDOM.normal(size=(1, 2, 4, 4, 3)).astype("float32")
    inserted = kvideo.insert_nonlocal(model, "shared")
    np.testing.assert_array_equal(inserted(x), model(x))
    assert sum(isinstance(layer, NonLocalBlock3D) for layer in inserted.layers) == 1
    chain = keras.Sequential([clip, shared, keras.layers.ReLU(name="last")])
    np.testing.assert_array_equal(kvideo.insert_nonlocal(chain, ["shared", "last"])(x), chain(x))


def test_refusals() -> None:
    model = kvideo.models.slow_fusion(3, input_shape=(4, 16, 16, 3))
    with pytest.raises(UnknownNameError, match='Did you mean "conv2_relu"'):
        kvideo.insert_nonlocal(model, "conv2_rleu")
    with pytest.raises(UsageError, match='layer "features" gives'):
        kvideo.insert_nonlocal(model, "features")
    with pytest.raises(UsageError, match="name the layer before it"):
        kvideo.insert_nonlocal(model, "feature_map")
    with pytest.raises(UsageError, match="at least one layer"):
        kvideo.insert_nonlocal(model, [])
    with pytest.raises(UsageError, match="a place twice"):
        kvideo.insert_nonlocal(model, ["conv1", "conv1_relu"])
    with pytest.raises(UsageError, match="mode must be one of"):
        kvideo.insert_nonlocal(model, "conv1", mode="gauss")
    with pytest.raises(UsageError, match="does not take these options"):
        kvideo.insert_nonlocal(model, "conv1", modes="softmax")
    with pytest.raises(UsageError, match="already"):
        kvideo.insert_nonlocal(kvideo.insert_nonlocal(model, "conv1"), "conv1")

    class Unknown(keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(UsageError, match="not functional"):
        kvideo.insert_nonlocal(Unknown(), "conv1")


def test_the_input_takes_no_block():
    model = kvideo.models.slow_fusion(3, input_shape=(4, 16, 16, 3))
    with pytest.raises(UsageError, match='"clip" is the model\'s input'):
        kvideo.insert_nonlocal(model, "clip")
    with pytest.raises(UsageError, match='"slow.keras" is not functional'):
        kvideo.insert_nonlocal("slow.keras", "clip")
