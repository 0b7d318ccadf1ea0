"""`kvideo localize` from videos to segments: films whose actions are a red and a blue part.

The classifier that features come from only averages colours, as a stranger's model might: no more
is asked of it than a layer called `features`.
"""

import csv
import gzip
import json
import os
import re
import shutil
import sys
from pathlib import Path

import av
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_video
from per_frame_model import frames_model, offer

import kvideo
from kvideo import localization
from kvideo.cli import cli
from kvideo.saving import ModelInfo, save_model

COLOURS = {"blue": (40, 60, 200), "red": (200, 50, 40)}
RATE, SECONDS = 10, 14
TRAINING, VALIDATION = 9, 3


def film(path: Path, seed: int, size: tuple[int, int] = (31, 46)) -> list[tuple]:
    """Grey noise; a red and a blue part, 2 to 3.5 s long. Gives (start, end, label)."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(90, 150, (SECONDS * RATE, *size, 3)).astype(np.uint8)
    segments, first = [], 0
    for label in rng.permutation(list(COLOURS)):
        start = first + rng.integers(12, 25)
        end = start + rng.integers(20, 36)
        frames[start:end] = np.clip(np.array(COLOURS[label]) + rng.integers(-20, 20, 3), 0, 255)
        segments.append((start / RATE, end / RATE, str(label)))
        first = end
    write_video(path, frames[:, : size[0] // 2 * 2, : size[1] // 2 * 2], RATE)
    return segments


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("untrimmed")
    database = {}
    for number in range(TRAINING + VALIDATION):
        segments = film(top / "videos" / f"v{number}.mp4", number)
        database[f"v{number}"] = {
            "duration": float(SECONDS),
            "subset": "training" if number < TRAINING else "validation",
            "annotations": [{"segment": [a, b], "label": label} for a, b, label in segments],
        }
    (top / "annotations.json").write_text(json.dumps({"version": "1", "database": database}))
    return top


def classifier(path: Path, gain: float = 1.0) -> Path:
    clip = keras.Input((3, 16, 16, 3), name="clip")
    x = keras.layers.Rescaling(gain / 127.5, -1)(clip)
    x = keras.layers.Conv3D(6, 1, activation="relu", name="feature_map")(x)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    model = keras.Model(clip, keras.layers.Dense(2, name="logits")(x), name="colours")
    keras.utils.set_random_seed(3)
    model.get_layer("feature_map").set_weights(
        [np.random.default_rng(0).normal(size=(1, 1, 1, 3, 6)), np.full(6, 0.3)]
    )
    save_model(model, path, ModelInfo(kvideo.ClipSpec(3, 10.0, (16, 16)), ("yes", "no")))
    return path


def run(*arguments: object, status: int = 0):
    result = CliRunner().invoke(cli, ["localize", *map(str, arguments)])
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def localizer(data: Path, tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("localizer")
    models = [classifier(top / "one.keras"), classifier(top / "two.keras", 0.5)]
    said = run(
        "fit", data, "-m", models[0], "-m", models[1], "-o", top / "run", "-e", 45,
        "--filters", 48, "--dropout", 0.1, "--json",
    )  # fmt: skip
    document = json.loads(said.stdout)
    assert document["class_names"] == ["blue", "red"]
    assert 0.2 <= document["stride"] <= 0.3  # an eighth of two seconds
    assert set(document["history"]) == {"rgb", "rgb2"} and len(document["history"]["rgb"]) == 45
    assert all(1.5 < scale < 4 for scale in document["anchors"])
    for model in models:
        model.unlink()  # the localizer needs nothing else
    return top / "run"


def test_the_folder(localizer: Path) -> None:
    names = {path.name for path in localizer.iterdir()}
    assert names >= {"localizer.json", "rgb.keras", "rgb-tal_net.keras", "rgb2.keras", "features"}
    rows = list(csv.DictReader(open(localizer / "history.csv", encoding="utf-8")))
    assert len(rows) == 90 and {row["stream"] for row in rows} == {"rgb", "rgb2"}
    array = np.load(localizer / "features" / "rgb" / "v0.npy")
    assert array.shape[1] == 6 and array.dtype == np.float32


def test_evaluate(data: Path, localizer: Path, tmp_path: Path) -> None:
    """Nearly all segments of videos that it has not seen; and the files that come of it."""
    said = run(
        "evaluate", localizer, data, "--tiou", "0.3,0.5", "-o", tmp_path / "out",
        "--pictures", tmp_path / "pictures", "--json",
    )  # fmt: skip
    document = json.loads(said.stdout)
    assert document["num_videos"] == VALIDATION and document["num_segments"] == 2 * VALIDATION
    assert document["metrics"]["map@0.50"] > 0.8
    assert [row["class"] for row in document["classes"]] == ["blue", "red"]
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["metrics"] == document["metrics"]
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["v10.png", "v11.png", "v9.png"]
    # The results that were written are judged the same, by themselves.
    results = tmp_path / "out" / "results.json"
    again = run("evaluate", results, data / "annotations.json", "--tiou", "0.3,0.5", "--json")
    for name, value in json.loads(again.stdout)["metrics"].items():
        assert value == pytest.approx(document["metrics"][name], abs=1e-6)
    table = run("evaluate", localizer, data, "--stream", "rgb2", "--suppression", "soft-nms").stdout
    assert table.startswith("mAP@0.5 ") and "AR@10" in table


def test_predict_writes_everything(data: Path, localizer: Path, tmp_path: Path) -> None:
    video = data / "videos" / "v10.mp4"
    names = [tmp_path / f"a.{ending}" for ending in ("json", "csv", "srt", "png")]
    outputs = [word for name in names for word in ("-o", name)]
    said = run(
        "predict", localizer, video, *outputs, "--video", tmp_path / "a.mp4",
        "--truth", data / "annotations.json",
    )  # fmt: skip
    assert "red" in said.stdout and "blue" in said.stdout
    results = json.loads(names[0].read_text())["results"]["v10"]
    assert results == sorted(results, key=lambda row: -row["score"])
    rows = list(csv.DictReader(open(names[1], encoding="utf-8")))
    assert [float(row["score"]) for row in rows] == [row["score"] for row in results]
    assert rows[0]["video"] == str(video)
    cues = re.findall(
        r"(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n((?:.+\n)+)",
        names[2].read_text(),
    )
    assert [int(cue[0]) for cue in cues] == list(range(1, len(cues) + 1)) and len(cues) >= 2
    assert all(start < end for _, start, end, _ in cues)
    assert names[3].read_bytes().startswith(b"\x89PNG")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264"
    assert len(frames) == SECONDS * RATE and min(frames[0].shape[:2]) >= 240
    truth = json.loads((data / "annotations.json").read_text())["database"]["v10"]["annotations"]
    start, end = truth[0]["segment"]
    inside = frames[round((start + end) / 2 * RATE)]
    corner = inside[:16, :60].astype(float)
    assert corner.max() > 230 and corner.std() > 40  # white letters on dark
    assert np.abs(inside[-3:].astype(float).mean(axis=(0, 2))).min() < 80  # the bar of time


def test_predict_goes_on_after_a_broken_file(data: Path, localizer: Path, tmp_path: Path) -> None:
    """And takes a film of three frames, and a whole folder."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"not a film")
    (videos / "b.mp4").symlink_to(data / "videos" / "v9.mp4")
    write_video(videos / "c.mp4", np.full((3, 32, 32, 3), 120, np.uint8))
    said = run("predict", localizer, videos, "--out-dir", tmp_path / "out", "--json", status=1)
    documents = json.loads(said.stdout)
    assert "error" in documents[0] and documents[1]["segments"]
    assert documents[2]["duration"] == pytest.approx(0.3, abs=0.1)
    assert "1 of 3 files could not be read" in said.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "b.png", "b.srt", "c.png", "c.srt", "results.csv", "results.json",
    ]  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert set(results) == {"b", "c"}


