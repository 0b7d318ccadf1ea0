"""Exported models run without kvideo and give the Keras model's numbers."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import kvideo
from kvideo import registry
from kvideo.cli import cli
from kvideo.cli import export as command
from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import KVideoError, UnknownNameError, UsageError
from kvideo.exporting import DYNAMIC, FORMATS
from kvideo.exporting.graph import frozen_graph
from kvideo.exporting.rewrites import LITERT, ONNX
from kvideo.layers import PixelNormalization
from kvideo.noise import noise_clips
from kvideo.saving import ModelInfo, save_model

pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
interpreters = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="the extra `litert` is not installed"
)

L = keras.layers
ENDINGS = {"saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
SHAPE = (4, 16, 24, 3)
NAMES = ("run", "größer, <b>", "two\nlines")


def with_info(model, class_names=NAMES, **options):
    """The model with facts that fit it."""
    shape = model.input_shape[1:]
    model.kvideo_info = ModelInfo(ClipSpec(shape[0], 7.5, shape[1:3]), class_names, **options)
    return model


def classifier(*layers, shape=SHAPE, activation="softmax", name="small"):
    """Layers between a normalization and a head."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="clip")
    x = PixelNormalization(name="normalization")(inputs)
    for layer in layers:
        x = layer(x)
    if len(x.shape) > 2:
        x = L.Flatten()(x)
    x = L.Dense(len(NAMES), name="logits")(x)
    outputs = L.Activation(activation, name="predictions")(x)
    return with_info(keras.Model(inputs, outputs, name=name))


def disturb(model):
    """Other batch norms than a new model's, so that leaving one out would show."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        low, high = {"gamma": (0.5, 1.0), "moving_variance": (1.0, 3.0)}.get(variable.name, (0, 0))
        if variable.name in ("beta", "moving_mean"):
            low, high = -0.3, 0.3
        if high:
            variable.assign(rng.uniform(low, high, variable.shape))
    return model


@pytest.fixture(scope="module")
def small():
    """Convolutions, batch norms and pools."""
    keras.utils.set_random_seed(0)
    return with_info(disturb(kvideo.models.slow_fusion(3, input_shape=SHAPE, widths=(4, 6))))


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.keras"
    save_model(small, path)
    return path


def clips(count, shape=SHAPE):
    return np.random.default_rng(3).integers(0, 256, (count, *shape), np.uint8)


def names(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


def operations(path):
    """The operations of a LiteRT file, as the interpreter sees them without a delegate."""
    plain = interpreters.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = interpreters.Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return {operation["op_name"] for operation in interpreter._get_ops_details()}


def run(*arguments):
    result = CliRunner().invoke(cli, ["export", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


# -- elsewhere -------------------------------------------------------------------------------------

# Programs that know nothing of kvideo: path and clips in, outputs out.
PROGRAMS = {
    "saved_model": """
import tensorflow as tf
model = tf.saved_model.load(path)
outputs = [model.signatures["serving_default"](clip=tf.constant(clip))["probabilities"].numpy()
           for clip in batches]
