"""Models with a label for each frame: loss, step, training, validation, evaluation, prediction."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import write_video
from per_frame_model import brightness_model, frames_model, offer

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import read_data
from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoSet
from kvideo.data.windows import iterate_blocks
from kvideo.errors import DataError, UsageError
from kvideo.inference import Predictor
from kvideo.report import format_result
from kvideo.saving import ModelInfo, read_info, save_model
from kvideo.segmentation import segmentation_metrics
from kvideo.segmentation.results import SegmentationResult, exclude_background, segments_of
from kvideo.segmentation.scoring import score_frames
from kvideo.training.losses import classification_loss, frame_loss, num_hits
from kvideo.training.step import compile_step
from kvideo.training.validation import Validation

CLIPS = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 16, 3), np.uint8)
LABELS = np.random.default_rng(1).integers(-1, 3, (4, 8)).astype(np.int32)


# -- loss and step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0], np.float32)])
def test_frame_loss_is_that_of_each_labelled_frame(weights) -> None:
    logits = np.random.default_rng(2).normal(size=(4, 8, 3)).astype(np.float32)
    given = None if weights is None else tf.constant(weights)
    options = {"label_smoothing": 0.1, "class_weights": given}
    losses = frame_loss(tf.constant(LABELS), tf.constant(logits), **options).numpy()
    known = LABELS >= 0
    expected = classification_loss(
        tf.constant(LABELS[known]), tf.constant(logits[known]), **options
    )
    np.testing.assert_allclose(losses[known], expected, rtol=1e-6)
    assert (losses[~known] == 0).all() and (~known).any()
    hits = num_hits(tf.constant(LABELS), tf.constant(logits), False)
    assert float(hits) == np.sum(logits.argmax(-1)[known] == LABELS[known])


def one_step(labels: np.ndarray, **options) -> tuple[keras.Model, np.ndarray]:
    keras.utils.set_random_seed(3)
    model = frames_model(3)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    step = compile_step(model, optimizer, tf.distribute.get_strategy(), batch_size=4, **options)
    return model, step(tf.constant(CLIPS), tf.constant(labels)).numpy()


def test_a_step_takes_the_mean_over_the_labelled_frames() -> None:
    keras.utils.set_random_seed(3)
    model = frames_model(3)
    network = keras.Model(model.inputs, model.get_layer("logits").output)
    known = LABELS >= 0
    with tf.GradientTape() as tape:
        logits = network(CLIPS, training=True)
        truth = tf.constant(LABELS[known])
        picked = tf.boolean_mask(logits, known)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, picked)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    stepped, sums = one_step(LABELS)
    assert sums[2] == known.sum() and sums[0] / sums[2] == pytest.approx(float(loss), rel=1e-5)
    pairs = zip(model.trainable_variables, gradients, stepped.trainable_variables, strict=True)
    for before, gradient, after in pairs:
        np.testing.assert_allclose(after, before - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_batch_without_any_label_changes_nothing(clip_norm) -> None:
    keras.utils.set_random_seed(3)
    before = [w.numpy() for w in frames_model(3).weights]
    model, sums = one_step(np.full((4, 8), -1, np.int32), clip_norm=clip_norm)
    np.testing.assert_array_equal(sums, [0, 0, 0, 0])
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


TWO_DEVICES = """
import numpy as np, sys
import keras, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from per_frame_model import frames_model
from kvideo.training.step import compile_step
clips, labels = np.load(sys.argv[1])["clips"], np.load(sys.argv[1])["labels"]
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
keras.utils.set_random_seed(3)
with strategy.scope():
    model = frames_model(3)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
step = compile_step(model, optimizer, strategy, batch_size=4)
dataset = tf.data.Dataset.from_tensor_slices((clips, labels)).batch(4)
for batch in strategy.experimental_distribute_dataset(dataset):
    sums = step(*batch)
