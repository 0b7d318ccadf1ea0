"""Published checkpoints into models: TensorFlow's, Keras's and C3D's; what does not fit."""

import csv
import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import drifting, write_video
from torch_files import write_state

import kvideo
from kvideo.errors import ModelFileError, UsageError
from kvideo.layers import MeanCubeSubtraction
from kvideo.registry import MODELS, entries
from kvideo.saving import BuilderInfo, ModelInfo, save_model
from kvideo.weights.c3d import C3D, rows_of_time_first
from kvideo.weights.checkpoints import checkpoint_kind, read_checkpoint
from kvideo.weights.guessing import guess_models
from kvideo.weights.inception import INCEPTION
from kvideo.weights.labels import LABEL_SETS, published_class_names
from kvideo.weights.loading import load_tensors
from kvideo.weights.mean_cube import load_mean_cube
from kvideo.weights.resnet3d import RESNET3D

RANDOM = np.random.default_rng(0)
SMALL = {"input_shape": (8, 32, 32, 3)}


@pytest.fixture
def folder(shared):
    folder = shared / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch oracles at {folder}")
    return folder


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.weights}


# TensorFlow 1: DeepMind's I3D.


@pytest.fixture
def original_names(shared) -> dict[str, str]:
    """pytorch-i3d's name of each tensor -> the TensorFlow variable's."""
    with open(shared / "oracles" / "i3d_tf_variables.tsv", newline="") as file:
        return {row["pytorch_i3d_key"]: row["name"] for row in csv.DictReader(file, delimiter="\t")}


def as_deepmind(state, names, *, prefix="RGB/inception_i3d/", bn_axes=0, momentum=False):
    """The variables that a TensorFlow checkpoint would hold; there are no scales in it."""
    variables = {}
    for key, tensor in state.items():
        if key not in names:  # a scale or a counter
            assert key.endswith(("bn.weight", "num_batches_tracked"))
            continue
        name = names[key].removeprefix("RGB/inception_i3d/")
        if tensor.ndim == 5:
            tensor = tensor.transpose(2, 3, 4, 1, 0)
        elif "/batch_norm/" in name:
            tensor = tensor.reshape((1,) * bn_axes + (-1,))
        variables[prefix + name] = tensor
        if momentum:
            variables[f"{prefix}{name}/Momentum"] = np.zeros_like(tensor)
    return variables


def save_variables(prefix, variables):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=[tf.constant(value) for value in variables.values()],
    )
    return str(prefix)


@pytest.fixture
def i3d_state(folder):
    """The fixture's tensors, with scales of 1, which is what the original stands for."""
    state = read_checkpoint(folder / "inception_i3d.pyth")
    return {k: np.ones_like(v) if k.endswith("bn.weight") else v for k, v in state.items()}


@pytest.mark.parametrize(
    ("form", "named_by"),
    [
        ({}, "{}"),
        ({}, "{}.index"),
        ({}, "{}.data-00000-of-00001"),
        ({"prefix": "Flow/inception_i3d/"}, "{}"),
        ({"prefix": "", "bn_axes": 4, "momentum": True}, "{}"),
    ],
    ids=["prefix", "index", "data", "flow-names", "kin600"],
)
def test_deepminds_checkpoints(folder, tmp_path, original_names, i3d_state, form, named_by):
    prefix = save_variables(tmp_path / "model.ckpt", as_deepmind(i3d_state, original_names, **form))
    clips = np.moveaxis(np.load(folder / "inception_i3d.npz")["input_odd"], 1, -1)
    options = {"input_shape": clips.shape[1:], "classifier_activation": None}
    model = kvideo.models.i3d(7, weights=named_by.format(prefix), **options)
    expected = kvideo.models.i3d(7, width_multiplier=0.125, **options)
    load_tensors(expected, i3d_state, INCEPTION, "")
    np.testing.assert_allclose(model(clips), expected(clips), atol=1e-5)
    for one, other in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_scale_that_the_file_lacks_becomes_one(tmp_path, original_names, i3d_state):
    variables = as_deepmind(i3d_state, original_names)
    model = kvideo.models.i3d(7, input_shape=(8, 32, 32, 3), width_multiplier=0.125)
    model.get_layer("mixed5b_b2a_bn").gamma.assign(np.full(4, 3.0, "float32"))
    load_tensors(model, variables, INCEPTION, "")
    np.testing.assert_array_equal(model.get_layer("mixed5b_b2a_bn").gamma, np.ones(4))


