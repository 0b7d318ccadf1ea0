"""Tracking of training runs: Keras callbacks, TensorBoard's files."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import TINY_RUN

import kvideo
from kvideo.errors import UsageError
from kvideo.training import FitResult
from kvideo.training.history import History
from kvideo.training.schedules import warmup_cosine

QUICK: dict[str, Any] = {**TINY_RUN, "warmup_epochs": 0.0}


def fit(data: Path, out: Path, callbacks: list, **changes) -> FitResult:
    settings = {**QUICK, "out": str(out), "epochs": 2, **changes}
    return kvideo.fit(str(data), callbacks=callbacks, **settings)


class Recorder(keras.callbacks.Callback):
    """Writes down what it is called with, and the learning rate at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.rates: list[float] = []


def recording(name: str):
    def method(self, *arguments):
        self.calls.append((name, *arguments))
        self.rates.append(float(self.model.optimizer.learning_rate.value.numpy()))

    return method


for moment in ("train", "epoch", "train_batch", "test"):
    for end in ("begin", "end"):
        setattr(Recorder, f"on_{moment}_{end}", recording(f"on_{moment}_{end}"))


def events(recorder: Recorder) -> list[str]:
    return [call[0].removeprefix("on_") for call in recorder.calls]


@pytest.fixture(scope="module")
def run(tiny_videos: Path, tmp_path_factory) -> tuple[Path, FitResult, Recorder]:
    """Two epochs with many callbacks."""
    folder = tmp_path_factory.mktemp("callbacks")
    recorder, seen = Recorder(), []
    callbacks = [
        recorder,
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.ModelCheckpoint(folder / "{epoch:02d}.keras", monitor="val_accuracy"),
        keras.callbacks.ModelCheckpoint(folder / "only.weights.h5", save_weights_only=True),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=5),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)),
    ]
    # 10 videos: steps of 4, 4 and 2 clips.
    result = fit(tiny_videos, folder / "run", callbacks, val_fraction=0.17)
    assert seen == [0, 1]
    return folder, result, recorder


def test_callbacks_are_called_as_keras_calls_them(run) -> None:
    _, _, recorder = run
    step = ["train_batch_begin", "train_batch_end"]
    epoch = ["epoch_begin", *step * 3, "test_begin", "test_end", "epoch_end"]
    assert events(recorder) == ["train_begin", *epoch * 2, "train_end"]
    numbers = [call[1] for call in recorder.calls if call[0] == "on_train_batch_end"]
    assert numbers == [0, 1, 2] * 2
    assert recorder.params["epochs"] == 2 and recorder.params["steps"] == 3


def test_figures_are_the_histories(run) -> None:
    _, result, recorder = run
    for row, call in zip(
        result.history, [c for c in recorder.calls if c[0] == "on_epoch_end"], strict=True
    ):
        _, epoch, logs = call
        assert epoch + 1 == row["epoch"]
        assert logs == {name: value for name, value in row.items() if name != "epoch"}
        assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(logs)
        assert all(type(value) is float for value in logs.values())
    tests = [call[-1] for call in recorder.calls if call[0] == "on_test_end"]
    assert [t["accuracy"] for t in tests] == [row["val_accuracy"] for row in result.history]
    last = [call[-1] for call in recorder.calls if call[0] == "on_train_batch_end"][-1]
    assert last["loss"] == pytest.approx(result.history[-1]["loss"])


