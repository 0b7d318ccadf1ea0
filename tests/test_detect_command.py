"""`kvideo detect` from boxes to tubes: squares that wander and change from red to blue."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_video

import kvideo
from kvideo import detection
from kvideo.cli import cli
from kvideo.data.actors import read_actors
from kvideo.errors import DataError, KVideoError, UnknownNameError, UsageError
from kvideo.training.experiment import Experiment, absolute

COLOURS = {"blue": (40, 60, 220), "red": (220, 50, 40)}
RATE, SECONDS, SIZE = 10, 4, (48, 64)
HEADER = ["video", "time", "x1", "y1", "x2", "y2", "label", "person"]
TRAINING, VALIDATION = 14, 4
SETTINGS = {
    "num_frames": 2, "frame_rate": 10.0, "size": (48, 64), "batch_size": 8, "jitter": 0.0,
    "precision": "float32", "tensorboard": "none", "min_area": 0.9,
    "model_options": {"widths": (8, 16)},
}  # fmt: skip


def film(path: Path, seed: int) -> list[list]:
    """A video with one or two squares; gives its rows, twice a second."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(80, 160, (SECONDS * RATE, *SIZE, 3)).astype(np.uint8)
    rows = []
    for person in range(rng.integers(1, 3)):
        side, left = int(rng.integers(14, 22)), 2 + 32 * person
        top, step = int(rng.integers(0, 20)), int(rng.integers(0, 2))
        names = list(rng.permutation(list(COLOURS)))
        change = int(rng.integers(12, 28))
        for number, frame in enumerate(frames):
            x, y = left + min(8, step * number // 4), top
            name = names[number >= change]
            frame[y : y + side, x : x + side] = COLOURS[name]
            if number and number % 5 == 0 and abs(number - change) > 2:
                corners = [x / SIZE[1], y / SIZE[0], (x + side) / SIZE[1], (y + side) / SIZE[0]]
                rows.append([path.stem, number / RATE, *corners, name, person])
    write_video(path, frames, RATE)
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("boxes")
    parts = {"train": range(TRAINING), "val": range(TRAINING, TRAINING + VALIDATION)}
    for part, numbers in parts.items():
        rows = [row for n in numbers for row in film(top / "videos" / f"v{n}.mp4", n)]
        with open(top / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
    return top


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    detection.fit(data, "single_frame", out=out, epochs=14, learning_rate=5e-3, **SETTINGS)
    return out


def invoke(*arguments) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["detect", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        return 1, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
def test_it_learns_what_was_planted(run: Path, data: Path) -> None:
    result = detection.evaluate(run, data, verbose=False)
    assert result.metrics["frame_map@0.5"] > 0.8 and result.metrics["actor_ap@0.5"] > 0.9
    assert result.metrics["video_map@0.2"] > 0.5
    with_truth = detection.evaluate(run, data, boxes="truth", verbose=False)
    assert with_truth.metrics["actor_ap@0.5"] == 1
    assert with_truth.metrics["frame_map@0.5"] > 0.9
    document = json.loads((run / "experiment.json").read_text())
    assert document["detector"] == {} and document["data"] == str(data)
    with open(run / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert {"val_mAP", "val_actor_AP"} <= set(rows[0])


@pytest.mark.slow
def test_evaluate_writes_what_ava_reads(run: Path, data: Path, tmp_path: Path) -> None:
    code, said, errors = invoke("evaluate", run, data, "-o", tmp_path)
    assert code == 0 and "frame-mAP" in said and "red" in said
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    again = invoke("evaluate", tmp_path / "results.csv", data / "val.csv", "--json")
    assert again[0] == 0
    found = json.loads(again[1])["metrics"]["frame_map@0.5"]
    assert found == pytest.approx(figures["metrics"]["frame_map@0.5"], abs=2e-3)
    # Names may have folders and endings; results of other videos are no results.
    text = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(text.replace("v1", "some/v1").replace(",", ".mp4,", 1))
    (tmp_path / "renamed.csv").write_text(text.replace("v1", "w1"))
    assert invoke("evaluate", tmp_path / "results.csv", data / "val.csv")[0] == 0
    code, _, errors = invoke("evaluate", tmp_path / "renamed.csv", data / "val.csv")
    assert code == 1 and "none of its" in errors
    rows = list(csv.reader(open(tmp_path / "results.csv")))
    assert {len(row) for row in rows} == {8} and {row[6] for row in rows} == {"1", "2"}


@pytest.mark.slow
def test_predict_gives_tubes_and_a_video(run: Path, data: Path, tmp_path: Path) -> None:
    video = data / "videos" / f"v{TRAINING}.mp4"
    code, said, errors = invoke(
        "predict",
        run,
        video,
        "--out-dir",
        tmp_path / "out",
        "--step",
        "0.25",
        "--actor-threshold",
        "0.5",
        "--json",
    )
    assert code == 0, errors
    document = json.loads(said)
    assert document == json.loads((tmp_path / "out" / "tubes.json").read_text())
    (found,) = document["videos"]
    truth = read_actors(data / "val.csv")
    known = {k[1]: actors for k, actors in truth.frames.items() if k[0] == video.stem}
    assert len(found["tubes"]) == max(len(actors) for actors in known.values())
    for tube in found["tubes"]:
        spans = tube["actions"]
        assert {span["label"] for span in spans} == {"red", "blue"}  # each changes its colour once
        assert tube["times"][0] <= 0.5 and tube["times"][-1] >= SECONDS - 0.75
        actors = [a for a in known[1.0] if abs(a.box[0] - tube["boxes"][4][0]) < 0.15]
        name = truth.class_names[actors[0].labels[0]]
        assert any(s["label"] == name and s["start"] <= 1 < s["end"] for s in spans)
    with av.open(str(tmp_path / "out" / f"{video.stem}.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == SECONDS * RATE and min(frames[0].shape[:2]) >= 360


@pytest.mark.slow
def test_boxes_from_a_file_are_taken_as_they_are(run: Path, data: Path, tmp_path: Path) -> None:
    video = data / "videos" / f"v{TRAINING}.mp4"
    lines = [f"{video.stem},{t},0.1,0.2,0.5,0.6,,0.9\n" for t in (1, 1.5, 2)]
    (tmp_path / "boxes.csv").write_text("".join(lines))
    (seen,) = detection.predict(run, video, boxes=tmp_path / "boxes.csv")
    assert [moment.time for moment in seen.moments] == [1, 1.5, 2]
    for moment in seen.moments:
        np.testing.assert_allclose(moment.boxes, [[0.1, 0.2, 0.5, 0.6]])
        assert moment.scores.tolist() == [0.9] and moment.actions.shape == (1, 2)
    # By the end of the path, too; what is beyond the end is passed over, if there is something.
    (tmp_path / "boxes.csv").write_text(f"videos/{video.name},1,0.1,0.2,0.5,0.6\n" * 2)
    (seen,) = detection.predict(run, video, boxes=tmp_path / "boxes.csv")
    assert [moment.time for moment in seen.moments] == [1]
    for row, words in (
        (f"{video.stem},99,0.1,0.2,0.5,0.6,,0.9", "is at 99 s, but it lasts 4.00 s"),
        ("other,1,0.1,0.2,0.5,0.6,,0.9", "has no box of this video"),
        (f"{video.stem},1,10,20,50,60,,0.9", "corners must be fractions"),
        (f"{video.stem},1,0.1,0.2,0.5,0.6,,1.9", "must be from 0 to 1, not 1.9"),
    ):
        (tmp_path / "boxes.csv").write_text(row + "\n")
        code, _, errors = invoke("predict", run, video, "--boxes", tmp_path / "boxes.csv")
        assert code == 1 and words in errors, errors
    code, _, errors = invoke(
        "predict", run, video, "--boxes", tmp_path / "boxes.csv", "-o", tmp_path / "boxes.csv"
    )
    assert "is read, too" in errors
    with pytest.raises(UsageError, match="not from both"):
        detection.predict(run, video, boxes=tmp_path / "boxes.csv", person_detector="x")


@pytest.mark.slow
def test_no_person_head_and_resuming(data: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "person_head": False, "scene_attention": True, "context": True}
    detection.fit(data, "single_frame", out=tmp_path / "run", epochs=1, **settings)
    with pytest.raises(UsageError, match="no person head"):
        detection.evaluate(tmp_path / "run", data, verbose=False)
    result = detection.evaluate(tmp_path / "run", data, boxes="truth", verbose=False)
    assert np.isfinite(result.metrics["frame_map@0.5"])
    # What `kvideo fit --resume` does for every run.
    document = json.loads((tmp_path / "run" / "experiment.json").read_text())
    (tmp_path / "run" / "experiment.json").write_text(json.dumps({**document, "epochs": 2}))
    code, _, errors = invoke("fit", "--resume", tmp_path / "run")
    assert code == 0, errors
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_detector_learns_on(run: Path, data: Path, tmp_path: Path) -> None:
    """From its weights, on other classes: all but the last layer is taken over."""
    text = (data / "train.csv").read_text().replace("blue", "cold").replace("red", "warm")
    (tmp_path / "other.csv").write_text(text + "v0,0.5,0.1,0.1,0.4,0.4,third,9\n")
    (tmp_path / "two.csv").write_text(text)
    code, _, errors = invoke(
        "fit", tmp_path / "other.csv", "--root", data / "videos", "--weights", run / "model.keras",
        "--out", tmp_path / "run", "--epochs", "1", "--lr", "1e-6", "--val-fraction", "0",
        "-b", "8", "--precision", "float32",
    )  # fmt: skip
    assert code == 0 and "weights copied; fresh: " in errors, errors
    info = kvideo.model_info(tmp_path / "run")
    assert info.class_names == ("cold", "third", "warm")
    assert info.clip_spec == kvideo.model_info(run).clip_spec
    code, _, errors = invoke(
        "fit", tmp_path / "two.csv", "--root", data / "videos", "--weights", run / "model.keras",
        "--out", tmp_path / "two", "--epochs", "1", "--val-fraction", "0", "-b", "8",
    )  # fmt: skip
    assert code == 0 and "logits" in errors.partition("fresh: ")[2], errors
    old, new = (kvideo.load_model(path) for path in (run, tmp_path / "run"))
    for name in ("sides", "person_conv1"):
        for a, b in zip(*(m.get_layer(name).get_weights() for m in (old, new)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
    code, _, errors = invoke("evaluate", run, tmp_path / "other.csv", "--root", data / "videos")
    assert code == 1 and "none of its labels" in errors


@pytest.mark.slow
def test_a_classifier_becomes_a_detector(data: Path, run: Path, tmp_path: Path) -> None:
    """`--weights` of any run; and a detector is refused where a classifier is needed."""
    code, _, errors = invoke("predict", _classifier(data, tmp_path), data / "videos" / "v0.mp4")
    assert code == 2 and "is a classifier" in errors
    detection.fit(
        data, None, weights=str(tmp_path / "run" / "model.keras"), out=tmp_path / "made", epochs=1,
        **{**SETTINGS, "model_options": {}, "num_frames": None, "size": None, "frame_rate": None},
    )  # fmt: skip
    assert kvideo.model_info(tmp_path / "made").detector == {}
    for call in (
        lambda: list(kvideo.predict(run, data / "videos" / "v0.mp4")),
        lambda: kvideo.features(run, data / "videos"),
        lambda: kvideo.export(run, tmp_path / "exported"),
    ):
        with pytest.raises(UsageError, match="actor detector"):
            call()


@pytest.mark.slow
def test_pictures_of_different_shapes_in_one_batch(run: Path, data: Path, tmp_path: Path) -> None:
    """A film beside itself with grey at its right: boxes come back to where they belong."""
    (tmp_path / "videos").mkdir()
    rows, wide = [HEADER], []
    for number in (TRAINING, TRAINING + 1):
        shutil.copy(data / "videos" / f"v{number}.mp4", tmp_path / "videos")
        with av.open(str(data / "videos" / f"v{number}.mp4")) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        grey = np.pad(frames, ((0, 0), (0, 0), (0, 64), (0, 0)), constant_values=128)
        write_video(tmp_path / "videos" / f"w{number}.mp4", grey, RATE)
        for row in csv.reader(open(data / "val.csv")):
            if row[0] == f"v{number}":
                rows.append(row)
                halved = [str(float(row[2]) / 2), row[3], str(float(row[4]) / 2), row[5]]
                wide.append([f"w{number}", row[1], *halved, *row[6:]])
    with open(tmp_path / "both.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows + wide)
    detection.fit(
        tmp_path / "both.csv", None, weights=str(run / "model.keras"), out=tmp_path / "run",
        epochs=12, val_fraction=0.0, learning_rate=2e-3, excluded=None,
        **{**SETTINGS, "model_options": {}},
    )  # fmt: skip
    found = detection.predict(
        tmp_path / "run", [tmp_path / "videos" / f"{n}{TRAINING}.mp4" for n in "vw"], step=0.5
    )
    narrow, broad = (video.moments[3] for video in found)
    best, other = (m.boxes[np.argmax(m.scores)] for m in (narrow, broad))
    assert best[2] <= 1 and other[2] <= 0.55  # nobody in the grey part
    result = detection.evaluate(tmp_path / "run", tmp_path / "both.csv", verbose=False)
    assert result.metrics["actor_ap@0.5"] > 0.6


def test_a_run_can_go_on_from_any_folder(data: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "names.txt").write_text("blue\nred\n")
    monkeypatch.chdir(tmp_path)
    settings = {"classes": "names.txt", "person_head": False}
    experiment = Experiment(str(data), "single_frame", detector=settings)
    whole = absolute(experiment, tmp_path / "run").detector
    assert whole == {"classes": str(tmp_path / "names.txt"), "person_head": False}


def _classifier(data: Path, tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(2):
            source = data / "videos" / f"v{2 * number + i}.mp4"
            shutil.copy(source, tmp_path / "clips" / name / f"{i}.mp4")
    settings = {k: v for k, v in SETTINGS.items() if k != "min_area"}
    kvideo.fit(
        str(tmp_path / "clips"), model="single_frame", out=str(tmp_path / "run"), epochs=1,
        val_fraction=0.0, verbose=False, **settings,
    )  # fmt: skip
    return tmp_path / "run"


def test_the_official_figure(shared: Path, tmp_path: Path) -> None:
    top = shared / "oracles" / "eval"
    expected = json.loads((top / "expected.json").read_text())["ava"]
    code, said, errors = invoke(
        "evaluate", top / "ava" / "pred.csv", top / "ava" / "gt.csv", "--classes",
        top / "ava" / "action_list.txt", "--json",
    )  # fmt: skip
    assert code == 0, errors
    found = json.loads(said)["metrics"]["frame_map@0.5"]
    assert found == pytest.approx(expected["mAP"], abs=1e-9)


def test_moments_with_nobody_alone_are_nothing_to_train_on(data: Path, tmp_path: Path) -> None:
    rows = "v0,1,,,,,,\nv1,1,,,,,,\nv2,1,0,0,1,1,red,0\n"
    (tmp_path / "few.csv").write_text(f"{','.join(HEADER)}\n{rows}")
    with pytest.raises(DataError, match="no box to train on in 2 moments"):  # v2 is held out
        detection.fit(
            tmp_path / "few.csv", "single_frame", root=data / "videos", out=tmp_path / "run",
            val_fraction=0.3, seed=0, **SETTINGS,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit"], 2, "name the DATA"),
        (["fit", "nothing.csv", "-m", "slow_fusion"], 1, "there is no file"),
        (["fit", "{data}", "-m", "slow_fuson"], 2, "Did you mean"),
        (["fit", "{data}", "-m", "slow_fusion", "--mixup", "0.2"], 2, "for classifiers"),
        (["fit", "{data}", "-m", "slow_fusion", "--split", "other"], 1, "no part 'other'"),
        (["evaluate", "{data}/none.keras", "{data}"], 1, "no model file"),
        (["predict", "{data}/none.keras", "{data}/videos/v0.mp4", "-o", "x.png"], 2, ".csv or"),
        (["fit", "{data}/train.csv", "-m", "slow_fusion", "--split", "val"], 1, "has no part"),
        (["predict", "{data}/none.keras", "{data}/videos/v0.mp4", "--gap", "-1"], 2, "gap must"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(data: Path, arguments, code, message) -> None:
    found = invoke(*(str(argument).format(data=data) for argument in arguments))
    assert message in found[2], found
    assert found[0] == code or found[0] == 1


@pytest.mark.slow
def test_moments_beyond_the_end_and_files_that_are_none(
    run: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    code, said, errors = invoke(
        "predict", run, tmp_path / "bad.mp4", data / "videos" / "v0.mp4", "-o", tmp_path / "o.csv"
    )
    assert code == 1 and "bad.mp4" in errors and (tmp_path / "o.csv").exists()
    shutil.copy(data / "videos" / "v0.mp4", tmp_path / "v0.mp4")
    rows = [HEADER, ["v0", 99, 0.1, 0.1, 0.5, 0.5, "red", 0]]
    with open(tmp_path / "late.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError, match="99 s is asked for"):
        detection.evaluate(run, tmp_path / "late.csv", verbose=False)


MIRRORED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices = int(sys.argv[1])
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import kvideo.hardware
if devices > 1:
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    kvideo.hardware.choose_strategy = lambda name: both
from kvideo import detection
from kvideo.detection import step
# Which of the boxes the person head finds at first, all alike, is a matter of the last bit.
step._proposals = lambda found: tf.zeros((tf.shape(found["sides"])[0], 1, 4))
detection.fit(sys.argv[2], "single_frame", out=sys.argv[3], epochs=1, val_fraction=0.0,
              split="train", optimizer="sgd", learning_rate=0.01, dropout=0.0, **SETTINGS)
"""


@pytest.mark.slow
def test_two_devices_give_the_weights_of_one(data: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "model_options": {"widths": (4, 6)}, "batch_size": 48}
    for devices in (1, 2):
        code = f"SETTINGS = {settings!r}\n{MIRRORED}"
        arguments = [str(devices), str(data), str(tmp_path / str(devices))]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    one, two = ([w.numpy() for w in kvideo.load_model(tmp_path / str(n)).weights] for n in (1, 2))
    assert len(one) > 12
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def person_detector(pictures: np.ndarray) -> list:
    """Finds what is red or blue, whatever it is."""
    found = []
    for picture in pictures.astype(int):
        colour = picture[..., [0, 2]].max(axis=-1) - picture[..., 1]
        rows, columns = np.nonzero(colour > 100)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found.append((np.array([box]) / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]], np.array([0.8])))
    return found


def wrong_detector(pictures: np.ndarray) -> list:
    return [(np.zeros((2, 4)), np.ones(1)) for _ in pictures]


def pixel_detector(pictures: np.ndarray) -> list:
    return [([[10, 10, 30, 40]], [0.5]) for _ in pictures]


def broken_detector(pictures: np.ndarray) -> list:
    raise RuntimeError("no weights")


@pytest.mark.slow
def test_a_persons_detector_of_a_plugin(run: Path, data: Path, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "site" / "finder-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: finder\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[kvideo.person_detectors]\ncolours = test_detect_command:person_detector\n"
        "wrong = test_detect_command:wrong_detector\n"
        "pixels = test_detect_command:pixel_detector\n"
        "broken = test_detect_command:broken_detector\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    video = data / "videos" / "v0.mp4"
    (seen,) = detection.predict(run, video, person_detector="colours", step=1.0)
    truth = {
        k[1]: actors for k, actors in read_actors(data / "train.csv").frames.items() if k[0] == "v0"
    }
    for moment in [moment for moment in seen.moments if moment.time in truth]:
        actors = np.array([actor.box for actor in truth[moment.time]])
        hull = [*actors[:, :2].min(axis=0), *actors[:, 2:].max(axis=0)]
        np.testing.assert_allclose(moment.boxes[0], hull, atol=0.06)
        assert moment.scores.tolist() == [0.8]
    for name, words in (
        ("wrong", "must give a list with a pair .*: 2 boxes came with 1 scores"),
        ("pixels", "corners are fractions"),
        ("broken", '"broken" failed: RuntimeError: no weights'),
    ):
        with pytest.raises(KVideoError, match=words):
            list(detection.predict(run, video, person_detector=name))
    listed = CliRunner().invoke(cli, ["models", "--person-detectors"])
    assert "colours  test_detect_command:person_detector  (finder 1.0)" in listed.stdout
    with pytest.raises(UnknownNameError, match='Did you mean "colours"'):
        detection.predict(run, video, person_detector="colour")