assert "kvideo" not in sys.modules
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
outputs = [session.run(["probabilities"], {"clip": clip})[0] for clip in batches]
assert not {"kvideo", "tensorflow", "keras"} & set(sys.modules)
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter(path).get_signature_runner("serving_default")
outputs = [runner(clip=clip)["probabilities"] for clip in batches]
assert not {"kvideo", "tensorflow", "keras"} & set(sys.modules)
""",
}


@pytest.mark.parametrize("format", FORMATS)
def test_runs_in_a_program_of_its_own(format, small, tmp_path):
    out = tmp_path / f"model{ENDINGS[format]}"
    result = kvideo.export(small, out)
    assert result.format == format and 0 <= result.max_difference <= result.allowed_difference
    inputs = clips(3)
    np.save(tmp_path / "clips.npy", inputs)
    batches = "[clips[:1], clips[1:]]" if format != "litert" else "[c[None] for c in clips]"
    program = (
        f"import sys, numpy as np\npath, clips = {str(out)!r}, np.load('clips.npy')\n"
        f"batches = {batches}\n{PROGRAMS[format]}\nnp.save('outputs.npy', np.concatenate(outputs))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), small(inputs), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_what_lies_beside_it(format, small, tmp_path):
    result = kvideo.export(small, tmp_path / f"model{ENDINGS[format]}", format)
    info = json.loads(Path(result.info).read_text("utf-8"))
    assert ModelInfo.from_json(info) == small.kvideo_info
    batch = 1 if format == "litert" else None
    assert info["export"]["format"] == format
    assert info["export"]["input"] | {"layout": ""} == {
        "name": "clip", "shape": [batch, *SHAPE], "dtype": "uint8", "layout": "",
    }  # fmt: skip
    expected = {"name": "probabilities", "shape": [batch, 3], "dtype": "float32"}
    assert info["export"]["output"] == expected == result.output
    assert Path(result.labels).read_text("utf-8").splitlines() == [
        "run",
        "größer, <b>",
        "two lines",
    ]
    beside = {Path(result.info).name, Path(result.labels).name}
    if format == "saved_model":
        assert beside == {"kvideo.json", "labels.txt"} and beside < set(names(result.path))
        assert names(tmp_path) == ["model"]
    else:
        assert names(tmp_path) == sorted({Path(result.path).name, *beside})
        assert result.num_bytes == Path(result.path).stat().st_size


def test_weights_are_written_once(small, tmp_path):
    sizes = [
        kvideo.export(small, tmp_path / f"model{ending}").num_bytes for ending in ENDINGS.values()
    ]
    wide = with_info(kvideo.models.slow_fusion(3, input_shape=SHAPE, widths=(4, 512)))
    wide_sizes = [
        kvideo.export(wide, tmp_path / f"wide{ending}").num_bytes for ending in ENDINGS.values()
    ]
    added = 4 * (wide.count_params() - small.count_params())
    for one, other in zip(sizes, wide_sizes, strict=True):
        assert 0.9 * added < other - one < 1.2 * added


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch", [1, 3, DYNAMIC])
def test_batch_sizes(format, batch, small, tmp_path):
    result = kvideo.export(small, tmp_path / f"model{ENDINGS[format]}", batch=batch)
    assert result.input["shape"][0] == (None if batch == DYNAMIC else batch)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
        shape = session.get_inputs()[0].shape
        assert shape == ["batch" if batch == DYNAMIC else batch, *SHAPE]
        sizes = (1, 2) if batch == DYNAMIC else (batch,)
        for size in sizes:
            (outputs,) = session.run(None, {"clip": clips(size)})
            np.testing.assert_allclose(outputs, small(clips(size)), atol=1e-5)


def test_a_model_without_final_activation_gives_logits(tmp_path):
    model = classifier(activation="linear")
    for ending in ENDINGS.values():
        assert kvideo.export(model, tmp_path / f"m{ending}").output["name"] == "logits"


# -- every model -----------------------------------------------------------------------------------

# Narrow, so that the test is quick; by the builder's module.
NARROW = {
    "kvideo.models.resnet3d": {"stem_filters": 8},
    "kvideo.models.video_resnet": {"stem_filters": 8},
    "kvideo.models.slowfast": {"stem_filters": 16},
    "kvideo.models.i3d": {"width_multiplier": 0.125},
}
SIDES = {"kvideo.models.c3d": (16, 32, 32, 3), "kvideo.models.i3d": (16, 64, 64, 3)}


def registered():
    """The built-in models, but of a family (slow, slow_8x8_r50, …) the general builder only."""
    found = {n: e for n, e in registry.entries(registry.MODELS).items() if e.builtin}
    modules = {name: entry.value.split(":")[0] for name, entry in found.items()}
    return [
        name
        for name in found
        if not any(
            name.startswith(f"{other}_") and modules[name] == modules[other] for other in found
        )
    ]


def narrow_c3d(monkeypatch):
    """C3D has no option for its width; at full width its constants take gigabytes here."""
    module = importlib.import_module("kvideo.models.c3d")
    stages = tuple(
        dataclasses.replace(stage, filters=stage.filters // 8) for stage in module.STAGES
    )
    monkeypatch.setattr(module, "STAGES", stages)
    monkeypatch.setattr(module, "FC_UNITS", 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", registered())
def test_every_registered_model(name, tmp_path, monkeypatch):
    narrow_c3d(monkeypatch)
    entry = registry.find(registry.MODELS, name)
    module = entry.value.split(":")[0]
    shape = SIDES.get(module, (8, 32, 32, 3))
    keras.utils.set_random_seed(0)
    options = {"input_shape": shape, "classifier_activation": None, **NARROW.get(module, {})}
    model = with_info(disturb(entry.load()(3, **options)))
    for ending in ENDINGS.values():
        result = kvideo.export(model, tmp_path / f"model{ending}", tolerance=1e-4)
        assert result.max_difference <= result.allowed_difference
    found = operations(tmp_path / "model.tflite")
    assert not [each for each in found if "Flex" in each or "CUSTOM" in each or "3D" in each]


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda: kvideo.models.late_fusion(
            3, input_shape=(2, 64, 64, 3), backbone="efficientnet_lite0", fusion="fc"
        ),
        lambda: kvideo.models.slow(
            3, input_shape=(4, 32, 32, 3), stem_filters=8, nonlocal_blocks={3: (1,), 4: (0,)}
        ),
        lambda: kvideo.models.inflated(3, input_shape=(4, 64, 64, 3), backbone="EfficientNetB0"),
    ],
)
def test_further_models(build, tmp_path):
    keras.utils.set_random_seed(0)
    model = with_info(disturb(build()))
    for ending in ENDINGS.values():
        kvideo.export(model, tmp_path / f"model{ending}")


def test_flow(tmp_path):
    inputs = keras.Input((4, 8, 8, 2), name="clip")
    x = L.Conv3D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, L.Dense(3, "softmax")(L.GlobalMaxPooling3D()(x)))
    model.kvideo_info = ModelInfo(ClipSpec(4, 7.5, (8, 8), modality="flow"), NAMES)
    for ending in ENDINGS.values():
        result = kvideo.export(model, tmp_path / f"model{ending}")
        assert result.input["dtype"] == "float32"


# -- operations said with others -------------------------------------------------------------------

POOLS = [
    ((2, 2, 2), None, "same"), ((2, 2, 2), None, "valid"), ((3, 3, 3), 2, "same"),
    ((3, 3, 3), 2, "valid"), ((1, 3, 3), (1, 2, 2), "same"), ((2, 1, 1), None, "same"),
    ((3, 1, 1), (1, 1, 1), "same"), ((4, 4, 4), 4, "same"), ((3, 3, 3), 1, "same"),
    ((2, 3, 4), (3, 2, 1), "same"), ((7, 9, 10), 1, "valid"), ((1, 1, 1), (2, 1, 1), "valid"),
]  # fmt: skip
CONVOLUTIONS = [
    ((3, 3, 3), 1, "same"), ((3, 3, 3), 2, "same"), ((3, 3, 3), (1, 2, 2), "same"),
    ((3, 3, 3), 2, "valid"), ((1, 3, 3), 1, "same"), ((1, 3, 3), 2, "same"),
    ((1, 3, 3), 2, "valid"), ((3, 1, 1), 1, "same"), ((5, 1, 1), (2, 1, 1), "same"),
    ((3, 1, 1), (2, 1, 1), "valid"), ((1, 1, 1), (1, 2, 2), "same"), ((3, 1, 1), 2, "same"),
    ((4, 3, 2), (2, 1, 1), "same"), ((4, 3, 3), (3, 1, 1), "valid"), ((2, 7, 7), 2, "same"),
]  # fmt: skip


CASES = [
    *((kind, arguments) for kind in (L.MaxPooling3D, L.AveragePooling3D) for arguments in POOLS),
    *((L.Conv3D, (5, *arguments)) for arguments in CONVOLUTIONS),
]


@pytest.mark.parametrize(("kind", "arguments"), CASES)
@pytest.mark.parametrize("batch", [1, None])
def test_3d_operations_by_2d_ones(kind, arguments, batch):
    inputs = keras.Input((7, 9, 10, 3))
    model = keras.Model(inputs, kind(*arguments)(inputs))
    specs = [tf.TensorSpec((batch, 7, 9, 10, 3), tf.float32, name="clip")]
    graph = frozen_graph(model, specs, LITERT)
    assert not {node.op for node in graph.graph_def.node} & set(LITERT)
    x = np.random.default_rng(0).normal(size=(batch or 2, 7, 9, 10, 3)).astype("float32")
    outputs = graph.function("y")(tf.constant(x))["y"]
    np.testing.assert_allclose(outputs, model(x), atol=2e-6)


@keras.saving.register_keras_serializable("test_export")
class OwnGradient(L.Layer):
    """Twice its kernel times the input, by a gradient of its own that knows the kernel."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        kernel = self.kernel.value

        @tf.custom_gradient
        def twice(x):
            return 2 * kernel * x, lambda upstream, variables=None: 2 * kernel * upstream

        return twice(inputs)


