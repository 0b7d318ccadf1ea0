"""Every published checkpoint's numbers, as its publisher's code computes them.

The oracles are outputs of PyTorch models of the published layouts; see their README for how they
were made. Their inputs are normalized; our models take pixels, so the model's own normalization is
inverted first.
"""

import csv
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kvideo
from kvideo.weights import loading
from kvideo.weights.checkpoints import read_checkpoint
from kvideo.weights.families import Dialect

BUILDERS = {  # fixture -> registered model
    "c2d_r50": "c2d",
    "i3d_r50": "i3d_r50",
    "slow_r50": "slow",
    "slowfast_r50": "slowfast",
    "slowfast_4x16_r50": "slowfast_4x16_r50",
    "r2plus1d_r50": "r2plus1d",
    "r3d_18": "r3d_18",
    "mc3_18": "mc3_18",
    "r2plus1d_18": "r2plus1d_18",
    "s3d": "s3d",
    "inception_i3d": "i3d",
}
TWO_PATHWAYS = ("slowfast_r50", "slowfast_4x16_r50")
CLASSES = 7


@pytest.fixture(scope="session")
def oracles(shared) -> Path:
    folder = shared / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch oracles at {folder}")
    return folder


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def build(name: str, clips: np.ndarray, weights: Path, **options) -> keras.Model:
    """The model that a fixture is of, for clips (N, T, H, W, C)."""
    builder = getattr(kvideo.models, BUILDERS[name])
    shape = clips.shape[1:]
    return builder(
        CLASSES, input_shape=shape, weights=str(weights), classifier_activation=None, **options
    )


def pixels(model: keras.Model, normalized: np.ndarray) -> np.ndarray:
    """What the model's first layer turns into `normalized`."""
    layer = model.get_layer("normalization")
    return (normalized * np.float32(layer.std) + np.float32(layer.mean)).astype("float32")


def assert_close(found: np.ndarray, expected: np.ndarray, message: str = "") -> None:
    tolerance = 1e-3 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=message)


def layer_of(name: str, model: keras.Model, activation: str) -> str:
    """Our layer whose output a fixture calls by the name of the publisher's module."""
    place = activation.removeprefix("act_")
    if match := re.fullmatch(r"(stem|res\d)_(slow|fast)", place):
        stage, path = match.groups()
        if path == "slow" and stage != "res5":
            return f"slow_{stage}_fused"
        place, prefix = stage, f"{path}_"
    else:
        prefix = ""
    fixed = {
        "pool1": "res2_pool", "features0": "conv1a_t_relu", "features3": "conv2c_t_relu",
        "features6": "mixed3c", "features12": "mixed4f", "features15": "mixed5c",
        "Conv3d_1a_7x7": "conv1a_relu", "MaxPool3d_3a_3x3": "pool3a", "Mixed_3c": "mixed3c",
        "Mixed_4f": "mixed4f", "Mixed_5c": "mixed5c",
    }  # fmt: skip
    if place in fixed:
        return fixed[place]
    names = [layer.name for layer in model.layers]
    if place == "stem":
        candidates = ("stem_pool", "stem_t_relu", "stem_relu")
        return next(f"{prefix}{c}" for c in candidates if f"{prefix}{c}" in names)
    return [n for n in names if re.fullmatch(rf"{prefix}{place}_\d+_relu", n)][-1]


@pytest.mark.parametrize("name", BUILDERS)
def test_logits_and_activations(oracles, name):
    oracle = np.load(oracles / f"{name}.npz")
    clips = channels_last(oracle["input"])
    model = build(name, clips, oracles / f"{name}.pyth")
    acts = [key for key in oracle.files if key.startswith("act_")]
    assert len(acts) >= 5
    layers = {key: layer_of(name, model, key) for key in acts}
    outputs = {key: model.get_layer(layer).output for key, layer in layers.items()}
    found = keras.Model(model.input, {**outputs, "logits": model.output})(pixels(model, clips))
    assert_close(found["logits"], oracle["logits"], "logits")
    for key in acts:
        assert_close(found[key][:1], channels_last(oracle[key]), f"{key} ({layers[key]})")


@pytest.mark.parametrize("name", BUILDERS)
def test_logits_of_an_odd_size(oracles, name):
    oracle = np.load(oracles / f"{name}.npz")
    clips = channels_last(oracle["input_odd"])
    model = build(name, clips, oracles / f"{name}.pyth")
    assert_close(model(pixels(model, clips)), oracle["logits_odd"])


