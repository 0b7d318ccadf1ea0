"""One self-describing file: round trips, precision, damage, and nothing in it that is executed."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kvideo
from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import KVideoError, ModelFileError, UsageError
from kvideo.saving import BuilderInfo, ModelInfo, load_model, model_info, read_info, save_model

SPEC = ClipSpec(4, 7.5, (16, 24), framing="letterbox")
BUILDER = BuilderInfo(
    "slow_fusion", "kvideo.models.fusion:slow_fusion", "kvideo", "0.1.0", {"widths": [2, 3]}
)
INFO = ModelInfo(SPEC, ("run", "größer, <b>"), False, Views(3, 3), BUILDER)
CLIPS = np.random.default_rng(0).integers(0, 256, (3, *SPEC.shape), np.uint8)
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build(policy: str = "float32") -> keras.Model:
    """A small model with weights of its own, always the same; batch norm's are not the initial."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = kvideo.models.slow_fusion(2, input_shape=SPEC.shape, widths=(2, 3))
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.path else (-0.4, 0.4)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    save_model(build(), path, INFO)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, contents: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def policies(model: keras.Model) -> dict[str, str]:
    return {layer.name: layer.dtype_policy.name for layer in model.layers}


# -- round trips -----------------------------------------------------------------------------------


def test_a_file_describes_itself(saved: Path) -> None:
    assert read_info(saved) == INFO
    model = load_model(saved)
    assert model_info(model) == INFO and model_info(model).builder.options == {"widths": [2, 3]}
    np.testing.assert_allclose(model(CLIPS), build()(CLIPS), rtol=1e-6)
    for one, other in zip(model.weights, build().weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("trained_in", POLICIES)
@pytest.mark.parametrize("used_in", POLICIES)
def test_every_precision_comes_back(tmp_path: Path, trained_in: str, used_in: str) -> None:
    model = build(POLICIES[trained_in])
    save_model(model, tmp_path / "model.keras", INFO)
    config = json.loads(members(tmp_path / "model.keras")["config.json"])
    assert "mixed_" not in json.dumps(config)  # a file is float32 wherever it was trained
    back = load_model(tmp_path / "model.keras", precision=used_in)
    found = policies(back)
    assert {found.pop(name) for name in ("clip", "logits", "predictions")} == {"float32"}
    assert set(found.values()) == {POLICIES[used_in]}
    for one, other in zip(back.weights, model.weights, strict=True):
        assert one.dtype == "float32"
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    if used_in != "float16":  # TensorFlow has no float16 pooling on a CPU
        outputs = back(CLIPS)
        assert outputs.dtype == "float32"
        tolerance = {"float32": 1e-5, "bfloat16": 0.05}[used_in]
        np.testing.assert_allclose(outputs, build()(CLIPS), atol=tolerance)
    assert keras.config.dtype_policy().name == "float32"  # nothing global has changed


def test_saved_again_after_loading(saved: Path, tmp_path: Path) -> None:
    model = load_model(saved, precision="bfloat16")
    save_model(model, tmp_path / "again.keras")  # with the info that it carries
    assert read_info(tmp_path / "again.keras") == INFO
    one, two = members(saved), members(tmp_path / "again.keras")
    assert set(one) == set(two)
    np.testing.assert_array_equal(load_model(tmp_path / "again.keras")(CLIPS), build()(CLIPS))


def test_a_fresh_process_needs_the_file_only(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy, kvideo\n"
        "from kvideo.saving import read_info\n"
        f"info = read_info({str(saved)!r})\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        f"model = kvideo.load_model({str(saved)!r})\n"
        "assert kvideo.model_info(model) == info\n"
        f"clips = numpy.random.default_rng(0).integers(0, 256, {(3, *SPEC.shape)!r}, numpy.uint8)\n"
        "numpy.save('out.npy', model(clips))\n"
        "print(*info.class_names, sep='|')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "run|größer, <b>"
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), build()(CLIPS), rtol=1e-6)


def test_keras_itself_loads_the_file(saved: Path) -> None:
    model = keras.saving.load_model(saved)
    np.testing.assert_allclose(model(CLIPS), build()(CLIPS), rtol=1e-6)
    with pytest.raises(UsageError, match="carries no ClipSpec"):
        model_info(model)