def test_a_variable_too_few(tmp_path, original_names, i3d_state):
    variables = as_deepmind(i3d_state, original_names)
    del variables["RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"]
    prefix = save_variables(tmp_path / "model.ckpt", variables)
    with pytest.raises(ModelFileError, match=r"missing +Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w"):
        kvideo.models.i3d(7, input_shape=(8, 32, 32, 3), weights=prefix)


def test_the_flow_stream(tmp_path, original_names, i3d_state, capsys):
    """Two input channels make a model for optical flow, of its published clip."""
    key = "Conv3d_1a_7x7.conv3d.weight"
    state = {**i3d_state, key: i3d_state[key][:, :2]}
    variables = as_deepmind(state, original_names, prefix="Flow/inception_i3d/")
    prefix = save_variables(tmp_path / "model.ckpt", variables)
    model = kvideo.models.i3d(5, weights=prefix)
    assert model.input_shape == (None, 64, 224, 224, 2)
    assert "model.ckpt has 7 classes" in capsys.readouterr().err
    result = kvideo.convert(f"{prefix}.index", "i3d", tmp_path / "flow.keras", size=(32, 32))
    assert result.info.clip_spec.modality == "flow"
    assert result.info.clip_spec.shape == (64, 32, 32, 2)
    video = write_video(tmp_path / "x.mp4", drifting(2, 0))
    (prediction,) = kvideo.predict(tmp_path / "flow.keras", video, num_clips=1)
    assert prediction.probabilities.shape == (7,) and prediction.error is None


def test_tensorflow_files_that_are_not_there_or_damaged(tmp_path, original_names, i3d_state):
    with pytest.raises(ModelFileError, match="there is no TensorFlow checkpoint"):
        kvideo.models.i3d(7, weights=str(tmp_path / "model.ckpt.index"))
    prefix = save_variables(tmp_path / "m.ckpt", {"a": np.zeros(3, "float32")})
    with pytest.raises(ModelFileError, match=r"is no checkpoint that Inception-I3D models take"):
        kvideo.models.i3d(7, weights=prefix)
    (tmp_path / "m.ckpt.index").write_bytes(b"no table at all")
    with pytest.raises(ModelFileError, match="cannot be read as a TensorFlow checkpoint"):
        kvideo.models.i3d(7, weights=prefix)


# Keras's older files.


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.parametrize(
    "places",
    [
        ("conv1/conv1/kernel:0", "conv1/conv1/bias:0"),  # Keras 2, weights
        ("model_weights/conv1/conv1_2/kernel:0", "model_weights/conv1/conv1_2/bias:0"),
        ("conv1/conv1_W", "conv1/conv1_b"),  # Keras 1
        (
            "model_weights/conv1/sequential/conv1/kernel",
            "model_weights/conv1/sequential/conv1/bias",
        ),
    ],
)
def test_names_in_hdf5_files(tmp_path, places):
    arrays = dict(zip(places, (np.ones((3, 3, 3, 2, 4)), np.zeros(4)), strict=True))
    rest = {
        "optimizer_weights/adam/conv1/kernel_m:0": np.ones(3),
        "fc/fc/kernel:0": np.ones((2, 2)),
    }
    path = write_hdf5(tmp_path / "w.h5", {**arrays, **rest})
    for values in (True, False):
        tensors = read_checkpoint(path, values=values)
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        assert shapes == {"conv1/kernel": (3, 3, 3, 2, 4), "conv1/bias": (4,), "fc/kernel": (2, 2)}
        assert tensors["conv1/kernel"].max() == float(values)


