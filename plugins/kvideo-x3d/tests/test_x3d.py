"""X3D and CSN: the published sizes, PyTorchVideo's numbers, and what kvideo does with a model."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kvideo
from kvideo.analysis import count_macs, count_parameters, receptive_fields
from kvideo.errors import ModelFileError, UsageError
from kvideo.registry import get_builder
from kvideo.saving import ModelInfo

CLASSES = 7
# With 400 classes, by PyTorchVideo's checkpoints.
PARAMETERS = {
    "x3d_xs": 3_794_274, "x3d_s": 3_794_274, "x3d_m": 3_794_274, "x3d_l": 6_153_384,
    "csn_r101": 22_213_776,
}  # fmt: skip
# Multiply-adds in billions, by the papers' tables.
MACS = {"x3d_xs": 0.60, "x3d_s": 1.96, "x3d_m": 4.73, "x3d_l": 18.37}


@pytest.fixture
def oracles() -> Path:
    data = Path(os.environ.get("KVIDEO_TEST_DATA", Path(__file__).parents[4] / "shared"))
    folder = data / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch oracles at {folder}")
    return folder


def pixels(model: keras.Model, normalized: np.ndarray) -> np.ndarray:
    layer = model.get_layer("normalization")
    clips = np.moveaxis(normalized, 1, -1)
    return (clips * np.float32(layer.std) + np.float32(layer.mean)).astype("float32")


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_sizes(name):
    model = get_builder(name)(400)
    assert count_parameters(model) == PARAMETERS[name]
    if name in MACS:
        assert count_macs(model) / 1e9 == pytest.approx(MACS[name], rel=0.02)
    for layer, rank in (("feature_map", 5), ("features", 2), ("logits", 2)):
        assert len(model.get_layer(layer).output.shape) == rank


@pytest.mark.parametrize("name", ["x3d_xs", "csn_r101"])
def test_the_numbers_are_pytorchvideos(oracles, name):
    oracle = np.load(oracles / f"{name}.npz")
    options = {} if name == "x3d_xs" else {"stem_filters": 4}
    for given, expected in (("input", "logits"), ("input_odd", "logits_odd")):
        shape = np.moveaxis(oracle[given], 1, -1).shape[1:]
        model = get_builder(name)(
            CLASSES, input_shape=shape, weights=str(oracles / f"{name}.pyth"),
            classifier_activation=None, **options,
        )  # fmt: skip
        found = np.asarray(model(pixels(model, oracle[given]), training=False))
        limit = 1e-3 * max(1, np.abs(oracle[expected]).max())
        np.testing.assert_allclose(found, oracle[expected], rtol=0, atol=limit)
        if given != "input":
            continue
        for key in (key for key in oracle.files if key.startswith("act_")):
            place = key.removeprefix("act_")
            names = [layer.name for layer in model.layers]
            last = [n for n in names if re.fullmatch(rf"{place}_\d+_relu", n)]
            layer = last[-1] if last else "stem_pool" if "stem_pool" in names else "stem_relu"
            until = keras.Model(model.input, model.get_layer(layer).output)
            clips = pixels(model, oracle["input"][:1])
            activation = np.moveaxis(np.asarray(until(clips, training=False)), -1, 1)
            wanted = oracle[key]
            limit = 1e-3 * max(1, np.abs(wanted).max())
            np.testing.assert_allclose(activation, wanted, rtol=0, atol=limit, err_msg=key)


def test_another_number_of_classes_and_another_family(oracles, capsys):
    model = get_builder("x3d_xs")(
        3, input_shape=(4, 64, 64, 3), weights=str(oracles / "x3d_xs.pyth")
    )
    assert model.output_shape == (None, 3) and "is fresh" in capsys.readouterr().err
    with pytest.raises(ModelFileError):
        get_builder("x3d_xs")(7, input_shape=(4, 64, 64, 3), weights=str(oracles / "s3d.pyth"))


@pytest.mark.parametrize(("name", "options"), [("x3d_xs", {}), ("csn_r101", {"stem_filters": 4})])
def test_saving_learning_and_analysis(tmp_path, name, options):
    shape = (4, 64, 64, 3)
    model = get_builder(name)(3, input_shape=shape, **options)
    info = ModelInfo(kvideo.ClipSpec(4, 5.0, (64, 64)), ("a", "b", "c"))
    kvideo.save_model(model, tmp_path / "model.keras", info)
    again = kvideo.load_model(tmp_path / "model.keras")
    clips = np.random.default_rng(1).uniform(0, 255, (3, *shape)).astype("float32")
    np.testing.assert_allclose(np.asarray(again(clips)), np.asarray(model(clips)), atol=1e-5)
    assert None not in receptive_fields(model).values()
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", jit_compile=False)
    assert np.isfinite(model.train_on_batch(clips, np.arange(3)))


def test_clips_that_do_not_suit():
    with pytest.raises(UsageError, match="must be"):
        get_builder("x3d_s")(3, input_shape=(4, 64, 64, 2))


@pytest.mark.parametrize(("name", "options"), [("x3d_xs", {}), ("csn_r101", {"stem_filters": 4})])
def test_a_checkpoint_becomes_a_model_file(name, options, oracles, tmp_path):
    """`kvideo convert` takes PyTorchVideo's files, so that they serve without training."""
    out = tmp_path / "model.keras"
    done = kvideo.convert(oracles / f"{name}.pyth", name, out, options=options)
    assert done.tensors and len(done.info.class_names) == CLASSES
    assert kvideo.load_model(out).output_shape == (None, CLASSES)
