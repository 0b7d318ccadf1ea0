"""Training runs from end to end on small real files: results, resuming, devices, faults."""

import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_RUN

import kvideo
from kvideo.errors import DataError, DecodeError, UsageError

pytestmark = pytest.mark.slow


def fit(data: Path | str, out: Path, **changes) -> "kvideo.training.FitResult":
    return kvideo.fit(str(data), **{**TINY_RUN, "out": str(out), "epochs": 2, **changes})


def weights(path: Path) -> list[np.ndarray]:
    return [w.numpy() for w in kvideo.load_model(path).weights]


def test_a_run_is_a_folder_that_needs_nothing_else(tiny_videos: Path, tmp_path: Path) -> None:
    result = fit(tiny_videos, tmp_path / "run", model_options={"widths": (4, 6), "dropout": 0.5})
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"experiment.json", "model.keras", "checkpoint", "history.csv", "tensorboard"} <= names
    assert not [name for name in names if name.startswith(".tmp")]
    with open(tmp_path / "run" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(rows[0])
    assert result.best["val_accuracy"] == max(row["val_accuracy"] for row in result.history)
    info = kvideo.model_info(kvideo.load_model(result.model_path))
    assert info.class_names == ("left", "right")
    assert info.clip_spec.num_frames == 4 and info.clip_spec.size == (16, 16)
    assert info.builder.options["dropout"] == 0.5
    assert "bottleneck" in result.bottleneck
    events = (tmp_path / "run" / "tensorboard").glob("events*")
    assert b"val_accuracy" in next(events).read_bytes()


def test_seeded_runs_repeat(tiny_videos: Path, tmp_path: Path) -> None:
    runs = [
        fit(tiny_videos, tmp_path / str(i), seed=7, workers=1 + i, val_fraction=0.0)
        for i in range(2)
    ]
    one, two = (weights(run.model_path) for run in runs)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    other = weights(fit(tiny_videos, tmp_path / "3", seed=8, val_fraction=0.0).model_path)
    assert not np.allclose(one[0], other[0], atol=1e-3)


COMMAND = """
import sys
from kvideo.cli import main
main()
"""


def kvideo_process(*arguments: str, cwd: Path, **options) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def newest(run: Path) -> Path | None:
    """The last checkpoint of a run."""
    return max((run / "checkpoint").glob("step-*.npz"), default=None)


def fit_arguments(data: Path, out: str, epochs: int) -> list[str]:
    arguments = ["fit", str(data), "--model", "slow_fusion", "--out", out, "--frames", "4"]
    arguments += ["--size", "16", "--set", "widths=[4,6]", "--set", "dropout=0.5", "-b", "4"]
    arguments += ["--epochs", str(epochs), "--precision", "float32", "--deterministic"]
    return [*arguments, "--seed", "5", "--val-fraction", "0.34"]


def losses(history: Path) -> list[tuple[str, str]]:
    with open(history) as file:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(file)]


def wait_for(condition, process: subprocess.Popen, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_and_resumed_equals_undisturbed(tiny_videos: Path, tmp_path: Path) -> None:
    epochs = 40
    whole = kvideo_process(*fit_arguments(tiny_videos, "whole", epochs), cwd=tmp_path)
    broken = kvideo_process(*fit_arguments(tiny_videos, "broken", epochs), cwd=tmp_path)
    history = tmp_path / "broken" / "history.csv"
    wait_for(lambda: history.exists() and len(history.read_text().splitlines()) > 4, broken)
    time.sleep(float(np.random.default_rng().uniform(0, 0.3)))
    broken.kill()
    broken.communicate()
    done = len(history.read_text().splitlines()) - 1
    assert 0 < done < epochs
    resumed = kvideo_process("fit", "--resume", "broken", cwd=tmp_path)
    _, text = resumed.communicate(timeout=180)
    assert resumed.returncode == 0, text
    epoch = int(re.search(r"Resuming broken at epoch (\d+)", text)[1])
    assert epoch in (done, done + 1)  # it may have been killed between history and checkpoint
    assert whole.wait(timeout=180) == 0
    # Every variable of model and optimizer, to the bit.
    one, two = (np.load(newest(tmp_path / run)) for run in ("whole", "broken"))
    for name in set(one.files) - {"state", "digest"}:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6, err_msg=name)
    rows = [losses(tmp_path / run / "history.csv") for run in ("whole", "broken")]
    assert rows[0] == rows[1] and len(rows[0]) == epochs
    best = [weights(tmp_path / run / "model.keras") for run in ("whole", "broken")]
    for a, b in zip(*best, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 1, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_keeps_what_was_trained(
    tiny_videos: Path, tmp_path: Path, number: int, status: int, word: str
) -> None:
    process = kvideo_process(*fit_arguments(tiny_videos, "run", 3000), cwd=tmp_path)
    wait_for(lambda: newest(tmp_path / "run"), process)
    process.send_signal(number)
    process.send_signal(number if number == signal.SIGTERM else 0)  # as `timeout` does
    _, text = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in text
    assert f"Error: {word} in epoch" in text.splitlines()[-1]
    assert "kvideo fit --resume run" in text.splitlines()[-1]
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    kvideo.load_model(tmp_path / "run" / "model.keras")
    settings = json.loads((tmp_path / "run" / "experiment.json").read_text())
    state = json.loads(np.load(newest(tmp_path / "run"))["state"].tobytes())
    settings["epochs"] = state["epoch"] + 2
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(settings))
    result = kvideo.fit(resume=tmp_path / "run", verbose=False)
    assert len(result.history) == settings["epochs"]


