"""Recipe parts together, in whole runs on small real files: they train, resume, and refuse."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import TINY_RUN
from per_frame_model import frames_model

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec
from kvideo.errors import UsageError
from kvideo.saving import ModelInfo, save_model
from kvideo.training.distillation import load_teacher
from kvideo.training.interruption import TrainingInterrupted
from kvideo.training.mixing import Mixing
from kvideo.training.objective import Distillation, Objective
from kvideo.training.step import compile_step

QUICK: dict[str, Any] = {**TINY_RUN, "epochs": 2, "val_fraction": 0.0}
PARTS = {
    "rand_augment": "2x9",
    "random_erasing": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "mix_probability": 0.9,
    "repeats": 2,
    "sampling": "balanced",
    "focal_gamma": 1.0,
    "distill_temperature": 2.0,
    "distill_weight": 0.5,
}
HOW = Distillation(2.0, 0.5)


def fit(data: Path | str, out: Path, **changes) -> kvideo.training.FitResult:
    return kvideo.fit(str(data), **{**QUICK, "out": str(out), **changes})


def weights(path: Path) -> list[np.ndarray]:
    return [w.numpy() for w in kvideo.load_model(path).weights]


@pytest.fixture(scope="module")
def teacher(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on half of the frames and pictures of another size."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    clip = {"num_frames": 2, "frame_rate": 4.0, "size": (24, 24), "model": "late_fusion"}
    return fit(tiny_videos, out, epochs=1, **clip).folder


@pytest.mark.slow
def test_all_parts_train_together_and_resume(tiny_videos, teacher, tmp_path, monkeypatch) -> None:
    settings = {**PARTS, "distill": str(teacher), "frame_rate": 8.0, "clip_norm": 1.0}
    whole = fit(tiny_videos, tmp_path / "whole", **settings)
    saved = json.loads((whole.folder / "experiment.json").read_text())
    assert PARTS.items() <= saved.items() and saved["distill"] == str(teacher)
    assert len(whole.history) == 2 and np.isfinite([row["loss"] for row in whole.history]).all()

    draw = Mixing.draw

    def interrupted(self, step, shape):
        if step == 8:  # in the middle of the second of two epochs of 6 steps
            signal.raise_signal(signal.SIGINT)
        return draw(self, step, shape)

    monkeypatch.setattr(Mixing, "draw", interrupted)
    with pytest.raises(TrainingInterrupted, match="in epoch 2"):
        fit(tiny_videos, tmp_path / "broken", **settings)
    monkeypatch.setattr(Mixing, "draw", draw)
    resumed = kvideo.fit(resume=tmp_path / "broken", verbose=False)
    for a, b in zip(weights(whole.model_path), weights(resumed.model_path), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert resumed.history[1]["loss"] == pytest.approx(whole.history[1]["loss"], abs=1e-4)


@pytest.mark.slow
def test_several_labels_a_video(tiny_videos: Path, tmp_path: Path) -> None:
    lines = ["path,label"]
    for path in sorted(tiny_videos.rglob("*.mp4")):
        extra = ";even" if int(path.stem) % 2 == 0 else ""
        lines.append(f"{path},{path.parent.name}{extra}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    teacher = fit(tmp_path / "list.csv", tmp_path / "teacher", epochs=1)
    result = fit(
        tmp_path / "list.csv", tmp_path / "run", **PARTS, distill=str(teacher.folder), epochs=1
    )
    assert 0 < result.history[0]["loss"] < 2 and 0 <= result.history[0]["accuracy"] <= 1
    with pytest.raises(UsageError, match="gives several labels a video, the data has one"):
        fit(tiny_videos, tmp_path / "other", distill=str(teacher.folder))


@pytest.mark.slow
def test_clips_of_flow_are_mixed_and_erased(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    parts = {"mixup": 0.2, "cutmix": 1.0, "random_erasing": 0.5, "repeats": 2, "modality": "flow"}
    result = fit(tiny_videos, tmp_path / "run", epochs=1, **parts)
    assert np.isfinite(result.history[0]["loss"])
    with pytest.raises(UsageError, match="RandAugment changes pictures; clips of flow"):
        fit(tiny_videos, tmp_path / "other", modality="flow", rand_augment="2x9")


@pytest.mark.slow
def test_frozen_backbones(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    frozen = {
        "model": "cnn_rnn",
        "model_options": {
            "frozen_backbone": True,
            "states": "vector",
            "widths": (4, 6),
            "units": 8,
            "grid": 2,
        },
        "epochs": 1,
    }
    fit(tiny_videos, tmp_path / "run", **frozen, mixup=0.2, repeats=2, focal_gamma=1.0)
    for change, message in (
        ({"cutmix": 1.0}, "cutmix cuts boxes"),
        ({"rand_augment": "1x5"}, "features that are computed once"),
        ({"random_erasing": 0.1}, "features that are computed once"),
        ({"distill": str(tmp_path / "run")}, "a teacher needs clips"),
    ):
        with pytest.raises(UsageError, match=message):
            fit(tiny_videos, tmp_path / "other", **frozen, **change)


# -- teachers --------------------------------------------------------------------------------------


def saved(path: Path, spec: ClipSpec, names=("a", "b", "c"), **options) -> Path:
    keras.utils.set_random_seed(4)
    output = options.pop("output", "video")
    multi_label = options.get("multi_label", False)
    model = frames_model(len(names), spec.shape, "sigmoid" if multi_label else "softmax", output)
    save_model(model, path, ModelInfo(spec, names, **options))
    return path


STUDENT = ModelInfo(ClipSpec(8, 10.0, (16, 16)), ("a", "b", "c"))
CLIPS = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 3), np.uint8)


def logits_of(path: Path, clips: np.ndarray) -> np.ndarray:
    model = kvideo.load_model(path)
    return keras.Model(model.input, model.get_layer("logits").output).predict(clips, verbose=0)


def test_a_teacher_sees_its_frames_and_answers_in_the_students_order(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.keras", ClipSpec(4, 5.0, (8, 8)), ("c", "a", "b"))
    teacher = load_teacher(path, HOW, STUDENT, "float32")
    small = tf.image.resize(CLIPS[:, ::2].reshape(-1, 16, 16, 3), (8, 8), antialias=True)
    expected = logits_of(path, small.numpy().reshape(4, 4, 8, 8, 3))[:, [1, 2, 0]]
    np.testing.assert_allclose(teacher(tf.constant(CLIPS)), expected, atol=1e-4)
    same = saved(tmp_path / "s.keras", STUDENT.clip_spec)
    teacher = load_teacher(same, HOW, STUDENT, "float32")
    np.testing.assert_allclose(teacher(tf.constant(CLIPS)), logits_of(same, CLIPS), atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (ClipSpec(8, 5.0, (16, 16)), {}, "8 frames at 5/s.*8 frames at 10/s.*do not contain"),
        (ClipSpec(4, 10.0, (16, 16)), {}, "do not contain"),
        (ClipSpec(16, 20.0, (16, 16)), {}, "do not contain"),
        (ClipSpec(3, 5.0, (16, 16)), {}, "do not contain"),
        (ClipSpec(8, 10.0, (16, 24)), {}, "16×24.*16×16.*do not contain"),
        (ClipSpec(8, 10.0, (16, 16), framing="letterbox"), {}, "letterbox.*do not contain"),
        (ClipSpec(8, 10.0, (16, 16), modality="flow"), {}, "flow.*do not contain"),
        (ClipSpec(8, 10.0, (16, 16)), {"names": ("a", "b")}, 'does not know the class "c"'),
        (ClipSpec(8, 10.0, (16, 16)), {"names": tuple("abcd")}, 'has the class "d", which'),
        (ClipSpec(8, 10.0, (16, 16)), {"multi_label": True}, "several labels a video, the data"),
        (ClipSpec(8, 10.0, (16, 16)), {"output": "frames"}, "a label for each frame, the model"),
    ],
)
def test_teachers_that_do_not_fit(tmp_path: Path, spec, options, message: str) -> None:
    path = saved(tmp_path / "t.keras", spec, **options)
    with pytest.raises(UsageError, match=message):
        load_teacher(path, HOW, STUDENT, "float32")


def test_a_step_with_a_teacher_changes_the_student_only(tmp_path: Path) -> None:
    """And with the whole weight on the teacher, labels do not matter; with frames as without."""
    for output, labels in (
        ("video", np.array([0, 1, 2, -1], np.int32)),
        ("frames", np.random.default_rng(1).integers(-1, 3, (4, 8)).astype(np.int32)),
    ):
        path = saved(tmp_path / f"{output}.keras", STUDENT.clip_spec, output=output)
        student = ModelInfo(STUDENT.clip_spec, ("a", "b", "c"), per_frame=output == "frames")
        teacher = load_teacher(path, Distillation(2.0, 1.0), student, "float32")
        before = [w.numpy() for w in teacher.network.weights]
        keras.utils.set_random_seed(7)
        model = frames_model(3, output=output)
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
        objective = Objective(teacher=teacher)
        step = compile_step(
            model, optimizer, tf.distribute.get_strategy(), batch_size=4, objective=objective
        )
        losses = []
        for number in range(30):
            wrong = np.where(labels >= 0, (labels + number) % 3, -1).astype(np.int32)
            sums = step(tf.constant(CLIPS), tf.constant(wrong)).numpy()
            assert sums[2] == (labels >= 0).sum()
            losses.append(sums[0] / sums[2])
        assert losses[-1] < 0.3 * losses[0]
        for old, new in zip(before, teacher.network.weights, strict=True):
            np.testing.assert_array_equal(old, new)


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rand-augment", "9"], "rand_augment is NUMBERxMAGNITUDE, such as 2x9"),
        (["--rand-augment", "2x11"], "magnitude must be 0 to 10, not 11"),
        (["--random-erasing", "2"], "random_erasing must be 0 to 1"),
        (["--mixup", "-1"], "mixup must be at least 0"),
        (["--cutmix", "-1"], "cutmix must be at least 0"),
        (["--mix-probability", "0"], "mix_probability must be above 0"),
        (["--repeats", "0"], "repeats must be at least 1"),
        (["--repeats", "3"], "repeats (3) must divide the batch size (16)"),
        (["--sampling", "even"], "sampling must be one of random, balanced"),
        (["--sampling", "balanced", "--class-weights", "balanced"], "give only one of them"),
        (["--focal-gamma", "-2"], "focal_gamma must be at least 0"),
        (["--distill", "no.keras"], "there is no model file no.keras"),
        (["--distill-temperature", "0"], "distill_temperature must be above 0"),
        (["--distill-weight", "0"], "distill_weight must be above 0"),
    ],
)
def test_wrong_use(options: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["fit", "demo", "-m", "slow_fusion", *options])
    assert result.exit_code == (1 if "no model file" in message else 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ") and message in result.stderr
    assert "Traceback" not in result.stderr and not list(tmp_path.iterdir())