def test_hdf5_files_cannot_reach_out(tmp_path):
    """Neither code in the model's description nor other files are looked at."""
    outside = write_hdf5(tmp_path / "outside.h5", {"secret/secret/kernel:0": np.ones(3)})
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(12))
    path = write_hdf5(tmp_path / "w.h5", {"fc/fc/kernel:0": np.ones((2, 2))})
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda", "config": "boom"})
        file["link"] = h5py.ExternalLink(str(outside), "/secret")
        file["soft"] = h5py.SoftLink("/fc")
    assert set(read_checkpoint(path)) == {"fc/kernel"}
    with h5py.File(path, "a") as file:
        file.create_dataset("out/kernel", (3,), "f4", external=[(str(raw), 0, 12)])
    with pytest.raises(ModelFileError, match="refused: it takes out/kernel from another file"):
        read_checkpoint(path)


def test_hdf5_files_of_another_kind(tmp_path):
    (tmp_path / "text.h5").write_text("weights, honestly")
    with pytest.raises(ModelFileError, match=r"cannot be read as a Keras \.h5 file"):
        read_checkpoint(tmp_path / "text.h5")
    write_hdf5(tmp_path / "empty.h5", {})
    with pytest.raises(ModelFileError, match="holds no arrays by layer"):
        read_checkpoint(tmp_path / "empty.h5")
    with pytest.raises(ModelFileError, match="there is no checkpoint file"):
        read_checkpoint(tmp_path / "missing.h5")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_model_of_ours_in_an_hdf5_file(tmp_path, capsys):
    options = {**SMALL, "stem_filters": 8, "nonlocal_blocks": {4: (5,)}}
    model = kvideo.models.slow(5, **options)
    model.save(tmp_path / "slow.h5")
    again = kvideo.models.slow(5, weights=str(tmp_path / "slow.h5"), **options)
    assert not capsys.readouterr().err
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


# C3D.


def c3d_state(names, prefix=""):
    """Random tensors of C3D's sizes, in PyTorch's layout."""
    widths = {
        "conv1a": (3, 64), "conv2a": (64, 128), "conv3a": (128, 256), "conv3b": (256, 256),
        "conv4a": (256, 512), "conv4b": (512, 512), "conv5a": (512, 512), "conv5b": (512, 512),
    }  # fmt: skip
    shapes = {names(layer): (o, i, 3, 3, 3) for layer, (i, o) in widths.items()}
    shapes |= {f"{prefix}fc6": (4096, 8192), f"{prefix}fc7": (4096, 4096)}
    state = {}
    for module, shape in shapes.items():
        fan_in = np.prod(shape[1:])
        state[f"{module}.weight"] = RANDOM.standard_normal(shape, "float32") * (2 / fan_in) ** 0.5
        state[f"{module}.bias"] = RANDOM.standard_normal(shape[0], "float32")
    return state


def c3d_by_hand(x, state):
    """mmaction2's forward pass for normalized x (N, T, H, W, C); it flattens channels first."""
    pools = {"conv1a": (1, 2, 2), "conv2a": 2, "conv3b": 2, "conv4b": 2, "conv5b": 2}
    for layer in ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"):
        kernel = state[f"backbone.{layer}.conv.weight"].transpose(2, 3, 4, 1, 0)
        x = tf.nn.relu(
            tf.nn.conv3d(x, kernel, [1] * 5, "SAME") + state[f"backbone.{layer}.conv.bias"]
        )
        if layer == "conv5b":
            x = tf.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
        if layer in pools:
            x = tf.nn.max_pool3d(x, pools[layer], pools[layer], "VALID")
    x = tf.reshape(tf.transpose(x, (0, 4, 1, 2, 3)), (len(x), -1))
    for layer in ("fc6", "fc7"):
        x = tf.nn.relu(x @ state[f"backbone.{layer}.weight"].T + state[f"backbone.{layer}.bias"])
    return x @ state["cls_head.fc_cls.weight"].T + state["cls_head.fc_cls.bias"]