@pytest.mark.slow
def test_what_is_said_of_the_weights_is_said_once(tiny_videos, shared, tmp_path, capsys) -> None:
    """A small model is built a second time where the machine's quick precision does not suit it."""
    weights = shared / "oracles" / "torch" / "r3d_18.pyth"
    if not weights.exists():
        pytest.skip(f"no PyTorch oracles at {weights.parent}")
    settings = {"size": (32, 32), "num_frames": 4, "epochs": 1, "batch_size": 4, "val_fraction": 0}
    settings["model_options"] = {"stem_filters": 4}
    out = tmp_path / "run"
    kvideo.fit(tiny_videos, "r3d_18", weights=str(weights), out=str(out), **settings)
    assert capsys.readouterr().err.count("r3d_18.pyth has 7 classes") == 1


MIRRORED = """
import sys
import tensorflow as tf
devices = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import kvideo
strategy = "mirrored" if devices > 1 else "one"
kvideo.fit(sys.argv[2], model="slow_fusion", out=sys.argv[3], num_frames=4, size=(16, 16),
           model_options={"widths": (4, 6)}, batch_size=4, precision="float32", epochs=4,
           strategy=strategy, optimizer="sgd", clip_norm=1.0, val_fraction=0.0, verbose=False)
"""


def test_two_devices_give_the_weights_of_one(tiny_videos: Path, tmp_path: Path) -> None:
    for devices in (1, 2):
        arguments = [str(devices), str(tiny_videos), str(tmp_path / str(devices))]
        subprocess.run([sys.executable, "-c", MIRRORED, *arguments], check=True)
    one, two = (weights(tmp_path / str(devices) / "model.keras") for devices in (1, 2))
    assert len(one) == 12
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_fine_tuning_replaces_the_head_and_keeps_frozen_layers(
    tiny_videos: Path, tmp_path: Path
) -> None:
    first = fit(tiny_videos, tmp_path / "first")
    for name in ("a", "b", "c"):
        source = tiny_videos / ("left" if name == "b" else "right")
        shutil.copytree(source, tmp_path / "three" / name)
    second = fit(
        tmp_path / "three",
        tmp_path / "second",
        weights=str(first.model_path),
        model=None,
        num_frames=None,
        size=None,
        model_options={},
        freeze="features",
    )
    old, new = kvideo.load_model(first.model_path), kvideo.load_model(second.model_path)
    assert kvideo.model_info(new).class_names == ("a", "b", "c")
    for layer in old.layers:
        if layer.name != "logits":
            for a, b in zip(
                layer.get_weights(), new.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(a, b)
    # Other clips than the file's: the network is built anew and takes what fits.
    third = fit(
        tiny_videos, tmp_path / "third", weights=str(first.model_path), model=None, num_frames=8,
        size=None, model_options={},
    )  # fmt: skip
    assert kvideo.load_model(third.model_path).input_shape == (None, 8, 16, 16, 3)


def test_a_video_that_fails_is_replaced_and_named(tiny_videos: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_videos, tmp_path / "data")
    (tmp_path / "data" / "left" / "broken.mp4").write_bytes(b"not a video at all")
    (tmp_path / "data" / "right" / "empty.mp4").write_bytes(b"")
    result = fit(tmp_path / "data", tmp_path / "run", val_fraction=0.0)
    assert len(result.failures) == 2
    assert any("broken.mp4" in line for line in result.failures)
    with pytest.raises(DecodeError, match=r"(broken|empty)\.mp4"):
        fit(tmp_path / "data", tmp_path / "strict", val_fraction=0.0, strict=True)


def test_all_videos_broken(tmp_path: Path) -> None:
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"20 attempts in a row.*[^.]\. `kvideo check` lists"):
        fit(tmp_path / "data", tmp_path / "run", val_fraction=0.0)