np.savez(sys.argv[2], sums=sums.numpy(), **{str(i): w.numpy() for i, w in enumerate(model.weights)})
"""


@pytest.mark.slow
def test_two_devices_divide_by_the_frames_of_both(tmp_path: Path) -> None:
    """The devices have very different numbers of labelled frames; the mean is over all of them."""
    labels = LABELS.copy()
    labels[:2] = -1
    labels[0, 0] = 1
    np.savez(tmp_path / "in.npz", clips=CLIPS, labels=labels)
    command = [sys.executable, "-c", TWO_DEVICES, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(command, check=True, cwd=Path(__file__).parent, capture_output=True)
    model, sums = one_step(labels)
    found = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(found["sums"], sums, rtol=1e-5)
    for index, weight in enumerate(model.weights):
        np.testing.assert_allclose(found[str(index)], weight, atol=1e-6)


# -- whole videos ----------------------------------------------------------------------------------


def blinking(pattern: str, side: int = 16) -> np.ndarray:
    """A frame for each letter: d is dark, b is bright."""
    values = np.array([{"d": 30, "b": 225}[letter] for letter in pattern], np.uint8)
    return np.broadcast_to(values[:, None, None, None], (len(pattern), side, side, 3))


PATTERNS = {"one": "ddddddddbbbbbbbbbbdddddddddd", "two": "bbbbb", "three": "db" * 3 + "b" * 40}


@pytest.fixture(scope="module")
def lights(tmp_path_factory) -> Path:
    """Videos of PATTERNS, 10 frames a second, and labels.csv with a file of labels for each."""
    folder = tmp_path_factory.mktemp("lights")
    rows = ["path,labels"]
    for name, pattern in PATTERNS.items():
        write_video(folder / f"{name}.mp4", blinking(pattern))
        words = [{"d": "dark", "b": "bright"}[letter] for letter in pattern]
        (folder / f"{name}.txt").write_text("\n".join(words) + "\n")
        rows.append(f"{name}.mp4,{name}.txt")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(lights: Path) -> Path:
    path = lights / "brightness.keras"
    brightness = brightness_model()
    save_model(brightness, path)
    return path


def test_the_file_says_that_the_model_is_per_frame(model: Path) -> None:
    assert read_info(model).per_frame
    assert kvideo.load_model(model).kvideo_info.per_frame


def test_each_time_gets_the_mean_over_the_clips_that_see_it(lights: Path) -> None:
    keras.utils.set_random_seed(5)
    network = frames_model(2)
    reader = clip_reader(ClipSpec(8, 10.0, (16, 16), framing="stretch"))
    videos = read_data(lights / "labels.csv", per_frame=True)
    predictor = Predictor(network, 3)
    blocks = iterate_blocks(videos.records, reader, 2)
    results = list(score_frames(predictor, videos.records, blocks))
    assert [Path(r.path).stem for r in results] == list(PATTERNS)
    for result in results:
        count = len(PATTERNS[Path(result.path).stem])
        np.testing.assert_allclose(result.times, np.arange(count) / 10)
        starts = sorted({*range(0, max(1, count - 8), 4), max(0, count - 8)})
        sums, seen = np.zeros((count, 2)), np.zeros((count, 1))
        with kvideo.data.open_video(result.path) as video:
            for start in starts:
                times = np.minimum(np.arange(start, start + 8), count - 1) / 10
                clip = video.read(times, size=(16, 16))
                rows = np.asarray(network(clip[None]))[0][: count - start]
                sums[start : start + len(rows)] += rows
                seen[start : start + len(rows)] += 1
        np.testing.assert_allclose(result.probabilities, sums / seen, atol=1e-5)


def test_evaluation(lights: Path, model: Path) -> None:
    result = kvideo.evaluate(model, lights / "labels.csv", out=lights / "out", verbose=False)
    assert isinstance(result, SegmentationResult)
    assert result.metrics["frame_accuracy"] == 1.0 and result.metrics["edit"] == 100.0
    assert result.metrics["f1@50"] == 100.0 and result.metrics["num_videos"] == 3
    assert result.metrics["num_frames"] == sum(map(len, PATTERNS.values()))
    assert result.headline == "frame accuracy 1.000, edit 100.0, F1@25 100.0 (3 videos)"
    counts = np.zeros((2, 2), int)
    names = result.class_names
    for pattern in PATTERNS.values():
        for letter in pattern:
            label = names.index({"d": "dark", "b": "bright"}[letter])
            counts[label, label] += 1
    np.testing.assert_array_equal(result.confusion, counts)
    text = format_result(result, width=80)
    assert "Frame accuracy       1.000" in text and "Edit score           100.0" in text
    assert "frames" in text and f"{result.metrics['num_frames']}  (sampled)" in text
    document = json.loads((lights / "out" / "evaluation.json").read_text())
    assert document["metrics"]["f1@25"] == 100.0
    (one,) = [v for v in document["videos"] if v["path"].endswith("one.mp4")]
    assert one["truth"] == [[0.0, 0.8, "dark"], [0.8, 1.8, "bright"], [1.8, 2.8, "dark"]]
    assert [row[:3] for row in one["predicted"]] == one["truth"]
    page = (lights / "out" / "report.html").read_text()
    assert page.count("<svg") == 3 and "Over time" in page and "one label a frame" in page
    assert "dark, 0.00–0.80 s</title>" in page and "<script" not in page
    assert (lights / "out" / "confusion.png").exists()


def test_figures_agree_with_the_functions_and_failures_are_named(
    lights: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(
        f"path,start,end,label\n{lights}/one.mp4,0,1,dark\n{lights}/one.mp4,1,2.8,bright\n"
        f"{lights}/two.mp4,0,9,bright\n{tmp_path}/bad.mp4,0,1,dark\n"
    )
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    result = kvideo.evaluate(model, tmp_path / "list.csv", verbose=False)
    assert {reason: len(videos) for reason, videos in result.failures.items()} == {
        "labels": 1,
        "unreadable": 1,
    }
    assert result.metrics["num_failed"] == 2
    truth = np.repeat([0, 1], [10, 18])
    said = np.array(["db".index(letter) for letter in PATTERNS["one"]])
    for name, value in segmentation_metrics([(truth, said)]).items():
        assert result.metrics[name] == pytest.approx(value)
    assert result.worst_videos()[0][1]["frame_accuracy"] == result.metrics["frame_accuracy"]


def test_background_counts_as_a_class_but_not_as_a_segment() -> None:
    assert exclude_background(("run", "Background")) == (1,)
    assert exclude_background(("run", "swim")) == ()
    edges = np.arange(7) / 2
    parts = segments_of(np.array([0, 0, -1, 1, 1, 0]), edges)
    assert [(s.start, s.end, s.label) for s in parts] == [(0, 1, 0), (1.5, 2.5, 1), (2.5, 3, 0)]


def test_validation_is_the_evaluation(lights: Path, model: Path) -> None:
    network = kvideo.load_model(model)
    videos = read_data(lights / "labels.csv", per_frame=True, class_names=("dark", "bright"))
    validate = Validation(network, videos, clip_reader(network.kvideo_info.clip_spec), 2, 4, 2)
    figures = validate()
    assert set(figures) == {"val_loss", "val_accuracy", "val_edit", "val_f1@25"}
    assert figures["val_accuracy"] == 1.0 and figures["val_f1@25"] == 100.0
    assert 0 <= figures["val_loss"] < 0.1
    assert validate() == figures  # from the clips that were kept


def test_labels_of_classes_that_the_model_lacks(lights: Path, model: Path) -> None:
    (first, *_) = read_data(lights / "labels.csv", per_frame=True).records
    track = first.track.renumbered([0, 2])
    record = dataclasses.replace(first, track=track, labels=track.labels)
    with pytest.raises(DataError, match="has the label 2, beyond 2 classes"):
        kvideo.evaluate(model, VideoSet((record,), ("a", "b", "c")), verbose=False)


def test_speed_can_be_measured(tmp_path: Path) -> None:
    network = frames_model(2)
    network.kvideo_info = ModelInfo(ClipSpec(8, 10.0, (16, 16)), ("dark", "bright"))
    save_model(network, tmp_path / "m.keras")
    status, shown = command(
        "benchmark", "model", tmp_path / "m.keras", "--batch-size", "2", "--only", "training"
    )
    assert status == 0 and "training" in shown, shown


def test_model_and_data_must_be_of_one_kind(lights, model, tiny_videos, tmp_path) -> None:
    with pytest.raises(DataError, match="one label for each video, not one for each frame"):
        kvideo.evaluate(model, tiny_videos, verbose=False)
    whole = read_data(tiny_videos)
    with pytest.raises(DataError, match='"brightness" gives a label for each frame, but'):
        kvideo.evaluate(model, whole, verbose=False)
    video_model = frames_model(2, output="video")
    video_model.kvideo_info = ModelInfo(ClipSpec(8, 10.0, (16, 16)), ("dark", "bright"))
    videos = read_data(lights / "labels.csv", per_frame=True)
    with pytest.raises(DataError, match="has a label for each frame, but .* output=frames"):
        kvideo.evaluate(video_model, videos, verbose=False)
    with pytest.raises(UsageError, match="looks at the whole of every video"):
        kvideo.evaluate(model, videos, num_clips=2, verbose=False)


# -- prediction ------------------------------------------------------------------------------------


def command(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def test_prediction(lights: Path, model: Path) -> None:
    (found,) = kvideo.predict(model, lights / "one.mp4")
    assert found.timeline is not None and len(found.timeline.times) == 28
    parts = [(s.start, s.end, s.label) for s in found.timeline.segments()]
    np.testing.assert_allclose(parts, [(0, 0.8, 0), (0.8, 1.8, 1), (1.8, 2.8, 0)])
    assert found.label == "dark" and len(found.to_json()["segments"]) == 3
    with pytest.raises(UsageError, match=r"one every 0.1 s; leave out the step"):
        kvideo.predict(model, lights / "one.mp4", timeline=0.5)
    with pytest.raises(UsageError, match="leave out the numbers of views"):
        kvideo.predict(model, lights / "one.mp4", num_clips=3)
    (failed,) = kvideo.predict(model, lights / "labels.csv")
    assert failed.error and failed.timeline is None


def test_a_video_of_one_frame(model: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "one_frame.mp4", blinking("b"))
    (tmp_path / "list.csv").write_text("path,start,end,label\none_frame.mp4,0,0.1,bright\n")
    (found,) = kvideo.predict(model, tmp_path / "one_frame.mp4")
    assert found.label == "bright" and found.timeline.probabilities.shape == (1, 2)
    result = kvideo.evaluate(model, tmp_path / "list.csv", verbose=False)
    assert result.metrics["frame_accuracy"] == 1.0 and result.metrics["num_frames"] == 1


def test_timeline_files(lights: Path, model: Path, tmp_path: Path) -> None:
    one, two = lights / "one.mp4", lights / "two.mp4"
    status, shown = command("predict", model, one, two, "--timeline", tmp_path / "t.csv")
    assert status == 0 and "0.80       1.80  bright" in shown
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], row["end"], row["label"]) for row in rows] == [
        ("0.000", "0.800", "dark"),
        ("0.800", "1.800", "bright"),
        ("1.800", "2.800", "dark"),
        ("0.000", "0.500", "bright"),
    ]
    assert all(0.9 < float(row["probability"]) <= 1 for row in rows)
    # What was predicted is an annotation again.
    again = kvideo.evaluate(model, tmp_path / "t.csv", verbose=False)
    assert again.metrics["frame_accuracy"] == 1.0
    status, _ = command(
        "predict",
        model,
        one,
        two,
        "--timeline",
        tmp_path / "t.json",
        "--truth",
        lights / "labels.csv",
    )
    documents = json.loads((tmp_path / "t.json").read_text())
    assert status == 0 and [Path(d["path"]).name for d in documents] == ["one.mp4", "two.mp4"]
    assert documents[0]["truth"] == [row[:3] for row in documents[0]["segments"]]
    status, _ = command(
        "predict", model, one, f"--timeline={tmp_path}/t.PNG", "--truth", lights / "labels.csv"
    )
    picture = (tmp_path / "t.PNG").read_bytes()
    assert status == 0 and picture.startswith(b"\x89PNG")


def test_pictures_have_a_strip_of_the_truth_where_it_is_known(model, lights, tmp_path) -> None:
    import cv2

    heights, colours = [], []
    for extra in ([], ["--truth", lights / "labels.csv"]):
        command("predict", model, lights / "one.mp4", "--timeline", tmp_path / "t.png", *extra)
        picture = cv2.imread(str(tmp_path / "t.png"))
        heights.append(picture.shape[0])
        colours.append(len(np.unique(picture.reshape(-1, 3), axis=0)))
    assert heights[1] > heights[0] > 300 and min(colours) > 5


def test_what_the_truth_does_not_say_is_told(model, lights, tmp_path) -> None:
    truth, target = lights / "truth.csv", tmp_path / "t.json"
    truth.write_text("path,start,end,label\none.mp4,0,0.8,dark\n")
    for given in ([lights / "one.mp4", lights / "two.mp4"], [lights]):
        status, shown = command("predict", model, *given, "--timeline", target, "--truth", truth)
        assert status == 0 and f"truth.csv does not say what is true of {lights}/two.mp4" in shown
        assert f"true of {lights}/one" not in shown
        documents = {Path(d["path"]).name: d for d in json.loads(target.read_text())}
        assert "truth" in documents["one.mp4"] and "truth" not in documents["two.mp4"]
    truth.write_text("path,start,end,label\none.mp4,0,0.8,dark\ntwo.mp4,0,0.5,shaking\n")
    given = ("predict", model, lights / "one.mp4", "--timeline", target, "--truth", truth)
    status, shown = command(*given)
    assert status == 1 and "Error: the classes of the truth are not the model's" in shown
    assert "truth.csv has 'shaking', the model has dark and bright." in shown


def test_models_of_whole_videos_write_timelines_too(tiny_videos, tmp_path) -> None:
    network = frames_model(2, output="video")
    network.kvideo_info = ModelInfo(ClipSpec(8, 10.0, (16, 16)), ("left", "right"))
    save_model(network, tmp_path / "m.keras")
    assert not read_info(tmp_path / "m.keras").per_frame
    video = tiny_videos / "left" / "0.mp4"
    status, _ = command(
        "predict", tmp_path / "m.keras", video, "--timeline", tmp_path / "t.csv", "--step", "0.1"
    )
    with open(tmp_path / "t.csv") as file:
        rows = list(csv.DictReader(file))
    assert status == 0 and float(rows[0]["start"]) == 0
    assert float(rows[-1]["end"]) == pytest.approx(1.2)
    for before, after in zip(rows, rows[1:], strict=False):
        assert before["end"] == after["start"]
    # The word alone still shows one line a step, wherever it stands.
    for arguments in ([video, "--timeline"], ["--timeline", video]):
        status, shown = command("predict", tmp_path / "m.keras", *arguments, "--step", "0.1")
        assert status == 0 and "seconds" in shown and shown.count("█") > 4


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--timeline=t.svg"], "written as .csv, .json, .png, not as t.svg"),
        (["--timeline", "t.txt"], "written as .csv, .json, .png, not as t.txt"),
        (["--timeline", "nowhere/t.csv"], "there is no folder nowhere"),
        (["{}/two.mp4", "--timeline", "t.png"], "picture of one video, but 2 files came"),
        (["--truth", "{}/labels.csv"], "give --timeline FILE as well"),
        (["--timeline", "t.csv", "--truth", "{}/none.csv"], "there is no file or folder"),
    ],
)
def test_what_cannot_be_written_is_told_first(lights, model, extra, message) -> None:
    given = [text.format(lights) for text in extra]
    status, shown = command("predict", model, lights / "one.mp4", *given)
    assert status in (1, 2) and message in shown and "predicting" not in shown


# -- from end to end -------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(offer(tmp_path / "site")))
    yield
    sys.modules.pop("frames_plugin", None)


@pytest.mark.slow
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_run_learns_what_each_frame_shows(lights, plugin, tmp_path, class_weights) -> None:
    settings = {
        "model_options": {"output": "frames"},
        "val": str(lights / "labels.csv"),
        "frame_rate": 10.0,
        "epochs": 12,
        "batch_size": 3,
        "learning_rate": 0.05,
        "jitter": 0.0,
        "label_smoothing": 0.05,
        "class_weights": class_weights,
        "precision": "float32",
        "verbose": False,
    }
    data = str(lights / "labels.csv")
    result = kvideo.fit(data, "tiny_frames", out=str(tmp_path / "run"), **settings)
    assert {"val_loss", "val_accuracy", "val_edit", "val_f1@25"} <= set(result.best)
    assert result.best["val_accuracy"] > 0.9
    tested = kvideo.evaluate(tmp_path / "run", data, verbose=False)
    assert tested.metrics["frame_accuracy"] == pytest.approx(result.best["val_accuracy"])
    assert tested.metrics["edit"] == pytest.approx(result.best["val_edit"])
    # Its file says that it is per frame: going on needs no option.
    go_on = {**settings, "epochs": 1, "model_options": {}, "learning_rate": 1e-6}
    again = kvideo.fit(data, weights=str(result.model_path), out=str(tmp_path / "more"), **go_on)
    assert again.best["val_accuracy"] > 0.9
    kvideo.fit(resume=tmp_path / "run", verbose=False)


def test_fit_refuses_what_does_not_fit(lights, plugin, tiny_videos, tmp_path) -> None:
    out = str(tmp_path / "run")
    with pytest.raises(DataError, match="one label for each video, not one for each frame"):
        kvideo.fit(
            str(tiny_videos), "tiny_frames", model_options={"output": "frames"}, out=out,
            verbose=False,
        )  # fmt: skip
    # One label for two frames.
    with pytest.raises(UsageError, match="gives 4 labels for clips of 8 frames"):
        kvideo.fit(
            str(lights / "labels.csv"), "halving_frames", model_options={"output": "frames"},
            out=out, verbose=False,
        )  # fmt: skip
    # A model that is per frame or not, whatever it is told.
    with pytest.raises(DataError, match='has a label for each frame, but "tiny_frames" gives one'):
        kvideo.fit(
            str(lights / "labels.csv"), "stubborn_frames", model_options={"output": "frames"},
            out=out, verbose=False,
        )  # fmt: skip
    # A model that has no such option.
    with pytest.raises(UsageError, match="output"):
        kvideo.fit(
            str(lights / "labels.csv"), "slow_fusion", model_options={"output": "frames"}, out=out,
            verbose=False,
        )  # fmt: skip