def test_r2plus1d_ends_in_a_softmax(oracles):
    oracle = np.load(oracles / "r2plus1d_r50.npz")
    clips = channels_last(oracle["input"])
    model = kvideo.models.r2plus1d(
        CLASSES, input_shape=clips.shape[1:], weights=str(oracles / "r2plus1d_r50.pyth")
    )
    np.testing.assert_allclose(model(pixels(model, clips)), oracle["probs"], atol=1e-4)


def test_a_window_of_the_head(oracles):
    """On a map larger than the published window its averages are averaged: another answer."""
    oracle = np.load(oracles / "slow_r50_window.npz")
    clips = channels_last(oracle["input"])
    weights = oracles / "slow_r50.pyth"
    windowed = build("slow_r50", clips, weights, head_window=(8, 2, 2))
    assert_close(windowed(pixels(windowed, clips)), oracle["logits"])
    plain = build("slow_r50", clips, weights)
    assert_close(plain(pixels(plain, clips)), oracle["logits_global"])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("i3d_r50_legacy.pyth", "i3d_r50"),
        ("c2d_r50_dataparallel.pyth", "c2d_r50"),
        ("mc3_18_bare.pth", "mc3_18"),
    ],
)
def test_other_forms_of_the_file(oracles, file, name):
    """The older format; names after `module.` beside an optimizer's state; nothing but tensors."""
    oracle = np.load(oracles / f"{name}.npz")
    clips = channels_last(oracle["input"])
    model = build(name, clips, oracles / file)
    assert_close(model(pixels(model, clips)), oracle["logits"])


def test_half_precision(oracles):
    """float16 tensors become float32 weights, exactly."""
    clips = channels_last(np.load(oracles / "slow_r50.npz")["input"])
    model = build("slow_r50", clips, oracles / "slow_r50_fp16.pyth")
    assert {variable.dtype for variable in model.weights} <= {"float32", "uint32"}
    expected = np.load(oracles / "slow_r50_fp16.npz")["logits"]
    np.testing.assert_allclose(model(pixels(model, clips)), expected, atol=1e-4)


# PySlowFast's names, by the table in the oracles' README.


def pyslowfast_name(key: str) -> str:
    """PySlowFast's name of a tensor that PyTorchVideo calls `key`; written from the README."""
    two = "multipathway" in key
    if match := re.match(r"blocks\.\d\.proj\.(.*)", key):
        return f"head.projection.{match[1]}"
    if match := re.match(r"blocks\.(\d)\.multipathway_fusion\.(.*)", key):
        tail = match[2].replace("conv_fast_to_slow", "conv_f2s").replace("norm", "bn")
        return f"s{int(match[1]) + 1}_fuse.{tail}"
    match = re.match(r"blocks\.(\d)\.(?:multipathway_blocks\.(\d)\.)?(.*)", key)
    assert match and two == bool(match[2])
    block, path, tail = int(match[1]), match[2] or "0", match[3]
    if not tail.startswith("res_blocks"):
        return f"s1.pathway{path}_stem.{tail.replace('norm', 'bn')}"
    _, number, *rest = tail.split(".")
    tail = ".".join(rest)
    for one, other in (
        ("branch1_conv", "branch1"), ("branch1_norm", "branch1_bn"), ("conv_a", "a"),
        ("norm_a", "a_bn"), ("conv_b", "b"), ("norm_b", "b_bn"), ("conv_c", "c"),
        ("norm_c", "c_bn"),
    ):  # fmt: skip
        tail = tail.replace(f"{one}.", f"{other}.")
    return f"s{block + 1}.pathway{path}_res{number}.{tail}"


def in_pyslowfasts_names(oracles: Path, name: str) -> dict[str, np.ndarray]:
    """A fixture's tensors. C2D and I3D have a pool at `blocks.2`, which PySlowFast numbers not."""
    tensors = read_checkpoint(oracles / f"{name}.pyth")
    if name in ("c2d_r50", "i3d_r50"):
        tensors = {
            re.sub(r"^blocks\.([3-6])", lambda m: f"blocks.{int(m[1]) - 1}", key): tensor
            for key, tensor in tensors.items()
        }
    return {pyslowfast_name(key): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["c2d_r50", "i3d_r50", "slow_r50", *TWO_PATHWAYS])
