"""The commands: help, JSON, exit statuses, and what a user does wrong."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import drifting, write_video

import kvideo
import kvideo.cli as cli_module
from kvideo.cli import COMMANDS, cli

# A model that trains in a second.
TINY = ["--frames", "4", "--size", "16", "--set", "widths=[4,6]", "-b", "4"]
TINY += ["--epochs", "1", "--precision", "float32"]
SLOW_FUSION = ["--model", "slow_fusion", *TINY]


def run(*arguments: str | Path) -> Result:
    """One command in this process. Whatever happens, it must not show a traceback."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


def process(*arguments: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess:
    """One command as a user runs it."""
    code = "from kvideo.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 180, **options}
    return subprocess.run(command, cwd=cwd, **options)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def trained(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = run("fit", tiny_videos, *SLOW_FUSION, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def video(tiny_videos: Path) -> Path:
    return tiny_videos / "left" / "0.mp4"


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [None, *COMMANDS])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(command: str | None, flag: str) -> None:
    result = run(*filter(None, [command, flag]))
    assert result.exit_code == 0 and result.stdout.startswith("Usage:") and not result.stderr
    expected = COMMANDS if command is None else ("Options:", "-h, --help")
    assert all(word in result.stdout for word in expected)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    command = cli.get_command(click.Context(cli, **cli.context_settings), name)
    assert command is not None and command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"kvideo {name} {parameter.opts}"


def test_warnings_of_ours_are_a_sentence_and_others_as_python_has_them(capsys) -> None:
    passed = []
    show = cli_module._shown_warning(lambda *arguments: passed.append(arguments))
    show(UserWarning("it is so."), UserWarning, cli_module.__file__, 1)
    show(UserWarning("too."), UserWarning, "/somewhere/kvideo_plugin/reader.py", 1)
    show(UserWarning("else."), UserWarning, "/kvideo/venv/keras/layer.py", 1)
    show(DeprecationWarning("old."), DeprecationWarning, cli_module.__file__, 1)
    assert capsys.readouterr().err == "Warning: it is so.\nWarning: too.\n"
    assert len(passed) == 2


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0 and kvideo.__version__ in result.stdout


# -- what the commands do --------------------------------------------------------------------------


def test_fit_evaluate_predict(trained: Path, tiny_videos: Path, here: Path, video: Path) -> None:
    shutil.copytree(trained, here / "run")
    result = run("evaluate", "run", tiny_videos, "--clips", "2")
    assert result.exit_code == 0
    assert "Top-1 accuracy" in result.stdout and "left" in result.stdout
    assert "Report: run/report.html" in result.stderr
    assert {"evaluation.json", "report.html", "confusion.png"} <= contents(here / "run")
    result = run("predict", "run/model.keras", video, "--top", "1", "--clips", "1")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[0] == str(video) and len(lines) == 2
    label, probability = lines[1].split()[:2]
    assert label in ("left", "right") and 0.5 <= float(probability) <= 1
    # A folder means the videos in it.
    result = run("predict", "run", tiny_videos / "left", "--clips", "1")
    assert result.exit_code == 0 and result.stdout.count(".mp4") == 6


def test_timeline(trained: Path, here: Path) -> None:
    long = write_video(here / "long.mp4", drifting(2, 1, frames=40))
    result = run("predict", trained, long, "--timeline", "--step", "1")
    times = re.findall(r"^ +(\d+\.\d\d)  (?:left|right)", result.stdout, re.M)
    assert result.exit_code == 0 and [float(time) for time in times] == [0.2, 1.2, 2.2, 3.2]


def test_models_and_decoders() -> None:
    result = run("models")
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and names == sorted(names)
    assert {"single_frame", "late_fusion", "early_fusion", "slow_fusion", "c3d"} <= set(names)
    assert run("models", "--decoders").stdout.split()[0] == "pyav"


def test_check_and_quarantine(tiny_videos: Path, here: Path) -> None:
    assert run("check", tiny_videos).exit_code == 0
    shutil.copytree(tiny_videos, here / "data")
    (here / "data" / "left" / "broken.mp4").write_bytes(b"not a video")
    result = run("check", "data", "--quarantine", "bad.txt")
    assert result.exit_code == 1 and "unreadable:" in result.stdout
    assert "broken.mp4" in (here / "bad.txt").read_text()
    result = run("fit", "data", *SLOW_FUSION, "--out", "run", "--quarantine", "bad.txt", "--strict")
    assert result.exit_code == 0 and "1 quarantined video" in result.stderr


def test_what_was_left_out_is_said(tiny_videos: Path, here: Path) -> None:
    lines = [f"{p},{p.parent.name}" for p in sorted(tiny_videos.rglob("*.mp4"))]
    (here / "list.csv").write_text("\n".join(["path,label", *lines, "gone.mp4,left"]))
    result = run("fit", "list.csv", *SLOW_FUSION, "--out", "run")
    assert result.exit_code == 0
    assert "Note: 1 of 13 videos in list.csv: no such file" in result.stderr
    assert "gone.mp4" in result.stderr
    result = run("evaluate", "run", "list.csv", "--clips", "1")
    assert result.exit_code == 0 and "gone.mp4" in result.stderr


def test_fit_says_whether_clips_are_mirrored(tiny_videos: Path, here: Path) -> None:
    result = run("fit", tiny_videos, *SLOW_FUSION, "--out", "a")
    assert 'not mirrored ("left" and "right" mirror each other; --flip on insists)' in result.stderr
    result = run("fit", tiny_videos, *SLOW_FUSION, "--out", "b", "--flip", "on")
    assert "mirrored at random" in result.stderr


def test_resuming_what_is_finished(trained: Path, here: Path) -> None:
    shutil.copytree(trained, here / "run")
    before = (here / "run" / "history.csv").read_bytes()
    result = run("fit", "--resume", "run")
    assert result.exit_code == 0 and "run is finished: all of its 1 epoch." in result.stderr
    assert (here / "run" / "history.csv").read_bytes() == before


def test_options_reach_the_experiment(tiny_videos: Path, here: Path) -> None:
    options = ["--framing", "letterbox", "--flip", "off", "--seed", "3", "--lr", "0.01"]
    options += ["--optimizer", "sgd", "--warmup-epochs", "0.5", "--val-fraction", "0.5"]
    options += ["--frame-rate", "5", "--size", "16x24", "--set", "dropout=0.25", "--jitter", "0"]
    options += ["--set", "batch_norm=false"]
    result = run("fit", tiny_videos, *SLOW_FUSION, "--out", "run", *options)
    assert result.exit_code == 0, result.output
    settings = json.loads((here / "run" / "experiment.json").read_text())
    assert settings["size"] == [16, 24] and settings["model_options"]["dropout"] == 0.25
    assert settings["model_options"]["batch_norm"] is False
    expected = {"framing": "letterbox", "flip": "off", "seed": 3, "learning_rate": 0.01}
    expected |= {"optimizer": "sgd", "warmup_epochs": 0.5, "frame_rate": 5.0, "jitter": 0.0}
    assert expected.items() <= settings.items()
    assert "validating on 6" in result.stderr and "16×24" in result.stderr


# -- JSON ------------------------------------------------------------------------------------------


def document(result: Result) -> object:
    """The one JSON document that standard output must be, from its first to its last letter."""
    assert result.stdout.endswith("\n") and result.stdout == result.stdout.lstrip()
    return json.loads(result.stdout)


def test_json_of_fit(tiny_videos: Path, here: Path) -> None:
    found = document(run("fit", tiny_videos, *SLOW_FUSION, "--out", "run", "--json"))
    assert found["folder"] == "run" and found["best_epoch"] == 1 and found["failures"] == []
    with open("run/history.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["loss"]) == pytest.approx(found["best"]["loss"], rel=1e-4)


def test_json_of_evaluate(trained: Path, tiny_videos: Path, here: Path) -> None:
    arguments = [trained, tiny_videos, "--clips", "1", "--out", "out", "--json"]
    found = document(run("evaluate", *arguments))
    assert found == json.loads((here / "out" / "evaluation.json").read_text())
    assert found["metrics"]["num_videos"] == 12


def test_json_of_predict(trained: Path, video: Path, here: Path) -> None:
    (here / "broken.mp4").write_bytes(b"nothing")
    result = run("predict", trained, video, "broken.mp4", "--clips", "2", "--json")
    assert result.exit_code == 1
    good, bad = document(result)
    assert good["label"] in ("left", "right") and len(good["top"]) == 2
    assert sum(row["probability"] for row in good["top"]) == pytest.approx(1, abs=1e-5)
    assert set(bad) == {"path", "error"} and bad["path"] == "broken.mp4"
    (found,) = document(run("predict", trained, video, "--timeline", "--json"))
    assert [row["time"] for row in found["timeline"]] == sorted(
        r["time"] for r in found["timeline"]
    )
    assert found["class_names"] == ["left", "right"]


def test_json_of_models_and_check(tiny_videos: Path, here: Path) -> None:
    assert {row["name"] for row in document(run("models", "--json"))} >= {"c3d"}
    (here / "bad").mkdir()
    (here / "bad" / "x.mp4").write_bytes(b"")
    result = run("check", "bad", "--json")
    assert result.exit_code == 1 and document(result)["bad"][0]["reason"] == "empty"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "nowhere", "--model", "slow_fusion"],
        ["evaluate", "nowhere", "nowhere"],
        ["predict", "nowhere", "x.mp4"],
        ["check", "nowhere"],
    ],
)
def test_an_error_leaves_standard_output_empty(here: Path, arguments: list[str]) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 1 and result.stdout == "" and "nowhere" in result.stderr