@pytest.mark.parametrize("format", FORMATS)
def test_gradients_of_a_layer_s_own(format, tmp_path):
    """They made LiteRT's converter leave the signature out, without a word."""
    model = classifier(L.Conv3D(4, 3), OwnGradient())
    result = kvideo.export(model, tmp_path / f"m{ENDINGS[format]}")
    if format == "litert":
        signatures = interpreters.Interpreter(result.path).get_signature_list()
        assert signatures == {"serving_default": {"inputs": ["clip"], "outputs": ["probabilities"]}}


def test_unknown_sizes_and_groups_stay_as_they_are():
    inputs = keras.Input((None, None, None, 3))
    model = keras.Model(inputs, L.MaxPooling3D(2)(inputs))
    specs = [tf.TensorSpec((1, None, None, None, 3), tf.float32, name="clip")]
    kept = frozen_graph(model, specs, LITERT)
    assert "MaxPool3D" in {node.op for node in kept.graph_def.node}


def test_the_exact_gelu_in_onnx(tmp_path):
    model = classifier(L.Conv3D(4, 3), L.Activation(keras.activations.gelu))
    specs = [tf.TensorSpec((1, *SHAPE), tf.uint8, name="clip")]
    graph = frozen_graph(model, specs, ONNX)
    assert not {node.op for node in graph.graph_def.node} & set(ONNX)
    assert kvideo.export(model, tmp_path / "m.onnx").max_difference < 1e-5