@pytest.mark.slow
def test_c3d_of_mmaction2(tmp_path, capsys):
    state = c3d_state(lambda layer: f"backbone.{layer}.conv", "backbone.")
    state["cls_head.fc_cls.weight"] = RANDOM.standard_normal((9, 4096), "float32") / 64
    state["cls_head.fc_cls.bias"] = RANDOM.standard_normal(9, "float32")
    file = write_state(tmp_path / "c3d.pth", state)
    model = kvideo.models.c3d(9, weights=str(file), classifier_activation=None)
    assert model.get_layer("normalization").mean == [104.0, 117.0, 128.0]
    pixels = RANDOM.integers(0, 256, (1, 16, 112, 112, 3)).astype("float32")
    expected = c3d_by_hand(pixels - np.float32([104, 117, 128]), state)
    found = model(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert not capsys.readouterr().err
    other = kvideo.models.c3d(9, weights=str(file), pool5_padding="after")
    assert "pool5_pad" not in [layer.name for layer in other.layers]
    # The weights before fine-tuning: no prefix, no last layer.
    bare = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    report = load_tensors(model, bare, C3D, "backbone.pth")
    assert report.remarks()[0].startswith("backbone.pth has no last layer")
    np.testing.assert_array_equal(model.get_layer("fc7").bias, state["backbone.fc7.bias"])
    # The published Keras file: no axes to change, a model of its own names.
    as_keras = {}
    names = {"conv1a": "conv1", "conv2a": "conv2", "logits": "fc8"}
    for layer in model.layers:
        if layer.weights:
            name = names.get(layer.name, layer.name)
            as_keras |= {
                f"{name}/kernel": layer.kernel.numpy() + 1,
                f"{name}/bias": layer.bias.numpy(),
            }
    before = model.get_layer("fc6").kernel.numpy()
    assert load_tensors(model, as_keras, C3D, "sports.h5").dialect == "Sports-1M for Keras"
    np.testing.assert_array_equal(model.get_layer("fc6").kernel, before + 1)


def test_rows_after_flattening_in_the_other_order():
    inputs = keras.Input((2, 3, 4, 5))
    outputs = keras.layers.Dense(6)(keras.layers.Flatten(name="flatten")(inputs))
    model = keras.Model(inputs, outputs)
    kernel = RANDOM.standard_normal((120, 6))
    model.layers[-1].set_weights([rows_of_time_first(model, kernel), np.zeros(6)])
    x = RANDOM.standard_normal((1, 2, 3, 4, 5)).astype("float32")
    expected = x.transpose(0, 4, 1, 2, 3).reshape(1, -1) @ kernel
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "axes", [(3, 0, 1, 2), (0, 1, 2, 3)], ids=["channels first", "channels last"]
)
def test_mean_cube(tmp_path, axes):
    cube = RANDOM.uniform(0, 255, (16, 128, 171, 3))
    np.save(tmp_path / "mean.npy", cube.transpose(axes)[None])
    part = load_mean_cube(tmp_path / "mean.npy", (16, 112, 112, 3))
    np.testing.assert_array_equal(part, cube[:, 8:120, 30:142].astype("float32"))
    part = load_mean_cube(tmp_path / "mean.npy", (8, 128, 171, 3))
    np.testing.assert_array_equal(part, cube[:8].astype("float32"))