def test_the_same_with_features_kept_and_passing(data: Path, localizer: Path) -> None:
    """`evaluate` keeps features, `predict` lets them pass: the segments are the same."""
    kept = localization.evaluate(localizer, data, verbose=False).localizations
    passing = list(localization.predict(localizer, [each.path for each in kept]))
    for one, two in zip(kept, passing, strict=True):
        assert one.name == two.name and one.duration == two.duration
        assert [s.label for s in one.segments] == [s.label for s in two.segments]
        np.testing.assert_allclose(
            [(s.start, s.end, s.score) for s in one.segments],
            [(s.start, s.end, s.score) for s in two.segments], atol=1e-4,
        )  # fmt: skip


def test_features_are_kept_between_runs(data: Path, tmp_path: Path) -> None:
    """The second `fit` computes none anew, and says what it leaves out of the data."""
    model = classifier(tmp_path / "m.keras")
    document = json.loads((data / "annotations.json").read_text())
    own = document["database"]
    own["v0"]["annotations"] += [
        {"segment": [13, 15], "label": "red"}, {"segment": [20, 21], "label": "red"},
        {"segment": [5, 4], "label": "red"},
    ]  # fmt: skip
    own["v1"]["annotations"] = []
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "videos").mkdir()
    for number in range(1, TRAINING):
        (tmp_path / "videos" / f"v{number}.mp4").symlink_to(data / "videos" / f"v{number}.mp4")
    (tmp_path / "videos" / "v0.mp4").write_bytes((data / "videos" / "v0.mp4").read_bytes())
    (tmp_path / "videos" / "v2.mp4").unlink()
    (tmp_path / "videos" / "v2.mp4").write_bytes(b"nothing")
    fit = ["fit", tmp_path / "a.json", "-m", model, "-o", tmp_path / "run", "-e", 1]
    said = run(*fit, "--filters", 8)
    assert "1 segment left out or cut; the first" in said.stderr
    assert "1 video without a segment" in said.stderr
    assert "1 video could not be read" in said.stderr and "v2.mp4" in said.stderr
    same = run(*fit, "-m", model, "--overwrite", status=2)
    assert "the same model comes twice" in same.stderr
    assert "2 segments do not fit their videos" in said.stderr
    files = sorted((tmp_path / "run" / "features").rglob("*.npy"))
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == TRAINING - 1
    refused = run(*fit, status=2)
    assert "holds a localizer already" in refused.stderr
    run(*fit, "--filters", 8, "--overwrite")
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_one_stage_baseline(data: Path, tmp_path: Path) -> None:
    """A model with a label for each frame is a localizer as it is."""
    model = frames_model(3)
    names = ("background", "blue", "red")
    save_model(model, tmp_path / "f.keras", ModelInfo(kvideo.ClipSpec(8, 4.0, (16, 16)), names))
    said = json.loads(
        run("predict", tmp_path / "f.keras", data / "videos" / "v9.mp4", "--json").stdout
    )
    labels = {row["label"] for row in said[0]["segments"]}
    assert labels <= {"blue", "red"} and said[0]["duration"] == pytest.approx(SECONDS, abs=0.1)
    result = localization.evaluate(tmp_path / "f.keras", data, verbose=False)
    assert result.recall is None and set(result.class_names) == {"blue", "red"}