def test_pyslowfasts_names(oracles, name):
    oracle = np.load(oracles / f"{name}.npz")
    clips = channels_last(oracle["input"])
    tensors = in_pyslowfasts_names(oracles, name)
    builder = getattr(kvideo.models, BUILDERS[name])
    dialect = loading.find_dialect(tensors, builder.family, name)
    assert dialect.name == "PySlowFast"
    assert dialect.count_classes(tensors) == CLASSES
    model = builder(
        CLASSES,
        input_shape=clips.shape[1:],
        classifier_activation=None,
        **dialect.options(tensors),
    )
    report = loading.load_tensors(model, tensors, builder.family, "renamed")
    assert not report.remarks()
    assert_close(model(pixels(model, clips)), oracle["logits"])


def test_pyslowfasts_nonlocal_blocks(oracles):
    """The block's oracle has 16 channels, as res2 of the narrow models: it is put in there."""
    tensors = in_pyslowfasts_names(oracles, "slow_r50")
    for key, tensor in read_checkpoint(oracles / "nonlocal.pyth").items():
        tail = re.sub(r"^norm\.", "bn.", key)
        tensors[f"s2.pathway0_nonlocal1.{tail}"] = tensor
    family = kvideo.models.slow.family
    dialect = loading.find_dialect(tensors, family, "")
    options = dialect.options(tensors)
    assert options == {"stem_filters": 4, "nonlocal_blocks": {2: [1]}}
    model = kvideo.models.slow(CLASSES, input_shape=(4, 24, 40, 3), **options)
    report = loading.load_tensors(model, tensors, family, "renamed")
    assert not report.remarks()
    oracle = np.load(oracles / "nonlocal.npz")
    block = model.get_layer("res2_1_nonlocal")
    assert_close(
        block(channels_last(oracle["input"])), channels_last(oracle["output_softmax_pool122"])
    )


def test_nonlocal_blocks_that_a_file_lacks_stay_as_they_are(oracles, capsys):
    """They begin as the identity, so the network's answers are those of the file."""
    oracle = np.load(oracles / "i3d_r50.npz")
    clips = channels_last(oracle["input"])
    model = build("i3d_r50", clips, oracles / "i3d_r50.pyth", nonlocal_blocks=5)
    assert_close(model(pixels(model, clips)), oracle["logits"])
    assert "no weights for res3_1_nonlocal" in capsys.readouterr().err


# Full-size checkpoints: their names and shapes, without their numbers.

FULL_SIZE = {  # model in the list -> registered model, options
    "c2d_r50": ("c2d", {}),
    "i3d_r50": ("i3d_r50", {}),
    "slow_r50": ("slow_8x8_r50", {}),
    "slowfast_r50": ("slowfast_8x8_r50", {}),
    "slowfast_4x16_r50": ("slowfast_4x16_r50", {}),
    "slowfast_r101": ("slowfast_8x8_r101", {}),
    "slowfast_16x8_r101_50_50": ("slowfast_16x8_r101", {}),
    "r2plus1d_r50": ("r2plus1d", {}),
    "r3d_18": ("r3d_18", {}),
    "mc3_18": ("mc3_18", {}),
    "r2plus1d_18": ("r2plus1d_18", {}),
    "s3d": ("s3d", {"input_shape": (16, 224, 224, 3)}),
    "inception_i3d": ("i3d", {}),
}


def full_size_shapes(oracles: Path, name: str) -> dict[str, tuple[int, ...]]:
    with open(oracles / "hub_state_dicts.tsv", newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0] == name]
    return {
        key: () if shape == "scalar" else tuple(int(n) for n in shape.split("x"))
        for _, key, shape, *_ in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_names_and_shapes(oracles, name):
    """Every tensor of the published file has its place, and every weight its tensor."""
    shapes = full_size_shapes(oracles, name)
    builder_name, options = FULL_SIZE[name]
    builder = getattr(kvideo.models, builder_name)
    model = builder(400, **options)
    tensors = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in shapes.items()}
    dialect: Dialect = loading.find_dialect(tensors, builder.family, name)
    assert dialect.options(tensors) == {}
    report = loading.load_tensors(model, tensors, builder.family, name)
    counters = [key for key in tensors if key.endswith("num_batches_tracked")]
    assert report.tensors == len(tensors) - len(counters)
    assert report.classes == 400
    assert not report.remarks()
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            assert float(keras.ops.max(variable)) == float(keras.ops.min(variable)) == 0.5