# -- what a format cannot express ------------------------------------------------------------------


def test_recurrent_layers(tmp_path):
    """With a fixed batch, LiteRT's plain interpreter runs their loops."""
    model = classifier(L.ConvLSTM2D(4, 3, name="memory"))
    assert kvideo.export(model, tmp_path / "fixed.tflite").max_difference < 1e-5
    assert "WHILE" in operations(tmp_path / "fixed.tflite")
    assert kvideo.export(model, tmp_path / "any.onnx").input["shape"][0] is None
    before = names(tmp_path)
    with pytest.raises(KVideoError, match=r'ConvLSTM2D layer "memory" for batches of any') as error:
        kvideo.export(model, tmp_path / "any.tflite", batch=DYNAMIC)
    assert "--batch 1" in str(error.value) and error.value.exit_status == 1
    assert names(tmp_path) == before


@pytest.mark.parametrize("ending", [".onnx", ".tflite"])
def test_the_layer_is_named_and_nothing_left(ending, tmp_path):
    model = classifier(L.Conv3D(4, 3, name="plain"), L.Conv3D(4, 1, groups=2, name="grouped"))
    with pytest.raises(KVideoError, match=r'cannot express the Conv3D layer "grouped"; another'):
        kvideo.export(model, tmp_path / f"m{ending}")
    assert names(tmp_path) == []


def test_models_that_are_not_from_one_clip_to_one_output(tmp_path, small):
    two = with_info(keras.Model(small.input, [small.output, small.get_layer("features").output]))
    with pytest.raises(UsageError, match="1 inputs and 2 outputs"):
        kvideo.export(two, tmp_path / "m.onnx")
    other = keras.Model(small.input, small.output)
    other.kvideo_info = ModelInfo(ClipSpec(8, 7.5, SHAPE[1:3]), NAMES)
    with pytest.raises(UsageError, match=r"takes clips of \(4, 16, 24, 3\), its ClipSpec says \(8"):
        kvideo.export(other, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="carries no ClipSpec"):
        kvideo.export(keras.Model(small.input, small.output), tmp_path / "m.onnx")


def test_a_model_in_another_precision(file, tmp_path):
    model = kvideo.load_model(file, precision="bfloat16")
    with pytest.raises(UsageError, match="computes in bfloat16"):
        kvideo.export(model, tmp_path / "m.onnx")


