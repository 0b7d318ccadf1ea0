"""The registry and plugins: a real distribution, installed into a temporary folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kvideo
from kvideo import doctor
from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.annotations import VideoRecord
from kvideo.data.pipeline import clip_reader
from kvideo.errors import DecodeError, PluginLoadError, UnknownNameError
from kvideo.registry import DECODERS, MODELS, entries, find, get_builder, get_decoder

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.2.3"
[tool.setuptools]
py-modules = ["{module}"]
[project.entry-points."{group}"]
{entries}
"""

# A layer of its own, so that loading a saved model needs the plugin's code.
MODEL = """
import keras


@keras.saving.register_keras_serializable("tiny_plugin")
class Halve(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 0.5


def tiny(num_classes, *, input_shape=(4, 16, 16, 3), classifier_activation="softmax", width=4):
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255, name="normalization")(inputs)
    x = keras.layers.Conv3D(width, 3, activation="relu", name="feature_map")(Halve()(x))
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    x = keras.layers.Dense(num_classes, name="logits")(x)
    outputs = keras.layers.Activation(classifier_activation, name="predictions")(x)
    return keras.Model(inputs, outputs, name="tiny")
"""

# A decoder that shows everything in negative.
DECODER = """
from kvideo.data.decode import open_video


def negative(path, *, opener=None, threads=1):
    reader = open_video(path, opener=opener, threads=threads)
    read = reader.read
    reader.read = lambda times, **how: 255 - read(times, **how)
    return reader
"""