def test_csv_logger(run) -> None:
    folder, result, _ = run
    with open(folder / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == pytest.approx(
        [row["val_loss"] for row in result.history]
    )


def test_what_model_checkpoint_saves_is_a_model_file(run) -> None:
    folder, result, _ = run
    saved = kvideo.load_model(folder / "02.keras")
    assert kvideo.model_info(saved).class_names == ("left", "right")
    assert kvideo.model_info(saved).clip_spec.num_frames == 4
    # The best epoch's is the run's own; neither has the optimizer in it.
    best = folder / f"{result.best_epoch:02d}.keras"
    ours = kvideo.load_model(result.model_path)
    for a, b in zip(kvideo.load_model(best).weights, ours.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert abs(best.stat().st_size - result.model_path.stat().st_size) < 2000
    assert (folder / "only.weights.h5").stat().st_size > 0


def test_the_model_is_left_as_it_was(run) -> None:
    _, _, recorder = run
    assert "save" not in vars(recorder.model) and not recorder.model.compiled


def test_a_callback_may_stop_after_an_epoch(tiny_videos: Path, tmp_path: Path, capsys) -> None:
    stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=100.0)
    result = fit(tiny_videos, tmp_path / "run", [stopping], epochs=9, verbose=True)
    assert len(result.history) == 2 and stopping.stopped_epoch == 1
    assert "A callback asked to stop." in capsys.readouterr().err


class StopAtStep(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


def test_a_callback_may_stop_inside_an_epoch(tiny_videos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = fit(tiny_videos, tmp_path / "run", [StopAtStep(), recorder], epochs=9)
    assert events(recorder).count("train_batch_end") == 1 and len(result.history) == 1
    assert "val_loss" in result.history[0] and events(recorder)[-1] == "train_end"


class HalveOnce(keras.callbacks.Callback):
    """What ReduceLROnPlateau does, at a known moment."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate / 2


def test_a_changed_learning_rate_scales_the_schedule(tiny_videos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    settings = {"epochs": 3, "learning_rate": 0.01, "val_fraction": 0.0}  # three steps an epoch
    fit(tiny_videos, tmp_path / "run", [HalveOnce(), recorder], **settings)
    steps = [name == "train_batch_end" for name in events(recorder)]
    rates = np.array(recorder.rates)[steps]
    expected = [warmup_cosine(i, peak=0.01, warmup_steps=0, total_steps=9) for i in range(9)]
    np.testing.assert_allclose(rates, np.array(expected) * ([1] * 3 + [0.5] * 6), rtol=1e-5)


def test_plateaus_and_schedulers_of_keras(tiny_videos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.004 if epoch == 1 else rate),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=1e9),
        recorder,
    ]
    fit(tiny_videos, tmp_path / "run", callbacks, epochs=3, learning_rate=0.01, val_fraction=0.0)
    begins = [rate for name, rate in zip(events(recorder), recorder.rates, strict=True)
              if name == "epoch_begin"]  # fmt: skip
    schedule = [warmup_cosine(i, peak=0.01, warmup_steps=0, total_steps=9) for i in (0, 3, 6)]
    # The second epoch ends without an improvement, so the third is ten times slower.
    expected = [schedule[0], 0.004, schedule[2] * 0.004 / schedule[1] * 0.1]
    np.testing.assert_allclose(begins, expected, rtol=1e-4)


class Broken(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = self.model.optimizer.learning_rate / 4
        raise ConnectionError("the tracker is away")


def test_a_callback_that_fails_loses_nothing(tiny_videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="the tracker is away"):
        fit(tiny_videos, tmp_path / "run", [Broken()])
    assert (tmp_path / "run" / "model.keras").exists()
    recorder = Recorder()
    result = kvideo.fit(resume=tmp_path / "run", callbacks=[recorder], verbose=False)
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert [c[1] for c in recorder.calls if c[0] == "on_epoch_begin"] == [1]
    # What the callback had done to the learning rate is part of the run.
    expected = warmup_cosine(3, peak=0.001, warmup_steps=0, total_steps=6) / 4
    np.testing.assert_allclose(recorder.rates[1], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([print], "keras.callbacks.Callback objects; one of these is <built-in"),
        ([keras.callbacks.EarlyStopping], "one of these is <class"),
        (keras.callbacks.TerminateOnNaN(), "must be a list"),
        (["early"], "one of these is 'early'"),
        ([keras.callbacks.BackupAndRestore("backup")], "with resume="),
    ],
)
def test_wrong_callbacks(tiny_videos: Path, tmp_path: Path, callbacks, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(tiny_videos, tmp_path / "run", callbacks)
    assert not (tmp_path / "run").exists()


def test_experiment_file_has_no_callbacks(run) -> None:
    folder, _, _ = run
    assert "callbacks" not in json.loads((folder / "run" / "experiment.json").read_text())


# -- TensorBoard -----------------------------------------------------------------------------------


def summaries(run: Path) -> dict[str, tuple[str, list[int], list]]:
    """Of the event files of a run: plugin, steps and values for each name."""
    import tensorflow as tf

    found: dict[str, tuple[str, list[int], list]] = {}
    for path in (run / "tensorboard").glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                _, steps, values = found.setdefault(value.tag, (plugin, [], []))
                steps.append(event.step)
                values.append(tf.make_ndarray(value.tensor))
    return found


def test_tensorboard_gets_figures_sample_clips_and_confusion(run) -> None:
    from PIL import Image

    folder, result, _ = run
    found = summaries(folder / "run")
    plugin, steps, values = found["val_accuracy"]
    assert plugin == "scalars" and steps == [1, 2]
    assert values == pytest.approx([row["val_accuracy"] for row in result.history])
    films = [name for name in found if name.startswith("clip ")]
    assert len(films) == 4 and {name.split(": ")[1] for name in films} <= {"left", "right"}
    plugin, steps, ((width, height, gif),) = found[films[0]]
    assert plugin == "images" and steps == [0] and (width, height) == (b"16", b"16")
    film = Image.open(io.BytesIO(gif))
    assert film.format == "GIF" and film.n_frames == 4 and film.size == (16, 16)
    plugin, steps, pictures = found["confusion"]
    assert plugin == "images" and steps[-1] == result.best_epoch
    picture = Image.open(io.BytesIO(pictures[0][2]))
    assert picture.format == "PNG" and picture.size == tuple(map(int, pictures[0][:2]))


def test_histories_without_pictures(tmp_path: Path) -> None:
    for kind in ("scalars", "none"):
        (tmp_path / kind).mkdir()
        history = History(tmp_path / kind, tensorboard=kind)
        history.add_clips(np.zeros((2, 4, 8, 8, 3), np.uint8), np.zeros(2, int), "ab", 8.0, 0)
        history.add_confusion(np.eye(2, dtype=int), "ab", 1)
        history.append({"epoch": 1, "loss": 0.5})
        history.close()
    assert list(summaries(tmp_path / "scalars")) == ["loss"]
    assert not (tmp_path / "none" / "tensorboard").exists()
    assert (tmp_path / "none" / "history.csv").read_text() == "epoch,loss\n1,0.5\n"
    with pytest.raises(UsageError, match="tensorboard must be one of"):
        kvideo.Experiment("demo", "c3d", tensorboard="images")


def test_sample_clips_of_every_kind(tmp_path: Path) -> None:
    names = ("walk", "run", "jump")
    history = History(tmp_path)
    flow = np.ones((1, 4, 200, 100, 2), np.float32)
    history.add_clips(flow, np.array([[1.0, 0.0, 1.0]], np.float32), names, 8.0, 0)
    both = np.ones((1, 4, 8, 8, 5), np.float32)
    history.add_clips(both, np.array([[-1, 1, 1, 2]], np.int32), names, 8.0, 0)
    actors = np.zeros((1, 2, 12), np.float32)
    actors[0, :, 0], actors[0, 0, 10], actors[0, 1, 11] = (1, 2), 1, 1  # one is hidden
    history.add_clips(np.zeros((1, 4, 8, 8, 3), np.uint8), actors, names, 8.0, 1)
    history.add_clips(np.zeros((1, 4, 7), np.float32), np.array([0]), names, 8.0, 0)
    many = np.eye(100, dtype=int)
    history.add_confusion(many, [f"class {i}" for i in range(100)], 1)
    history.close()
    found = summaries(tmp_path)
    assert set(found) == {"clip 1: walk, jump", "clip 1: run, jump", "clip 1: run", "confusion"}
    from PIL import Image

    assert Image.open(io.BytesIO(found["clip 1: walk, jump"][2][0][2])).size == (80, 160)
    picture = np.asarray(Image.open(io.BytesIO(found["confusion"][2][0][2])).convert("RGB"))
    assert picture.shape == (800, 800, 3)
    assert tuple(picture[0, 0]) == (8, 48, 107) and tuple(picture[0, 799]) == (255, 255, 255)