# -- whole or not at all ---------------------------------------------------------------------------


def test_other_numbers_leave_nothing(file, tmp_path):
    result = run(file, "--out", tmp_path / "m.onnx", "--tolerance", "0")
    assert result.exit_code == 1 and "outputs differ" in result.stderr and not result.stdout
    assert names(tmp_path) == []


def test_a_model_that_gives_no_numbers_leaves_nothing(tmp_path):
    model = classifier(L.GlobalAveragePooling3D())
    model.get_layer("logits").bias.assign([np.nan, 0, 0])
    with pytest.raises(KVideoError, match="differ from those of the Keras model by nan"):
        kvideo.export(model, tmp_path / "m.onnx")
    assert names(tmp_path) == []


@pytest.mark.parametrize("format", FORMATS)
def test_overwriting(format, file, tmp_path):
    out = tmp_path / f"m{ENDINGS[format]}"
    assert run(file, "--out", out).exit_code == 0
    before = names(tmp_path)
    result = run(file, "--out", out)
    assert result.exit_code == 2 and "--overwrite replaces it" in result.stderr
    assert run(file, "--out", out, "--batch", "2", "--overwrite").exit_code == 0
    assert names(tmp_path) == before


def test_a_failure_keeps_what_was_there(file, tmp_path):
    recurrent = classifier(L.ConvLSTM2D(2, 3))
    kvideo.export(recurrent, tmp_path / "m.tflite")
    old = (tmp_path / "m.tflite").read_bytes()
    with pytest.raises(KVideoError):
        kvideo.export(recurrent, tmp_path / "m.tflite", batch=DYNAMIC, overwrite=True)
    assert (tmp_path / "m.tflite").read_bytes() == old and len(names(tmp_path)) == 3