# -- wrong usage: status 2 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fti"], 'no command "fti". Did you mean "fit"'),
        (["nonsense"], "nonsense"),
        (["fit"], "name the DATA to train on"),
        (["fit", "DATA"], "name a model"),
        (["fit", "DATA", "--modle", "c3d"], "--model"),
        (["fit", "DATA", "-m", "slow_fusoin"], 'no model "slow_fusoin". Did you mean "slow_fus'),
        (["fit", "DATA", "-m", "slow_fusion", "--set", "widths"], "not NAME=VALUE"),
        (["fit", "DATA", "-m", "slow_fusion", "--set", "withs=3"], "cannot be built.*withs"),
        (["fit", "DATA", "-m", "cnn_rnn", "--set", "bidirectional=no"], "true or false, not 'no'"),
        (["fit", "DATA", "-m", "slow_fusion", "--size", "big"], "neither a number.*HEIGHTxWIDTH"),
        (["fit", "DATA", "-m", "slow_fusion", "--size", "0"], "size must be"),
        (["fit", "DATA", "-m", "slow_fusion", "--size", "1"], "too small"),
        (["fit", "DATA", "-m", "slow_fusion", "--frames", "0"], "num_frames must be at least 1"),
        (["fit", "DATA", "-m", "slow_fusion", "--frame-rate", "nan"], "frame_rate must be"),
        (["fit", "DATA", "-m", "slow_fusion", "--framing", "zoom"], "framing must be.*zoom"),
        (["fit", "DATA", "-m", "slow_fusion", "--epochs", "0"], "epochs must be at least 1"),
        (["fit", "DATA", "-m", "slow_fusion", "--epochs", "many"], "many"),
        (["fit", "DATA", "-m", "slow_fusion", "--weights", "imagenet"], "weights must be"),
        (["fit", "DATA", "-m", "slow_fusion", "--freeze", "conv"], 'no layer "conv". Did you'),
        (["fit", "DATA", "-m", "slow_fusion", "--decoder", "pyavv"], 'Did you mean "pyav"'),
        (["fit", "DATA", "-m", "slow_fusion", "--split", "dev"], "dev"),
        (["fit", "--resume", "nowhere"], "nowhere is not a run's folder"),
        (["fit", "DATA", "--resume", "RUN"], "takes all settings from the run"),
        (["fit", "--resume", "RUN", "--epochs", "5"], "takes all settings from the run"),
        (["fit", "DATA", "-m", "slow_fusion", "--out", "RUN"], "holds a run already.*--resume"),
        (["fit", "DATA", "-m", "slow_fusion", "--out", "VIDEO"], "is a file; a run needs a folder"),
        (["evaluate", "RUN"], "Missing argument 'DATA'"),
        (["evaluate", "RUN", "DATA", "--clips", "0"], "num_clips must be at least 1, not 0"),
        (["evaluate", "RUN", "DATA", "--crops", "2"], "num_crops must be 1 or 3, not 2"),
        (["evaluate", "RUN", "DATA", "--precision", "float8"], "float8"),
        (["evaluate", "RUN", "DATA", "--batch-size", "0"], "0 is not in the range"),
        (["predict", "RUN"], "Missing argument 'FILES...'"),
        (["predict", "RUN", "VIDEO", "--top", "0"], "0 is not in the range"),
        (["predict", "RUN", "VIDEO", "--step", "1"], "give --timeline as well"),
        (["predict", "RUN", "VIDEO", "--timeline", "--step", "0"], "step must be above 0 s"),
        (["predict", "RUN", "VIDEO", "--timeline", "--clips", "3"], "clips of its own"),
        (["check", "DATA", "--quarantine", "none/bad.txt"], "there is no folder none"),
        (["models", "DATA"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(arguments, message, tiny_videos, trained, video, here) -> None:
    stand_for = {"DATA": tiny_videos, "RUN": trained, "VIDEO": video}
    before = contents(trained)
    result = run(*[stand_for.get(word, word) for word in arguments])
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert result.stdout == "" and not contents(here) and contents(trained) == before


# -- bad input: status 1 ---------------------------------------------------------------------------


def empty_folder(here: Path) -> None:
    (here / "data").mkdir()


def an_empty_class(here: Path) -> None:
    write_video(here / "data" / "a" / "1.mp4", drifting(1, 1))
    (here / "data" / "b").mkdir()


def one_class_only(here: Path) -> None:
    write_video(here / "data" / "cats" / "1.mp4", drifting(1, 1))


def labels_without_files(here: Path) -> None:
    (here / "data").write_text("path,label\none.mp4,a\ntwo.mp4,b\n")


def files_without_labels(here: Path) -> None:
    write_video(here / "data" / "1.mp4", drifting(1, 1))


def a_column_is_missing(here: Path) -> None:
    (here / "data").write_text("file,kind\none.mp4,a\n")


def unreadable_videos(here: Path) -> None:
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        (here / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "data" / name).write_bytes(b"" if name.endswith("1.mp4") else b"nothing at all")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda here: None, "there is no file or folder data"),
        (empty_folder, "data is empty"),
        (an_empty_class, "class folder .*b holds no videos"),
        (one_class_only, r"one class only \(cats\)"),
        (labels_without_files, r"none of its 2 videos is there .*one\.mp4.*--root"),
        (files_without_labels, "videos? without labels.*folders named after their classes"),
        (a_column_is_missing, "data"),
        (unreadable_videos, "no video could be read.*kvideo check"),
    ],
)
def test_data_that_cannot_be_trained_on(here: Path, make, message: str) -> None:
    make(here)
    before = contents(here)
    result = run("fit", "data", *SLOW_FUSION, "--out", "run", "--val-fraction", "0")
    assert result.exit_code == 1, result.output
    assert re.search(message, result.stderr.replace("\n", " ")), result.stderr
    assert result.stdout == ""
    left = contents(here) - before
    assert not [name for name in left if ".tmp" in name or name.endswith(".keras")]
    if make is not unreadable_videos:  # which only training finds out
        assert not left