def test_mean_cubes_that_cannot_be_used(tmp_path):
    shape = (16, 112, 112, 3)
    with pytest.raises(ModelFileError, match="there is no mean cube"):
        load_mean_cube(tmp_path / "missing.npy", shape)
    np.save(tmp_path / "flat.npy", np.zeros((112, 112)))
    with pytest.raises(ModelFileError, match=r"shape \(112, 112\)"):
        load_mean_cube(tmp_path / "flat.npy", shape)
    np.save(tmp_path / "small.npy", np.zeros((3, 16, 64, 64)))
    with pytest.raises(UsageError, match="larger than the mean cube, 16×64×64"):
        load_mean_cube(tmp_path / "small.npy", shape)
    np.save(tmp_path / "objects.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="is not a .npy file"):
        load_mean_cube(tmp_path / "objects.npy", shape)


def test_mean_cube_subtraction():
    layer = MeanCubeSubtraction()
    pixels = RANDOM.integers(0, 256, (2, 2, 3, 4, 3)).astype("uint8")
    layer.build(pixels.shape)
    cube = RANDOM.uniform(0, 255, (2, 3, 4, 3)).astype("float32")
    layer.cube.assign(cube)
    np.testing.assert_allclose(layer(pixels), pixels[..., ::-1].astype("float32") - cube, atol=1e-4)
    assert not layer.trainable_weights
    again = MeanCubeSubtraction.from_config(MeanCubeSubtraction("rgb").get_config())
    again.build(pixels.shape)
    np.testing.assert_array_equal(again(pixels), pixels.astype("float32"))
    with pytest.raises(UsageError, match="channel_order"):
        MeanCubeSubtraction("gbr")


# What does not fit.


def test_misfits_are_a_table_and_nothing_is_assigned(folder):
    state = read_checkpoint(folder / "slow_r50.pyth")
    del state["blocks.1.res_blocks.0.branch2.norm_a.bias"]
    state["blocks.0.conv.weight"] = np.zeros((4, 3, 5, 7, 7), "float32")
    state["blocks.9.extra"] = np.zeros(3)
    model = kvideo.models.slow(7, stem_filters=4, **SMALL)
    before = weights_of(model)
    with pytest.raises(ModelFileError) as caught:
        load_tensors(model, state, RESNET3D, "slow.pyth")
    lines = str(caught.value).splitlines()
    kinds = "1 misshaped, 1 missing, 1 unexpected"
    assert lines[0] == f"slow.pyth (PyTorchVideo): 3 tensors do not fit the model ({kinds}):"
    rows = {tuple(line.split(maxsplit=2)) for line in lines[1:]}
    assert rows == {
        ("missing", "blocks.1.res_blocks.0.branch2.norm_a.bias", "(4,) in the model"),
        (
            "misshaped",
            "blocks.0.conv.weight",
            "(4, 3, 5, 7, 7) in the file, (4, 3, 1, 7, 7) in the model",
        ),
        ("unexpected", "blocks.9.extra", "(3,) in the file"),
    }
    for path, array in weights_of(model).items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.parametrize(
    ("file", "model", "likely"),
    [
        ("slowfast_r50.pyth", "c2d", "slowfast or slowfast_8x8_r50"),
        ("c2d_r50.pyth", "slow", "c2d"),
        ("mc3_18.pyth", "r3d_18", "mc3_18"),
        ("s3d.pyth", "i3d", "s3d"),
        ("r3d_18.pyth", "slowfast", "r3d_18"),
    ],
)
def test_a_checkpoint_of_another_model(folder, file, model, likely):
    with pytest.raises(ModelFileError, match=f"It looks like a checkpoint of the model {likely}."):
        getattr(kvideo.models, model)(7, input_shape=(8, 32, 32, 3), weights=str(folder / file))


@pytest.mark.parametrize(
    ("file", "models"),
    [
        ("c2d_r50", "c2d"), ("i3d_r50", "i3d_r50"), ("slow_r50", "slow_8x8_r50"),
        ("slowfast_r50", "slowfast_8x8_r50"), ("slowfast_4x16_r50", "slowfast_4x16_r50"),
        ("r2plus1d_r50", "r2plus1d"), ("r3d_18", "r3d_18"), ("mc3_18", "mc3_18"),
        ("r2plus1d_18", "r2plus1d_18"), ("s3d", "s3d"), ("inception_i3d", "i3d"),
        ("nonlocal", None),
    ],
)  # fmt: skip
def test_guesses(folder, file, models):
    found = guess_models(read_checkpoint(folder / f"{file}.pyth", values=False))
    assert models in found if models else not found


def test_given_widths_are_not_overruled(folder):
    """What a file says of the architecture is only taken where nothing is given."""
    weights = str(folder / "slow_r50.pyth")
    assert kvideo.models.slow(7, weights=weights, **SMALL).get_layer("stem").filters == 4
    with pytest.raises(ModelFileError, match=r"\(4, 3, 1, 7, 7\) in the file, \(8, 3, 1, 7, 7\)"):
        kvideo.models.slow(7, weights=weights, stem_filters=8, **SMALL)


@pytest.mark.parametrize("name", ["malicious.pyth", "malicious_legacy.pyth"])
def test_a_malicious_file_does_nothing(folder, tmp_path, name):
    marker = Path("/tmp/PWNED")  # noqa: S108 (what the file would make)
    for run in (
        lambda: kvideo.models.slow(7, weights=str(folder / name)),
        lambda: kvideo.convert(folder / name, "slow", tmp_path / "m.keras"),
    ):
        with pytest.raises(ModelFileError, match=r"refused: it names posix\.system"):
            run()
    assert not marker.exists()
    assert not list(tmp_path.iterdir())


# Another number of classes.


def test_another_number_of_classes_leaves_the_head_fresh(folder, capsys):
    weights = str(folder / "r3d_18.pyth")
    seven, five = (kvideo.models.r3d_18(n, weights=weights, **SMALL) for n in (7, 5))
    assert 'r3d_18.pyth has 7 classes, the model another number: the last layer, "logits", is' in (
        capsys.readouterr().err
    )
    assert five.get_layer("logits").kernel.shape == (32, 5)
    for one, other in zip(seven.weights[:-2], five.weights[:-2], strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_last_layer_of_another_width_is_a_misfit(folder):
    state = read_checkpoint(folder / "r3d_18.pyth")
    state["fc.weight"] = np.zeros((5, 9), "float32")
    state["fc.bias"] = np.zeros(5, "float32")
    model = kvideo.models.r3d_18(7, stem_filters=4, **SMALL)
    with pytest.raises(ModelFileError, match=r"misshaped +fc\.weight +\(5, 9\) in the file"):
        load_tensors(model, state, kvideo.models.r3d_18.family, "")


def test_a_model_file_brings_its_widths_and_normalization(tmp_path, capsys):
    model = kvideo.models.slow(5, stem_filters=8, **SMALL)
    entry = entries(MODELS)["slow"]
    info = ModelInfo(
        kvideo.ClipSpec(8, size=(32, 32)),
        tuple("abcde"),
        builder=BuilderInfo("slow", entry.value, "kvideo", entry.version, {"stem_filters": 8}),
    )
    save_model(model, tmp_path / "slow.keras", info)
    other = kvideo.models.slow(3, weights=str(tmp_path / "slow.keras"), **SMALL)
    assert "slow.keras has 5 classes" in capsys.readouterr().err
    for one, another in zip(model.weights[:-2], other.weights[:-2], strict=True):
        np.testing.assert_array_equal(one, another, err_msg=one.path)


# Names and lists.


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.keras", "keras"), ("a.weights.h5", "keras"), ("a.pyth", "torch"), ("a.pth", "torch"),
        ("a.pt", "torch"), ("a.h5", "hdf5"), ("a.hdf5", "hdf5"), ("m.ckpt.index", "tensorflow"),
        ("m.ckpt.data-00000-of-00001", "tensorflow"), ("m.ckpt", None), ("kinetics400", None),
    ],
)  # fmt: skip
def test_kinds_of_files(path, kind):
    assert checkpoint_kind(path) == kind