def test_a_model_of_ones_own_needs_no_builder(tmp_path: Path) -> None:
    inputs = keras.Input(SPEC.shape)
    x = keras.layers.GlobalAveragePooling3D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    info = ModelInfo(SPEC, ("a", "b"), multi_label=True)
    save_model(model, tmp_path / "own.keras", info)
    back = load_model(tmp_path / "own.keras")
    assert model_info(back) == info and info.builder is None and info.views == Views()
    np.testing.assert_allclose(back(CLIPS), model(CLIPS), rtol=1e-6)


# -- mistakes --------------------------------------------------------------------------------------


def test_what_is_no_model_is_said() -> None:
    with pytest.raises(UsageError, match="model must be a keras.Model.*, not 3"):
        model_info(3)  # type: ignore[arg-type]


def test_what_cannot_be_saved_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    model = build()
    with pytest.raises(UsageError, match="carries no ClipSpec"):
        save_model(model, tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"ends in \.keras; .*model\.h5 does not"):
        save_model(model, tmp_path / "model.h5", INFO)
    three = ModelInfo(SPEC, ("a", "b", "c"))
    with pytest.raises(UsageError, match="2 outputs, but 3 class names"):
        save_model(model, tmp_path / "model.keras", three)
    with pytest.raises(KVideoError, match="there is no folder"):
        save_model(model, tmp_path / "nowhere" / "model.keras", INFO)
    assert not list(tmp_path.iterdir())


def test_an_unknown_precision_is_named(saved: Path) -> None:
    with pytest.raises(UsageError, match="precision must be one of .*not 'float8'"):
        load_model(saved, precision="float8")


@pytest.mark.parametrize("load", [read_info, load_model])
def test_a_missing_file_and_files_of_other_kinds(load, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model file .*none\.keras"):
        load(tmp_path / "none.keras")
    for content in (b"", b"not a zip archive", b"PK\x03\x04", os.urandom(5000)):
        (tmp_path / "bad.keras").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"bad\.keras is not a whole model file"):
            load(tmp_path / "bad.keras")
    with pytest.raises(ModelFileError, match="not a whole model file|no model file"):
        load(tmp_path)  # a folder that is no run
    plain = build()
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(ModelFileError, match=r"plain\.keras was not saved by kvideo.*save_model"):
        load(tmp_path / "plain.keras")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_a_file_that_is_cut_off(saved: Path, tmp_path: Path, share: float) -> None:
    data = saved.read_bytes()
    (tmp_path / "cut.keras").write_bytes(data[: int(share * len(data))])
    for load in (read_info, load_model):
        with pytest.raises(ModelFileError, match=r"cut\.keras is not a whole model file"):
            load(tmp_path / "cut.keras")


def test_altered_bytes_never_give_another_model(saved: Path, tmp_path: Path) -> None:
    """Either an error of ours, or (where no content was touched) the very same model."""
    data, expected = saved.read_bytes(), np.array(build()(CLIPS))
    rng, refused = np.random.default_rng(0), 0
    for position in rng.integers(0, len(data), 60):
        altered = bytearray(data)
        altered[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "altered.keras").write_bytes(altered)
        try:
            model = load_model(tmp_path / "altered.keras")
        except ModelFileError as error:
            assert "altered.keras" in str(error)
            refused += 1
        else:
            np.testing.assert_allclose(model(CLIPS), expected, rtol=1e-6)
    assert refused > 40


@pytest.mark.parametrize("missing", ["config.json", "model.weights.h5"])
def test_a_member_that_is_missing(saved: Path, tmp_path: Path, missing: str) -> None:
    contents = {name: data for name, data in members(saved).items() if name != missing}
    with pytest.raises(ModelFileError, match=r"part\.keras could not be loaded"):
        load_model(write_members(tmp_path / "part.keras", contents))


def test_weights_that_are_missing_are_not_left_at_their_initial_values(saved, tmp_path) -> None:
    contents = members(saved)
    weights = io.BytesIO(contents["model.weights.h5"])
    with h5py.File(weights, "a") as file:
        del file["layers/batch_norm"]
    contents["model.weights.h5"] = weights.getvalue()
    with pytest.raises(ModelFileError, match=r"part\.keras could not be loaded"):
        load_model(write_members(tmp_path / "part.keras", contents))