def test_the_message_for_unreadable_videos_names_them(here: Path, tiny_videos: Path) -> None:
    shutil.copytree(tiny_videos, here / "data")
    (here / "data" / "left" / "0.mp4").write_bytes(b"")
    cut = (here / "data" / "right" / "0.mp4").read_bytes()[:300]
    (here / "data" / "right" / "0.mp4").write_bytes(cut)
    result = run("fit", "data", *SLOW_FUSION, "--out", "run", "--val-fraction", "0")
    assert result.exit_code == 0
    assert "2 videos could not be read (" in result.stderr and "1 empty" in result.stderr
    assert "left/0.mp4" in result.stderr and "right/0.mp4" in result.stderr
    result = run("fit", "data", *SLOW_FUSION, "--out", "strict", "--val-fraction", "0", "--strict")
    assert result.exit_code == 1 and "/0.mp4: " in result.stderr
    result = run("evaluate", "run", "data", "--clips", "1")
    assert result.exit_code == 0 and "left/0.mp4" in result.stdout
    found = json.loads((here / "run" / "evaluation.json").read_text())
    assert {row["reason"] for row in found["failures"]} >= {"empty"}
    assert found["metrics"]["num_videos"] == 10 and found["metrics"]["num_failed"] == 2


def test_a_validation_video_that_fails_is_named(here: Path, tiny_videos: Path) -> None:
    shutil.copytree(tiny_videos, here / "val")
    (here / "val" / "left" / "0.mp4").write_bytes(b"nothing at all")
    arguments = [*SLOW_FUSION, "--epochs", "2", "--val", "val", "--out", "run", "--json"]
    result = run("fit", tiny_videos, *arguments)
    assert result.exit_code == 0
    assert result.stderr.count("1 video could not be read (1 unreadable)") == 1, result.stderr
    (failure,) = document(result)["failures"]
    assert "val/left/0.mp4" in failure


