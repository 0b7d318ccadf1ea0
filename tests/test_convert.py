"""`kvideo convert`: published weights become model files that work at once."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from test_oracles import BUILDERS, assert_close, channels_last, pixels

import kvideo
from kvideo.cli import cli
from kvideo.errors import DataError, ModelFileError, UsageError

SMALL = ["--frames", "8", "--size", "32"]
QUICK = ("slow_r50", "r3d_18")


@pytest.fixture
def folder(shared) -> Path:
    folder = shared / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch oracles at {folder}")
    return folder


def run(*arguments: str | Path) -> Result:
    """One command in this process; it must not show a traceback."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in BUILDERS],
)
def test_every_oracle_converts(folder, tmp_path, name):
    """The file alone gives the publisher's numbers, with no word of widths or normalization."""
    oracle = np.load(folder / f"{name}.npz")
    clips = channels_last(oracle["input"])
    out = tmp_path / "model.keras"
    result = kvideo.convert(
        folder / f"{name}.pyth",
        BUILDERS[name],
        out,
        num_frames=clips.shape[1],
        size=clips.shape[2:4],
    )
    assert result.info.clip_spec.shape == clips.shape[1:]
    model = kvideo.load_model(out)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    assert_close(logits(pixels(model, clips)), oracle["logits"])