def test_a_folder_of_other_things_is_not_replaced(file, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    (tmp_path / "m.onnx").mkdir()
    result = run(file, "--out", tmp_path / "photos", "--overwrite")
    assert result.exit_code == 2 and "no SavedModel" in result.stderr
    result = run(file, "--out", tmp_path / "m.onnx", "--overwrite")
    assert result.exit_code == 2 and "is a folder" in result.stderr
    assert names(tmp_path / "photos") == ["a.jpg"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk(format, file, tmp_path):
    pytest.importorskip("resource")
    out = tmp_path / f"m{ENDINGS[format]}"
    program = (
        "import resource, sys; from kvideo.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"sys.argv = ['kvideo', 'export', {str(file)!r}, '--out', {str(out)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "the disk is full" in done.stderr
    assert names(tmp_path) == []


# -- the command -----------------------------------------------------------------------------------


def test_the_command(file, tmp_path):
    result = run(file, "--out", tmp_path / "m.onnx", "--batch", "2")
    assert result.exit_code == 0
    assert "2×4×16×24×3 uint8" in result.stdout and "from the Keras model" in result.stdout
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.keras").write_bytes(file.read_bytes())
    result = run(tmp_path / "run", "--out", tmp_path / "n.tflite", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["format"] == "litert"
    assert document["max_difference"] <= document["allowed_difference"]
    assert document["path"] == str(tmp_path / "n.tflite")


def test_the_command_s_words_are_the_package_s():
    assert (command.FORMATS, command.DYNAMIC) == (FORMATS, DYNAMIC)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--out", "m.onnx", "--format", "litert"], 2, "end in .tflite; m.onnx does not"),
        (["--out", "m.onnx", "--format", "saved_model"], 2, "a SavedModel is a folder"),
        (["--out", "m", "--format", "tensorrt"], 2, "'saved_model', 'onnx', 'litert'"),
        (["--out", "m", "--batch", "0"], 2, "neither a number of clips nor"),
        (["--out", "m", "--tolerance", "-1"], 2, "--tolerance"),
        ([], 2, "Missing option '--out'"),
        (["--out", "nowhere/m.onnx"], 2, "there is no folder"),
    ],
)
def test_wrong_usage(arguments, status, words, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(file, *arguments)
    assert result.exit_code == status and words in result.stderr and not result.stdout
    assert names(tmp_path) == []


def test_files_that_are_no_models(tmp_path):
    assert "there is no model file" in run("no.keras", "--out", tmp_path / "m").stderr
    (tmp_path / "bad.keras").write_bytes(b"not a zip")
    result = run(tmp_path / "bad.keras", "--out", tmp_path / "m.onnx")
    assert result.exit_code == 1 and "not a whole model file" in result.stderr


def test_wrong_arguments(small, tmp_path):
    with pytest.raises(UnknownNameError, match="format must be one of"):
        kvideo.export(small, tmp_path / "m", "tensorrt")
    for batch in (0, -1, 1.5, True, "many"):
        with pytest.raises(UsageError, match="batch must be"):
            kvideo.export(small, tmp_path / "m", batch=batch)
    with pytest.raises(UsageError, match="tolerance must be"):
        kvideo.export(small, tmp_path / "m", tolerance=float("nan"))


@pytest.mark.parametrize(
    ("package", "ending", "extra"),
    [("tf2onnx", ".onnx", "onnx"), ("ai_edge_litert", ".tflite", "litert")],
)
def test_an_extra_that_is_not_installed(package, ending, extra, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # now it cannot be imported
    with pytest.raises(KVideoError, match=rf'{package}.*`pip install "kvideo\[{extra}\]"`'):
        kvideo.export(small, tmp_path / f"m{ending}")
    assert kvideo.export(small, tmp_path / "m").format == "saved_model"


def test_views_and_several_labels_are_told(small, tmp_path):
    model = with_info(keras.Model(small.input, small.output), multi_label=True, views=Views(3, 3))
    info = json.loads(Path(kvideo.export(model, tmp_path / "m.onnx").info).read_text("utf-8"))
    assert info["multi_label"] is True and info["views"] == {"num_clips": 3, "num_crops": 3}


def test_a_fault_shows_where_one_class_has_all_of_the_probability(tmp_path, monkeypatch):
    """Probabilities of 1 and 0 are right to the last digit whatever the network does."""
    model = classifier(L.Conv3D(4, 3, name="conv"), L.GlobalAveragePooling3D())
    clips = noise_clips(SHAPE, 1).astype("float32")
    head = model.get_layer("logits")
    logits = np.sort(np.asarray(keras.Model(model.input, head.output)(clips)), axis=1)
    scale = 20 / (logits[:, -1] - logits[:, -2]).min()  # far from even, not yet 1 to the last digit
    head.set_weights([weight * scale for weight in head.get_weights()])
    faulty = keras.models.clone_model(model)
    faulty.set_weights(model.get_weights())
    kernel = faulty.get_layer("conv").kernel
    kernel.assign(kernel * 1.1)
    right, wrong = (np.asarray(network(clips)) for network in (model, faulty))
    assert right.max(axis=1).min() > 0.999 and np.abs(right - wrong).max() < 1e-3
    monkeypatch.setattr("kvideo.exporting.api._sample_clips", lambda info, count: {"clip": clips})
    assert kvideo.export(model, tmp_path / "right.onnx").max_difference < 1e-2
    monkeypatch.setattr("kvideo.exporting.api._folded", lambda network: faulty)
    with pytest.raises(KVideoError, match="differ from those of the Keras model"):
        kvideo.export(model, tmp_path / "wrong.onnx")
    assert not (tmp_path / "wrong.onnx").exists()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_each_kind_of_output_is_compared(tmp_path, activation):
    model = classifier(L.GlobalAveragePooling3D(), activation=activation)
    result = kvideo.export(model, tmp_path / "m.onnx")
    assert 0 <= result.max_difference < 1e-4 < result.allowed_difference


@pytest.mark.parametrize(
    ("name", "message"), [("m.onx", "Did you mean .onnx"), ("m.h5", "ends in .h5"),
                          ("m.tflit", "Did you mean .tflite")]
)  # fmt: skip
def test_a_mistyped_ending_is_no_folder(small, tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        kvideo.export(small, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_fails_only_when_it_runs_names_the_layer(tmp_path):
    model = classifier(L.Conv3D(4, 3, groups=1), L.Conv3D(4, 1, groups=2, name="grouped"))
    with pytest.raises(KVideoError, match='Conv3D layer "grouped"'):
        kvideo.export(model, tmp_path / "m.tflite", batch=DYNAMIC)
    assert not list(tmp_path.iterdir())