def test_a_broken_file_among_good_ones(trained: Path, tiny_videos: Path, here: Path) -> None:
    (here / "broken.mp4").write_bytes(b"nothing at all")
    (here / "empty.mp4").write_bytes(b"")
    good = [tiny_videos / "left" / f"{number}.mp4" for number in (0, 1)]
    files = [good[0], "broken.mp4", "empty.mp4", "gone.mp4", good[1]]
    for extra in ([], ["--timeline"]):
        result = run("predict", trained, *files, *extra)
        assert result.exit_code == 1
        assert [line for line in result.stdout.splitlines() if line.endswith(".mp4")] == [
            str(path) for path in good
        ]
        for name in ("broken.mp4", "empty.mp4", "gone.mp4"):
            assert f"Error: {name}: " in result.stderr
        assert "3 of 5 files could not be read" in result.stderr


def test_models_that_cannot_be_loaded(trained: Path, tiny_videos, video: Path, here: Path) -> None:
    import keras

    whole = (trained / "model.keras").read_bytes()
    (here / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (here / "noise.keras").write_bytes(b"no zip archive")
    (here / "zero.keras").write_bytes(b"")
    inputs = keras.Input((4, 16, 16, 3))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(here / "plain.keras")
    (here / "folder").mkdir()
    for name, message in (
        ("cut.keras", "cut.keras is not a whole model file"),
        ("noise.keras", "noise.keras is not a whole model file"),
        ("zero.keras", "zero.keras is not a whole model file"),
        ("plain.keras", "plain.keras was not saved by kvideo"),
        ("none.keras", "there is no model file none.keras"),
        ("folder", "there is no model file folder/model.keras"),
    ):
        before = contents(here)
        for command in (["evaluate", name, tiny_videos], ["predict", name, video]):
            result = run(*command)
            assert result.exit_code == 1 and message in result.stderr, result.stderr
            assert result.stdout == "" and contents(here) == before
        if name != "folder":
            result = run("fit", tiny_videos, "--weights", name, "--out", "run")
            assert result.exit_code == 1 and message in result.stderr
            assert contents(here) == before


def test_other_classes_than_the_models(trained: Path, here: Path, tiny_videos: Path) -> None:
    shutil.copytree(tiny_videos / "left", here / "data" / "cats")
    result = run("evaluate", trained, "data", "--out", "out")
    assert result.exit_code == 1 and result.stdout == ""
    assert re.search("no class 'cats'.*left and right", result.stderr)
    assert not (here / "out").exists()
    # Some of the model's classes are enough.
    shutil.copytree(tiny_videos / "left", here / "part" / "left")
    result = run("evaluate", trained, "part", "--clips", "1", "--out", "out")
    assert result.exit_code == 0 and "Videos               6" in result.stdout


def test_nothing_that_can_be_evaluated(trained: Path, here: Path) -> None:
    for name in ("left", "right"):
        (here / "data" / name).mkdir(parents=True)
        (here / "data" / name / "1.mp4").write_bytes(b"nothing at all")
    result = run("evaluate", trained, "data", "--out", "out")
    assert result.exit_code == 1 and "1.mp4" in result.stderr and result.stdout == ""
    assert not (here / "out").exists()


# -- as processes ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_main_job_as_processes(tiny_videos: Path, video: Path, tmp_path: Path) -> None:
    done = process("fit", tiny_videos, *SLOW_FUSION, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == ""
    # Nothing of TensorFlow's own messages, not even in a log.
    allowed = r"Training on|slow_fusion: |epoch 1/1: |Best epoch: |Model: run/model.keras"
    assert all(re.match(allowed, line) for line in done.stderr.splitlines()), done.stderr
    done = process("evaluate", "run", tiny_videos, "--clips", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["metrics"]["num_videos"] == 12
    assert done.stderr.splitlines()[-1] == "Report: run/report.html"
    (tmp_path / "bad.mp4").write_bytes(b"")
    done = process("predict", "run", video, "bad.mp4", "--json", cwd=tmp_path)
    assert done.returncode == 1 and len(json.loads(done.stdout)) == 2
    assert done.stderr.splitlines()[-1] == "Error: 1 of 2 files could not be read."
    assert len(done.stderr.splitlines()) == 3  # with the progress


@pytest.mark.slow
def test_wrong_usage_and_bad_input_as_processes(tiny_videos: Path, tmp_path: Path) -> None:
    for arguments, status in (
        (["fti"], 2),
        (["fit", "nowhere", "--model", "c3d"], 1),
        (["fit", tiny_videos, "--model", "c33d"], 2),
        (["evaluate", "nowhere", tiny_videos], 1),
        (["models", "--no-such-option"], 2),
    ):
        done = process(*arguments, cwd=tmp_path)
        assert done.returncode == status and done.stdout == ""
        assert "Error: " in done.stderr and "Traceback" not in done.stderr
    assert not contents(tmp_path)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = process("models", "--json", cwd=tmp_path, capture_output=False, stdout=full,
                       stderr=subprocess.PIPE)  # fmt: skip
    assert done.returncode == 1 and done.stderr == "Error: no space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:  # as in `kvideo models | head -0`
        done = process("models", cwd=tmp_path, capture_output=False, stdout=closed,
                       stderr=subprocess.PIPE)  # fmt: skip
    assert done.returncode != 0 and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict", "ascii:strict"])
def test_names_that_are_no_text(trained: Path, video: Path, tmp_path: Path, encoding: str) -> None:
    name = os.fsdecode(b"caf\xe9 \xff.mp4")
    try:
        shutil.copy(video, tmp_path / name)
    except OSError:
        pytest.skip("the file system takes text only")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = process("predict", trained, name, "gone \udcff.mp4", "--clips", "1", cwd=tmp_path,
                   env=environment, text=False)  # fmt: skip
    assert done.returncode == 1 and b"caf" in done.stdout and b"left" in done.stdout
    assert b"Traceback" not in done.stderr and b"gone" in done.stderr


def test_predictions_repeat(trained: Path, video: Path) -> None:
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        found.append(run("predict", trained, video, "--json").stdout)
    assert found[0] == found[1]


@pytest.mark.slow
def test_clips_beyond_all_memory_get_a_sentence(tiny_videos: Path, tmp_path: Path) -> None:
    huge = ["--model", "single_frame", "--size", "200000", "--epochs", "1", "--out", "run"]
    done = process("fit", tiny_videos, *huge, cwd=tmp_path)
    assert done.returncode == 1
    assert "the memory is not enough" in done.stderr and "Traceback" not in done.stderr
    assert "Smaller values of --size, --frames, --batch-size or --workers need less" in done.stderr


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("features", " Smaller values of --clips, --batch-size or --workers need less."),
        ("export", " Smaller values of --batch need less."),
        ("models", ""),
    ],
)
def test_advice_on_memory_names_the_command_s_options(monkeypatch, command, advice) -> None:
    def fail(**_):
        raise MemoryError

    arguments = {"features": ["a.keras", "b"], "export": ["a.keras", "--out", "b.onnx"]}
    monkeypatch.setattr(cli.get_command(None, command), "callback", fail)
    result = run(command, *arguments.get(command, []))
    assert result.exit_code == 1
    assert result.stderr == f"Error: the memory is not enough for this.{advice}\n"