def test_several_labels_a_video(tiny_videos: Path, tmp_path: Path) -> None:
    lines = ["path,label"]
    for path in sorted(tiny_videos.rglob("*.mp4")):
        extra = ";even" if int(path.stem) % 2 == 0 else ""
        lines.append(f"{path},{path.parent.name}{extra}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    result = fit(tmp_path / "list.csv", tmp_path / "run")
    assert "val_mAP" in result.best
    info = kvideo.model_info(kvideo.load_model(result.model_path))
    assert info.multi_label and info.class_names == ("even", "left", "right")
    evaluation = kvideo.evaluate(
        result.folder, tmp_path / "list.csv", num_clips=2, out=tmp_path / "out", verbose=False
    )
    assert 0 < evaluation.metrics["mAP"] <= 1
    assert "mAP" in (tmp_path / "out" / "report.html").read_text()


def test_a_loss_that_is_not_a_number_ends_the_run(tiny_videos: Path, tmp_path: Path) -> None:
    from kvideo.training.loop import TrainingDiverged

    with pytest.raises(TrainingDiverged, match="--learning-rate"):
        fit(tiny_videos, tmp_path / "run", optimizer="sgd", learning_rate=1e30, epochs=5)


def test_early_stopping_and_class_weights(tiny_videos: Path, tmp_path: Path) -> None:
    result = fit(
        tiny_videos, tmp_path / "run", epochs=50, early_stopping=1, class_weights="balanced",
        learning_rate=1e-9, label_smoothing=0.1,
    )  # fmt: skip
    assert len(result.history) < 50


def test_a_full_disk_is_said_and_harms_nothing(tiny_videos: Path, tmp_path: Path) -> None:
    done = kvideo_process(*fit_arguments(tiny_videos, "run", 1), cwd=tmp_path)
    assert done.wait(timeout=120) == 0
    before = (tmp_path / "run" / "model.keras").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    arguments = [*fit_arguments(tiny_videos, "run", 2), "--overwrite"]
    process = kvideo_process(*arguments, cwd=tmp_path, preexec_fn=limit)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the disk is full" in text and "Traceback" not in text
    assert (tmp_path / "run" / "model.keras").read_bytes() == before
    assert not list((tmp_path / "run").rglob(".tmp-*"))


def test_bfloat16_trains_and_is_saved_as_float32(tiny_videos: Path, tmp_path: Path) -> None:
    result = fit(tiny_videos, tmp_path / "run", precision="bfloat16")
    model = kvideo.load_model(result.model_path)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    half = kvideo.load_model(result.model_path, precision="bfloat16")
    assert half.layers[2].compute_dtype == "bfloat16"
    assert half.get_layer("logits").compute_dtype == "float32"
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(model(clips), half(clips), atol=0.05)


def test_model_fit_takes_the_dataset(tiny_videos: Path) -> None:
    spec = kvideo.ClipSpec(4, 10.0, (16, 16))
    dataset = kvideo.data.clip_dataset(tiny_videos, spec, batch_size=5)
    assert int(dataset.cardinality()) == 3
    clips, labels = next(iter(dataset))
    assert clips.shape == (5, 4, 16, 16, 3) and clips.dtype == "uint8" and labels.dtype == "int32"
    model = kvideo.models.slow_fusion(2, input_shape=spec.shape, widths=(4,))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = model.fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "slow_fusoin"}, UsageError, 'Did you mean "slow_fusion"'),
        (
            {"model_options": {"withs": 3}},
            UsageError,
            "slow_fusion.*cannot be built.*withs.*arguments are .*widths",
        ),
        ({"num_frames": 0}, UsageError, "num_frames must be at least 1"),
        ({"freeze": "nothing"}, UsageError, 'no layer "nothing"'),
        ({"val": "missing_folder"}, DataError, "missing_folder"),
        ({"class_weights": "odd"}, UsageError, "none, balanced"),
        ({"framing": "odd"}, UsageError, "framing must be one of"),
        ({"decoder": "pyaw"}, UsageError, 'Did you mean "pyav"'),
        ({"model": None, "weights": "README.md"}, UsageError, "README.md is not a .keras file"),
    ],
)
def test_mistakes_are_named(tiny_videos: Path, tmp_path: Path, change, error, message) -> None:
    with pytest.raises(error, match=message):
        fit(tiny_videos, tmp_path / "run", **change)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_is_resumed_from_its_beginning(
    tiny_videos: Path, tmp_path: Path
) -> None:
    from kvideo.training.loop import TrainingDiverged

    with pytest.raises(TrainingDiverged):
        fit(tiny_videos, tmp_path / "run", optimizer="sgd", learning_rate=1e30, batch_size=1)
    assert newest(tmp_path / "run") is None
    path = tmp_path / "run" / "experiment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "learning_rate": 0.01}))
    assert len(kvideo.fit(resume=tmp_path / "run", verbose=False).history) == 2


def test_deterministic_runs_choose_float32(tiny_videos: Path, tmp_path: Path) -> None:
    results = [
        fit(tiny_videos, tmp_path / name, deterministic=True, precision="auto", seed=3)
        for name in ("one", "two")
    ]
    one, two = (weights(result.model_path) for result in results)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_existing_run_is_not_overwritten(tiny_videos: Path, tmp_path: Path) -> None:
    fit(tiny_videos, tmp_path / "run")
    with pytest.raises(UsageError, match="holds a run already.*--resume"):
        fit(tiny_videos, tmp_path / "run")
    (tmp_path / "one").mkdir()
    shutil.copytree(tiny_videos / "left", tmp_path / "one" / "left")
    with pytest.raises(DataError, match="one class only"):
        fit(tmp_path / "one", tmp_path / "run2")
    changed = tmp_path / "changed"
    shutil.copytree(tiny_videos, changed)
    fit(changed, tmp_path / "run3")
    next((changed / "left").iterdir()).unlink()
    with pytest.raises(DataError, match="have changed"):
        kvideo.fit(resume=tmp_path / "run3", verbose=False)