def with_info(saved: Path, target: Path, change) -> Path:
    contents = members(saved)
    document = json.loads(contents["kvideo.json"])
    change(document)
    return write_members(target, {**contents, "kvideo.json": json.dumps(document)})


@pytest.mark.parametrize("load", [read_info, load_model])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2, kvideo_version="9.1"), "written by kvideo 9.1.*pip install"),
        (lambda d: d["clip_spec"].update(tempo=2), "knows no clip setting 'tempo'"),
        (lambda d: d["clip_spec"].update(num_frames=0), "num_frames must be at least 1"),
        (lambda d: d.pop("class_names"), "damaged.*class_names"),
        (lambda d: d.update(views=3), "damaged"),
        (lambda d: d.update(clip_spec=None), "damaged"),
        (lambda d: d["builder"].update(colour="red"), "damaged.*colour"),
    ],
)
def test_an_info_that_says_something_else(saved, tmp_path, load, change, message) -> None:
    path = with_info(saved, tmp_path / "odd.keras", change)
    with pytest.raises(ModelFileError, match=rf"odd\.keras: .*{message}"):
        load(path)


def test_a_builder_that_is_not_installed_is_named(saved: Path, tmp_path: Path) -> None:
    def change(document: dict) -> None:
        document["builder"].update(name="x3d", distribution="kvideo-x3d", version="4.5")

    path = with_info(saved, tmp_path / "foreign.keras", change)
    with pytest.raises(ModelFileError, match='"x3d" of kvideo-x3d 4.5.*pip install kvideo-x3d'):
        load_model(path)
    assert read_info(path).builder.name == "x3d"  # which needs no code


# -- nothing is executed ---------------------------------------------------------------------------


def with_layer(saved: Path, target: Path, layer: dict) -> Path:
    """The file with another layer in the place of the last activation."""
    contents = members(saved)
    config = json.loads(contents["config.json"])
    last = config["config"]["layers"][-1]
    last.update({"name": last["name"], **layer})
    return write_members(target, {**contents, "config.json": json.dumps(config)})


def test_a_lambda_layer_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input(SPEC.shape)
    x = keras.layers.GlobalAveragePooling3D()(inputs)
    touched = tmp_path / "touched"
    code = eval(f"lambda x: (open({str(touched)!r}, 'w'), x)[1]")
    outputs = keras.layers.Lambda(code, output_shape=(3,))(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(outputs))
    save_model(model, tmp_path / "lambda.keras", ModelInfo(SPEC, ("a", "b")))
    model(CLIPS)
    touched.unlink()  # the code does run where it is allowed to
    with pytest.raises(ModelFileError, match=r"(?s)lambda\.keras could not be loaded: .*[Ll]ambda"):
        load_model(tmp_path / "lambda.keras")
    assert not touched.exists()


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "nasty_module", "class_name": "Nasty", "registered_name": None},
        {"module": "nasty_module", "class_name": "Nasty", "registered_name": "nasty>Nasty"},
        {"module": "nasty_module", "class_name": "function", "config": "Nasty"},
        {"module": "builtins", "class_name": "exec", "config": {}},
        {"module": "os", "class_name": "system", "config": {"command": "touch touched"}},
    ],
)
def test_foreign_code_named_by_a_file_is_not_imported(saved, tmp_path, monkeypatch, layer) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "nasty_module.py").write_text(
        f"import keras\nopen({str(touched)!r}, 'w')\n"
        "class Nasty(keras.layers.Activation):\n"
        "    def __init__(self, **options): super().__init__('softmax')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = with_layer(saved, tmp_path / "nasty.keras", layer)
    with pytest.raises(ModelFileError, match=r"nasty\.keras could not be loaded"):
        load_model(path)
    assert not touched.exists() and "nasty_module" not in sys.modules


def test_an_entry_point_of_the_file_itself_is_not_imported(saved, tmp_path, monkeypatch) -> None:
    """Only the installed entry point of that name is loaded, never the one that the file says."""
    touched = tmp_path / "touched"
    (tmp_path / "nasty_builder.py").write_text(f"open({str(touched)!r}, 'w')\nmodel = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = with_info(
        saved,
        tmp_path / "nasty.keras",
        lambda document: document["builder"].update(entry_point="nasty_builder:model"),
    )
    assert load_model(path).count_params() == load_model(saved).count_params()
    assert not touched.exists() and "nasty_builder" not in sys.modules