def test_a_plugins_model(data: Path, tmp_path: Path, monkeypatch) -> None:
    """From the segments to a classifier, and on its `features` a localizer."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(offer(tmp_path / "site")))
    result = kvideo.fit(
        data / "annotations.json", model="tiny_frames", out=tmp_path / "clips", epochs=1,
        num_frames=4, size=(16, 16), batch_size=4, val_fraction=0, precision="float32",
        verbose=False,
    )  # fmt: skip
    assert kvideo.model_info(result.folder).class_names == ("background", "blue", "red")
    run("fit", data, "-m", tmp_path / "clips", "-o", tmp_path / "when", "-e", 1, "--filters", 8)
    said = run("predict", tmp_path / "when", data / "videos" / "v9.mp4", "--json")
    assert json.loads(said.stdout)[0]["duration"] == pytest.approx(SECONDS, abs=0.2)
    sys.modules.pop("frames_plugin", None)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["fit", "DATA", "-o", "OUT"], 2, "Missing option '-m'"),
        (["fit", "DATA", "-m", "gone.keras", "-o", "OUT"], 1, "there is no model file"),
        (["fit", "DATA", "-m", "MODEL", "-o", "OUT", "--layer", "feature"], 2, "no layer"),
        (["fit", "DATA", "-m", "MODEL", "-o", "OUT", "--stride", "0"], 2, "stride must be from"),
        (["fit", "DATA", "-m", "MODEL", "-o", "OUT", "--split", "x"], 2, "no part 'x'"),
        (["fit", "nowhere", "-m", "MODEL", "-o", "OUT"], 1, "no file or folder nowhere"),
        (["evaluate", "MODEL", "DATA"], 2, "gives one label for a clip"),
        (["evaluate", "RUN", "OTHER"], 1, "no class 'swim' in the classes of the model"),
        (["evaluate", "RUN", "DATA", "--stream", "flow"], 2, "no stream 'flow'"),
        (["evaluate", "RUN", "DATA", "--tiou", "50"], 2, "is no list of overlaps"),
        (["evaluate", "RUN", "DATA", "--nms-tiou", "0"], 2, "tiou must be above 0"),
        (["evaluate", "STRANGE", "DATA"], 1, "the results name the classes swim"),
        (["evaluate", "DATA/annotations.json", "DATA"], 1, "is no file of results"),
        (["evaluate", "a.csv", "DATA"], 2, "results must be JSON"),
        (["fit", "DATA", "-m", "MODEL", "-o", "OUT", "--filters", "0"], 2, "filters must be at"),
        (["predict", "RUN", "VIDEO", "--out-dir", "VIDEOS", "--videos"], 2, "is the video itself"),
        (["predict", "DATA", "VIDEO"], 1, "there is no model file"),
        (["predict", "RUN", "VIDEO", "-o", "x.txt"], 2, "segments are written as"),
        (["predict", "RUN", "VIDEO", "VIDEO", "-o", "x.srt"], 2, "would be of one video"),
        (["predict", "RUN", "VIDEO", "--video", "x.avi"], 2, "is written as .mp4"),
        (["predict", "RUN", "VIDEO", "--video", "VIDEO"], 2, "is the video itself"),
        (["predict", "RUN", "VIDEO", "--videos"], 2, "give --out-dir as well"),
        (["predict", "RUN", "VIDEO", "--threshold", "2"], 2, "threshold must be from 0 to 1"),
        (["predict", "RUN", "VIDEO", "-o", "no/x.csv"], 2, "there is no folder"),
        (["predict", "RUN", "VIDEO", "--truth", "DATA"], 2, "the truth goes into timelines"),
    ],
)  # fmt: skip
def test_wrong_use(data, localizer, tmp_path, monkeypatch, arguments, status, words) -> None:
    """One sentence, no traceback, and the status for whose mistake it is."""
    monkeypatch.chdir(tmp_path)
    model = classifier(tmp_path / "m.keras")
    (tmp_path / "other.csv").write_text(f"video,start,end,label\n{data}/videos/v9.mp4,1,2,swim\n")
    row = {"label": "swim", "score": 0.5, "segment": [1, 2]}
    (tmp_path / "strange.json").write_text(json.dumps({"results": {"v9": [row]}}))
    places = {
        "DATA": data, "OUT": tmp_path / "out", "MODEL": model, "RUN": localizer,
        "VIDEO": data / "videos" / "v9.mp4", "VIDEOS": data / "videos",
        "OTHER": tmp_path / "other.csv",
        "STRANGE": tmp_path / "strange.json", "DATA/annotations.json": data / "annotations.json",
    }  # fmt: skip
    said = run(*(places.get(word, word) for word in arguments), status=status)
    assert words in " ".join(said.stderr.split()) and "Traceback" not in said.stderr


def test_what_is_not_there_counts_as_missed(data: Path, localizer: Path, tmp_path: Path) -> None:
    """A video without a file counts as one that cannot be read; likewise by its results."""
    document = json.loads((data / "annotations.json").read_text())
    ghost = [{"segment": [1, 2], "label": "red"}] * 4
    document["database"]["ghost"] = {"subset": "validation", "annotations": ghost}
    (tmp_path / "a.json").write_text(json.dumps(document))
    said = run(
        "evaluate", localizer, tmp_path / "a.json", "--root", data, "-o", tmp_path, "--json",
        "--tiou", "0.5",
    )  # fmt: skip
    first = json.loads(said.stdout)
    assert first["num_segments"] == 2 * VALIDATION + 4 and len(first["failures"]) == 1
    assert first["metrics"]["map@0.50"] < 0.8 and "counted as missed" in said.stderr
    again = run(
        "evaluate", tmp_path / "results.json", tmp_path / "a.json", "--json", "--tiou", "0.5"
    )
    assert json.loads(again.stdout)["metrics"]["map@0.50"] == first["metrics"]["map@0.50"]


def test_a_segment_to_the_end_of_the_video(data: Path, localizer: Path, tmp_path: Path) -> None:
    """An empty end is the video's; in a picture, too."""
    path = tmp_path / "s.csv"
    path.write_text("video,start,end,label\nv9,1,3,red\nv9,9,,blue\n")
    common = ["evaluate", localizer, path, "--root", data, "-o", tmp_path, "--json"]
    said = json.loads(run(*common, "--pictures", tmp_path / "p").stdout)
    assert said["num_segments"] == 2 and (tmp_path / "p" / "v9.png").exists()
    path.write_text(f"video,start,end,label\nv9,1,3,red\nv9,9,{SECONDS},blue\n")
    assert json.loads(run(*common).stdout)["metrics"] == said["metrics"]
    path.write_text("video,start,end,label\nv9,9,,blue\n")
    refused = run("evaluate", tmp_path / "results.json", path, status=1)
    assert "a segment of v9 goes to the end of the video" in " ".join(refused.stderr.split())