def test_what_weights_may_be(tmp_path):
    with pytest.raises(UsageError, match="\"kinetics400\", or a .keras, .*not 'imagenet'"):
        kvideo.models.slowfast(7, weights="imagenet")
    with pytest.raises(UsageError, match="there is no weights file gone.pyth"):
        kvideo.models.slowfast(7, weights="gone.pyth")
    with pytest.raises(UsageError, match=r'None, "imagenet" or a .keras or .weights.h5 file'):
        kvideo.models.single_frame(7, weights=str(tmp_path / "x.pyth"))


def test_class_names():
    """The order is that of PyTorchVideo's list of names with numbers, of which these are known."""
    assert {name: len(published_class_names(name)) for name in LABEL_SETS} == LABEL_SETS
    kinetics = published_class_names("kinetics400")
    assert list(kinetics) == sorted(kinetics) and len(set(kinetics)) == 400
    numbers = {
        "abseiling": 0, "archery": 5, "bench pressing": 19, "changing wheel": 53,
        "cutting nails": 81, "eating ice cream": 115, "ripping paper": 276,
        "sharpening knives": 290, "throwing discus": 358, "zumba": 399,
    }  # fmt: skip
    assert {name: kinetics.index(name) for name in numbers} == numbers
    assert published_class_names("sports1m")[486] == "model aircraft"
    with pytest.raises(KeyError):
        published_class_names("kinetics")