def _install(
    target: Path,
    name: str,
    module: str,
    source: str,
    points: dict[str, str],
    group: str = MODELS,
) -> None:
    project = target.parent / f"source-{name}"
    project.mkdir()
    lines = "\n".join(f'{key} = "{value}"' for key, value in points.items())
    text = PYPROJECT.format(name=name, module=module, entries=lines, group=group)
    (project / "pyproject.toml").write_text(text)
    (project / f"{module}.py").write_text(source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(project)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good plugin, a broken one, and one that wants a built-in's name."""
    target = tmp_path_factory.mktemp("plugins") / "site"
    _install(target, "kvideo-tiny", "tiny_plugin", MODEL, {"tiny": "tiny_plugin:tiny"})
    broken = "raise RuntimeError('this plugin is broken')"
    _install(target, "kvideo-broken", "broken_plugin", broken, {"broken": "broken_plugin:model"})
    _install(target, "kvideo-thief", "thief_plugin", MODEL, {"c3d": "thief_plugin:tiny"})
    _install(
        target, "kvideo-negative", "negative", DECODER, {"negative": "negative:negative"}, DECODERS
    )
    return target


@pytest.fixture
def with_plugins(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(plugins))
    return plugins


def test_built_in_models_are_listed_without_importing_them() -> None:
    found = entries(MODELS)
    assert {"single_frame", "late_fusion", "early_fusion", "slow_fusion", "c3d"} <= set(found)
    assert all(found[name].builtin for name in ("slow_fusion", "c3d"))


def test_unknown_name_suggests_a_near_one() -> None:
    with pytest.raises(UnknownNameError, match=r'Did you mean "slow_fusion"\?.*lists all \d+'):
        find(MODELS, "slow_fusoin")


def test_a_plugin_is_found_and_a_broken_one_harms_nothing(with_plugins: Path) -> None:
    with pytest.warns(UserWarning, match='kvideo-thief offers "c3d".*kvideo has already'):
        found = entries(MODELS)
    assert found["tiny"].distribution == "kvideo-tiny"
    assert found["tiny"].version == "1.2.3"
    assert found["c3d"].builtin
    assert "broken_plugin" not in sys.modules
    with pytest.warns(UserWarning), pytest.raises(PluginLoadError) as caught:
        get_builder("broken")
    assert "broken = broken_plugin:model" in str(caught.value)
    assert "kvideo-broken 1.2.3" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.warns(UserWarning):
        assert get_builder("slow_fusion").__name__ == "slow_fusion"


BAD_BUILDERS = """
def raising(num_classes, *, input_shape=(4, 16, 16, 3), classifier_activation="softmax"):
    raise RuntimeError("inside")


def nothing(num_classes, *, input_shape=(4, 16, 16, 3), classifier_activation="softmax"):
    pass


def lacking(num_classes, *, input_shape=(4, 16, 16, 3), classifier_activation="softmax"):
    import no_such_package


NUMBER = 3
"""


def test_plugins_that_end_the_process_or_build_no_model(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "site"
    points = {name: f"bad_builders:{name}" for name in ("raising", "nothing", "lacking")}
    points["number"] = "bad_builders:NUMBER"
    _install(target, "kvideo-bad", "bad_builders", BAD_BUILDERS, points)
    _install(target, "kvideo-exit", "exiter", "raise SystemExit(3)", {"exiter": "exiter:model"})
    monkeypatch.syspath_prepend(str(target))
    for name, words in (
        ("raising", "could not build its model: RuntimeError: inside"),
        ("nothing", "could not build its model: TypeError: it gave None"),
        ("lacking", r"ModuleNotFoundError: .*It needs the package no_such_package: pip install"),
        ("number", "is 3, which cannot be called"),
        ("exiter", "could not be loaded: SystemExit: 3"),
    ):
        with pytest.raises(PluginLoadError, match=words):
            kvideo.summary(name)
    problems = {each.name.strip(): each.problem for each in doctor.examine()}
    assert problems["exiter"] and problems["number"]


def test_a_plugin_decodes(with_plugins: Path, tiny_videos: Path) -> None:
    spec = ClipSpec(4, 10.0, (32, 32), short_side=32)
    record = VideoRecord(str(next(tiny_videos.rglob("*.mp4"))))
    plain, negative = (
        clip_reader(spec, name).views(record, Views(2, 1)) for name in ("pyav", "negative")
    )
    np.testing.assert_array_equal(plain, 255 - negative)
    with pytest.raises(UnknownNameError, match='no decoder "negativ"'):
        clip_reader(spec, "negativ")


BAD_DECODERS = """
from kvideo.data import open_video


def never(path, *, opener=None, threads=1):
    raise ValueError("no codec")


class Late:
    def __init__(self, reader):
        self.info, self.reader = reader.info, reader

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.reader.close()

    def frames(self, *, size=None):
        for number, found in enumerate(self.reader.frames(size=size)):
            if number == 2:
                raise RuntimeError("lost")
            yield found

    def read(self, *arguments, **options):
        raise RuntimeError("lost")


def late(path, *, opener=None, threads=1):
    return Late(open_video(path, opener=opener, threads=threads))


class Small(Late):
    def read(self, times, **options):
        return self.reader.read(times, size=(8, 8))


def small(path, *, opener=None, threads=1):
    return Small(open_video(path, opener=opener, threads=threads))
"""


def test_a_decoder_may_raise_anything(tmp_path: Path, tiny_videos: Path, monkeypatch) -> None:
    target = tmp_path / "site"
    points = {name: f"bad_decoders:{name}" for name in ("never", "late", "small")}
    _install(target, "kvideo-decoders", "bad_decoders", BAD_DECODERS, points, DECODERS)
    monkeypatch.syspath_prepend(str(target))
    path = str(next(tiny_videos.rglob("*.mp4")))
    words = r'the decoder "never" \(kvideo-decoders 1.2.3\) failed: ValueError: no codec'
    with pytest.raises(DecodeError, match=words) as caught:
        get_decoder("never")(path)
    assert caught.value.path == path
    with get_decoder("late")(path) as reader:
        assert reader.info.height > 0 and not hasattr(reader, "no_such_thing")
        frames = reader.frames()
        assert next(frames)[1].shape == next(frames)[1].shape
        with pytest.raises(DecodeError, match="RuntimeError: lost"):
            next(frames)
        with pytest.raises(DecodeError, match="RuntimeError: lost"):
            reader.read([0.0])
    with pytest.raises(DecodeError, match="there is no such file"):
        get_decoder("late")("nothing.mp4")  # of kvideo's own errors nothing is changed
    found = {each.name.strip(): each for each in doctor.examine()}
    assert "cannot read a small H.264 file" in found["never"].value and found["never"].problem
    assert "pictures (N, H, W, C) (1, 8, 8, 3)" in found["small"].value and found["small"].problem
    assert found["pyav"].value.startswith("works") and not found["pyav"].problem


def _kvideo(plugins: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    code = f"import sys; sys.path.insert(0, {str(plugins)!r}); from kvideo.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
    )


@pytest.mark.slow
def test_a_plugin_trains_from_the_command_line_and_loads_in_a_fresh_process(
    plugins: Path, tmp_path: Path, tiny_videos: Path
) -> None:
    listed = _kvideo(plugins, "models", "--json", cwd=tmp_path)
    assert {"tiny", "broken"} <= {row["name"] for row in json.loads(listed.stdout)}
    arguments = ["--model", "tiny", "--set", "width=2", "--epochs", "1", "-b", "2", "--out", "run"]
    done = _kvideo(plugins, "fit", str(tiny_videos), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    video = next(tiny_videos.rglob("*.mp4"))
    done = _kvideo(plugins, "predict", "run", str(video), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["label"] in {"left", "right"}
    # Without the plugin the message says what to install.
    done = _kvideo(tmp_path / "nowhere", "predict", "run", str(video), cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install kvideo-tiny" in done.stderr
    assert "Traceback" not in done.stderr
    done = _kvideo(plugins, "fit", str(tiny_videos), "--model", "broken", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken_plugin:model" in done.stderr and "Traceback" not in done.stderr