def test_the_command(folder, tmp_path, tiny_videos):
    out = tmp_path / "slow.keras"
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"action {letter}" for letter in "abcdefg"))
    result = run(
        "convert", folder / "slow_r50.pyth", "-m", "slow", "-o", out, "--labels", names, *SMALL
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == str(out)
    assert "PyTorchVideo, 267 tensors" in result.stdout
    assert "8 frames at 3.75/s, 32×32" in result.stdout
    assert not result.stderr
    info = kvideo.model_info(out)
    assert info.class_names[0] == "action a" and len(info.views) == 30
    assert info.builder.name == "slow" and info.builder.options == {"stem_filters": 4}
    video = sorted(tiny_videos.rglob("*.mp4"))[0]
    predicted = run("predict", out, video, "--clips", "2", "--crops", "1", "--json")
    assert predicted.exit_code == 0, predicted.output
    assert json.loads(predicted.stdout)[0]["label"].startswith("action ")


def test_json(folder, tmp_path):
    checkpoint, out = folder / "r3d_18.pyth", tmp_path / "r3d.keras"
    result = run("convert", checkpoint, "--model", "r3d_18", "--out", out, *SMALL, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["path"] == str(out) and document["checkpoint"] == str(checkpoint)
    assert document["dialect"] == "torchvision" and document["tensors"] == 102
    assert document["labels"] is None
    assert document["info"]["class_names"] == [str(number) for number in range(7)]
    assert document["info"]["builder"]["options"] == {"stem_filters": 4}
    assert document["remarks"] == [result.stderr.strip()]
    assert "The names of its classes are not known" in result.stderr


def test_another_number_of_classes(folder, tmp_path):
    out = tmp_path / "r3d.keras"
    result = run(
        "convert", folder / "r3d_18.pyth", "-m", "r3d_18", "-o", out, "--num-classes", "3", *SMALL
    )
    assert result.exit_code == 0
    assert "r3d_18.pyth has 7 classes, the model another number" in result.stderr
    assert kvideo.load_model(out).output_shape == (None, 3)
    result = kvideo.convert(
        folder / "r3d_18.pyth",
        "r3d_18",
        out,
        labels=["walk", "run"],
        multi_label=True,
        size=(32, 32),
        overwrite=True,
    )
    model = kvideo.load_model(out)
    assert model.output_shape == (None, 2) and result.info.class_names == ("walk", "run")
    assert kvideo.model_info(model).multi_label
    assert model.get_layer("predictions").activation is keras.activations.sigmoid


def test_what_does_not_fit_leaves_no_file(folder, tmp_path):
    out = tmp_path / "x.keras"
    result = run("convert", folder / "slowfast_r50.pyth", "-m", "slow", "-o", out, *SMALL)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert "tensors do not fit the model (267 missing, 552 unexpected):" in lines[0]
    assert {line.split()[0] for line in lines[1:-2]} == {"missing", "unexpected"}
    assert lines[-1] == "It looks like a checkpoint of the model slowfast or slowfast_8x8_r50."
    result = run("convert", folder / "malicious.pyth", "-m", "slow", "-o", out)
    assert result.exit_code == 1 and "refused: it names posix.system" in result.stderr
    (tmp_path / "half.pyth").write_bytes((folder / "slow_r50.pyth").read_bytes()[:100_000])
    result = run("convert", tmp_path / "half.pyth", "-m", "slow", "-o", out)
    assert result.exit_code == 1 and "cut off, damaged" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"half.pyth"}


def test_an_existing_file_is_kept(folder, tmp_path):
    out = tmp_path / "slow.keras"
    out.write_text("precious")
    arguments = ["convert", folder / "slow_r50.pyth", "-m", "slow", "-o", out, *SMALL]
    result = run(*arguments)
    assert result.exit_code == 2 and f"{out} exists" in result.stderr
    assert out.read_text() == "precious"
    assert run(*arguments, "--overwrite").exit_code == 0
    assert len(kvideo.model_info(out).class_names) == 7


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone.pyth", "-m", "slow", "-o", "x.keras"], 1, "there is no checkpoint file gone.pyth"),
        (["slow.pyth", "-m", "slwo", "-o", "x.keras"], 2, 'Did you mean "slow"'),
        (["imagenet", "-m", "slow", "-o", "x.keras"], 2, 'or "kinetics400"'),
        (["kinetics500", "-m", "slow", "-o", "x.keras"], 2, 'Did you mean "kinetics400"?'),
        (["slow.pyth", "-m", "slow", "-o", "x.h5"], 2, "ends in .keras"),
        (
            ["slow.pyth", "-m", "slow", "-o", "no/x.keras"],
            2,
            "cannot write no/x.keras: there is no folder",
        ),
        (["slow.pyth", "-m", "single_frame", "-o", "x.keras"], 2, "knows no published checkpoints"),
        (["slow.pyth", "-m", "slow", "-o", "x.keras", "--set", "colour=1"], 2, "colour"),
        (
            ["slow.pyth", "-m", "slow", "-o", "x.keras", "--labels", "kinetics400"],
            1,
            "misshaped",
        ),
        (["slow.pyth", "-m", "slow", "-o", "x.keras", "--labels", "gone.txt"], 2, "cannot be read"),
        (
            ["slow.pyth", "-m", "slow", "-o", "x.keras", "--labels", "two.txt", "--num-classes=7"],
            2,
            "two.txt has 2 names for 7 classes",
        ),
        (["slow.pyth", "-o", "x.keras"], 2, "--model"),
    ],
)
def test_mistakes(folder, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.pyth").symlink_to(folder / "slow_r50.pyth")
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    if status == 1 and message == "misshaped":
        arguments = [*arguments, "--set", "stem_filters=8", "--size", "32"]
    result = run("convert", *arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"slow.pyth", "two.txt"}


def test_labels_in_json(folder, tmp_path):
    """A list, or names with numbers in any order, as PyTorchVideo has them (some in quotes)."""
    out, labels = tmp_path / "m.keras", tmp_path / "labels.json"
    options = {"size": (32, 32), "overwrite": True, "labels": labels}
    labels.write_text(json.dumps({f'"action {n}"': n for n in (3, 1, 2, 0, 6, 5, 4)}))
    info = kvideo.convert(folder / "r3d_18.pyth", "r3d_18", out, **options).info
    assert info.class_names == tuple(f"action {n}" for n in range(7))
    for wrong in ('{"a": "b"}', "[1, 2]", "7", "{"):
        labels.write_text(wrong)
        with pytest.raises(DataError, match=r"labels\.json"):
            kvideo.convert(folder / "r3d_18.pyth", "r3d_18", out, **options)


def test_keras_files(folder, tmp_path):
    """A model file of ours with another clip; weights alone need the number of classes."""
    first, second = tmp_path / "a.keras", tmp_path / "b.keras"
    kvideo.convert(folder / "r3d_18.pyth", "r3d_18", first, labels=list("abcdefg"), size=(32, 32))
    result = kvideo.convert(first, "r3d_18", second, size=(48, 48), frame_rate=8)
    assert result.info.class_names == tuple("abcdefg")
    assert result.info.builder.options == {"stem_filters": 4}
    one, other = kvideo.load_model(first), kvideo.load_model(second)
    assert other.input_shape == (None, 16, 48, 48, 3)
    assert kvideo.model_info(other).clip_spec.frame_rate == 8
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    one.save_weights(tmp_path / "a.weights.h5")
    arguments = {"size": (32, 32), "options": {"stem_filters": 4}, "overwrite": True}
    with pytest.raises(UsageError, match="does not say how many classes"):
        kvideo.convert(tmp_path / "a.weights.h5", "r3d_18", second, **arguments)
    result = kvideo.convert(tmp_path / "a.weights.h5", "r3d_18", second, num_classes=7, **arguments)
    assert result.dialect == "Keras" and result.tensors is None
    with pytest.raises((UsageError, ModelFileError), match="do not fit"):
        kvideo.convert(first, "mc3_18", tmp_path / "c.keras", size=(32, 32))
    assert not (tmp_path / "c.keras").exists()