def test_a_localizer_that_must_not_be_written(data: Path, localizer: Path, tmp_path: Path) -> None:
    """Features are not kept then."""
    copy = tmp_path / "copy"
    shutil.copytree(localizer, copy, ignore=shutil.ignore_patterns("features"))
    real = os.access
    with pytest.MonkeyPatch.context() as patch:  # the superuser may write everywhere
        patch.setattr(os, "access", lambda path, mode: Path(path) != copy and real(path, mode))
        localization.evaluate(copy, data, verbose=False)
    assert not (copy / "features").exists()
    localization.evaluate(copy, data, verbose=False)
    assert (copy / "features").is_dir()


def test_results_with_other_names(data: Path, tmp_path: Path) -> None:
    """Endings and `v_` are seen through; nothing in common is an error, other labels a note."""
    rows = [{"label": "red", "score": "0.5", "segment": ["1", 2]}]
    path, truth = tmp_path / "r.json", data / "annotations.json"
    path.write_text(
        json.dumps({"results": {"v9.mp4": rows, "v10": rows + [{**rows[0], "label": "x"}]}})
    )
    said = run("evaluate", path, truth, "--pictures", tmp_path / "p")
    assert "Note: 1 class of the results (x) not in" in said.stderr
    assert sorted(file.name for file in (tmp_path / "p").iterdir()) == ["v10.png", "v9.png"]
    path.write_text(json.dumps({"results": {"other": rows}}))
    refused = run("evaluate", path, truth, status=1)
    assert "none of the 1 video of the results is among those" in " ".join(refused.stderr.split())
    path.write_text(json.dumps({"results": {"v9": [{"label": "red", "segment": [1, 2]}]}}))
    refused = run("evaluate", path, truth, status=1)
    assert "v9: a segment needs `label`, `score`" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("folder", "split"), [("activitynet13", "validation"), ("thumos14", "test")]
)
def test_results_of_others_get_the_official_figures(
    shared: Path, tmp_path: Path, folder: str, split: str
) -> None:
    top = shared / "oracles" / "eval"
    expected = json.loads((top / "expected.json").read_text())[folder]
    for name in ("gt", "pred"):
        with gzip.open(top / folder / f"{name}.json.gz") as file:
            (tmp_path / f"{name}.json").write_bytes(file.read())
    result = localization.evaluate(
        tmp_path / "pred.json", tmp_path / "gt.json", split=split, tious=expected["tiou"],
        verbose=False,
    )  # fmt: skip
    assert result.num_segments == expected["n_gt"]
    np.testing.assert_allclose(result.scores.mean, expected["mAP"], atol=1e-12)
    assert result.scores.average == pytest.approx(expected["average_mAP"], abs=1e-12)
