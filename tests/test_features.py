"""A model as an extractor: what is written, what is found again, what goes wrong."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import drifting, write_video

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.clip_reader import ClipReader
from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.errors import DataError, UnknownNameError, UsageError
from kvideo.feature_files import FeatureCache, file_names, write_rows
from kvideo.features import (
    Block,
    FeatureSet,
    _write,
    extract_features,
    feature_extractor,
    model_digest,
    stream_features,
)
from kvideo.files import is_disk_full
from kvideo.inference import Predictor
from kvideo.saving import ModelInfo, save_model

SPEC = ClipSpec(4, 10.0, (16, 16))


def make_model(seed: int = 0, num_classes: int = 2) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = kvideo.models.slow_fusion(num_classes, input_shape=SPEC.shape, widths=(4, 6))
    names = tuple(f"class {number}" for number in range(num_classes))
    model.kvideo_info = ModelInfo(SPEC, names, views=Views(3))
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return make_model()


@pytest.fixture(scope="module")
def model_path(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(model, path)
    return path


@pytest.fixture
def data(tiny_videos: Path, tmp_path: Path) -> Path:
    """Two classes, two videos each, that a test may change."""
    for name in ("left", "right"):
        for number in (0, 1):
            target = tmp_path / "data" / name / f"{number}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tiny_videos / name / f"{number}.mp4", target)
    return tmp_path / "data"


def extract(model, data, out, **options) -> FeatureSet:
    return kvideo.features(model, data, out=out, verbose=False, **options)


def computed(found: FeatureSet) -> list[str]:
    """Names of the files that the last run computed."""
    return [str(video.file) for video in found.videos if video.computed]


ALL = ["left/0.mp4.npy", "left/1.mp4.npy", "right/0.mp4.npy", "right/1.mp4.npy"]


# -- what is written -------------------------------------------------------------------------------


def test_files_hold_what_the_layer_gives(model, data, tmp_path) -> None:
    found = extract(model, data, tmp_path / "out", batch_size=2)
    assert [video.file for video in found.videos] == computed(found) == ALL
    assert found.class_names == ("left", "right") and found.labels().tolist() == [0, 0, 1, 1]
    network = keras.Model(model.input, model.get_layer("features").output)
    reader = clip_reader(SPEC)
    for video, array in zip(found.videos, found.arrays(), strict=True):
        clips = reader.views(VideoRecord(video.path), Views(3))
        assert array.dtype == np.float32 and array.shape == video.shape == (3, 6)
        np.testing.assert_allclose(array, network(clips), atol=1e-5)
    # 1.2 s of video, clips of 0.4 s: the first at the start, the last at the end.
    np.testing.assert_allclose(found.videos[0].times, [[0, 0.4], [0.4, 0.8], [0.8, 1.2]], atol=1e-6)
    expected = [array.mean(axis=0) for array in found.arrays()]
    np.testing.assert_allclose(found.means(), expected, atol=1e-6)


def test_crops_are_neighbours(model, tmp_path) -> None:
    write_video(tmp_path / "data" / "a.mp4", np.concatenate([drifting(1, 1)] * 2, axis=2))
    found = extract(model, tmp_path / "data", tmp_path / "out", num_clips=2, num_crops=3)
    (video,) = found.videos
    assert video.shape == (6, 6)
    assert video.times[0] == video.times[1] == video.times[2] != video.times[3]
    clips = clip_reader(SPEC).views(VideoRecord(video.path), Views(2, 3))
    (array,) = found.arrays()
    np.testing.assert_allclose(array, feature_extractor(model)(clips), atol=1e-5)


def test_index(model, data, tmp_path) -> None:
    found = extract(model, data, tmp_path / "out")
    with open(tmp_path / "out" / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ALL
    assert [row["label"] for row in rows] == ["left", "left", "right", "right"]
    assert rows[0]["path"] == str(data / "left" / "0.mp4") and rows[0]["shape"] == "3x6"
    document = json.loads((tmp_path / "out" / "index.json").read_text())
    assert document == found.to_json()
    assert document["details"]["layer"] == "features"
    assert document["details"]["views"] == {"num_clips": 3, "num_crops": 1}
    again = FeatureSet.load(tmp_path / "out")
    assert again.videos == found.videos and again.class_names == found.class_names
    np.testing.assert_array_equal(again.means(), found.means())
    # The table is an annotation file, too.
    assert extract(model, tmp_path / "out" / "index.csv", tmp_path / "b").labels().tolist() == [
        0, 0, 1, 1,
    ]  # fmt: skip


def test_maps(model, data, tmp_path) -> None:
    pooled = extract(model, data, tmp_path / "a", layer="feature_map", num_clips=1)
    whole = extract(model, data, tmp_path / "b", layer="feature_map", num_clips=1, pool="none")
    shape = model.get_layer("feature_map").output.shape[1:]
    assert whole.videos[0].shape == (1, *shape) and pooled.videos[0].shape == (1, shape[-1])
    for small, large in zip(pooled.arrays(), whole.arrays(), strict=True):
        np.testing.assert_allclose(small, large.mean(axis=(1, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(whole.means(), pooled.means(), atol=1e-5)


def test_layers_that_see_frames_as_a_batch() -> None:
    network = kvideo.models.late_fusion(5, input_shape=(4, 16, 16, 3))
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3), "uint8")
    folded = [x.name for x in network.layers if x.output.shape[0] is None and len(x.output.shape)]
    frames = next(
        name
        for name in folded
        if len(keras.Model(network.input, network.get_layer(name).output)(clips)) == 12
    )
    whole = feature_extractor(network, frames, "none")(clips)
    assert whole.shape[:2] == (3, 4)
    pooled = feature_extractor(network, frames)(clips)
    axes = tuple(range(1, len(whole.shape) - 1))
    np.testing.assert_allclose(pooled, np.mean(whole, axis=axes), atol=1e-5)
    # The frames of a clip stay with their clip.
    np.testing.assert_allclose(feature_extractor(network, frames, "none")(clips[1:2])[0], whole[1],
                               atol=1e-5)  # fmt: skip


def test_a_batch_holds_clips_of_several_videos(model) -> None:
    """And every block gets its own rows, whatever the sizes."""
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (11, *SPEC.shape), "uint8")
    sizes, first = [1, 3, 2, 4, 1], 0
    blocks = []
    for video, size in enumerate(sizes):
        blocks.append(Block(video, np.zeros((size, 2)), clips[first : first + size]))
        first += size
    error = kvideo.errors.DecodeError("x.mp4", "missing", "gone")
    blocks[2:2] = [Block(9, error=error)]
    blocks.append(Block(10, error=error))
    predictor = Predictor(feature_extractor(model), 4)
    found = list(stream_features(predictor, blocks))
    assert [block.video for block, _ in found] == [0, 1, 9, 2, 3, 4, 10]
    rows = [features for _, features in found if features is not None]
    assert [len(row) for row in rows] == sizes
    np.testing.assert_allclose(np.concatenate(rows), feature_extractor(model)(clips), atol=1e-5)


def test_no_more_than_two_batches_are_held(model) -> None:
    """A source of any length is asked for more only when what came before is written."""
    asked, written = 0, 0

    def blocks():
        nonlocal asked
        for _ in range(50):
            asked += 1
            assert asked - written <= 3
            yield Block(0, np.zeros((2, 2)), np.zeros((2, *SPEC.shape), "uint8"))

    for _ in stream_features(Predictor(feature_extractor(model), 4), blocks()):
        written += 1
    assert written == 50


# -- names -----------------------------------------------------------------------------------------


def test_names_mirror_the_data_and_do_not_meet() -> None:
    records = [
        VideoRecord("/d/a/x.mp4"),
        VideoRecord("/d/a/x.avi"),
        VideoRecord("/d/a/x"),
        VideoRecord("/d/b/x.mp4"),
        VideoRecord("/d/b/x.mp4", start=1.5),
        VideoRecord("/d/b/x.mp4", start=1.5, end=2.25),
        VideoRecord("/d/b/x.mp4", start=1.5, end=2.2500001),
        VideoRecord("/d/b/x.mp4", end=2.25),
        VideoRecord("/elsewhere/b/x.mp4"),
        VideoRecord("/dd/b/x.mp4"),
        VideoRecord("gs://d/b/x.mp4"),
        VideoRecord("gs://d/../../x.mp4"),
        VideoRecord("/d/_/elsewhere/b/x.mp4"),
        VideoRecord("/d/" + "ä" * 120 + ".mp4"),
        VideoRecord("/d/" + "ä" * 121 + ".mp4"),
    ]
    names = file_names(records, "/d")
    assert names[:5] == [
        "a/x.mp4.npy", "a/x.avi.npy", "a/x.npy", "b/x.mp4.npy", "b/x.mp4@1.5-end.npy",
    ]  # fmt: skip
    assert names[5] == "b/x.mp4@1.5-2.25.npy" and names[8] == "_/elsewhere/b/x.mp4.npy"
    assert names[10] == "_/gs/d/b/x.mp4.npy" and ".." not in names[11]
    assert len(set(names)) == len(records)
    assert all(len(os.fsencode(name.rsplit("/")[-1])) < 256 for name in names)
    assert file_names([records[0], records[0]], "/d") == ["a/x.mp4.npy"] * 2


def test_a_video_listed_twice_and_parts_of_videos(model, data, tmp_path) -> None:
    lines = ["path,label,start,end", "left/0.mp4,a,0,0.5", "left/0.mp4,b,0.5,1.1"]
    lines += ["left/1.mp4,a,,", str(data / "right" / "1.mp4") + ",b,,"]
    (data / "list.csv").write_text("\n".join(lines))
    found = extract(model, data / "list.csv", tmp_path / "out", num_clips=1)
    assert sorted(computed(found)) == [
        "left/0.mp4@0.0-0.5.npy", "left/0.mp4@0.5-1.1.npy", "left/1.mp4.npy", "right/1.mp4.npy",
    ]  # fmt: skip
    parts = [video for video in found.videos if video.start is not None or video.end is not None]
    assert [v.times for v in parts] == [((0.05, 0.45),), ((0.6, 1.0),)]
    record = VideoRecord(str(data / "left" / "0.mp4"), (0,))
    twice = VideoSet((record, VideoRecord(record.path, (1,))), ("a", "b"))
    found = extract(model, twice, tmp_path / "twice", root=data)
    assert [v.file for v in found.videos] == ["left/0.mp4.npy"] * 2
    assert found.labels().tolist() == [0, 1] and len(list(found.arrays())) == 2


def test_videos_without_labels(model, data, tmp_path) -> None:
    found = extract(model, data / "left", tmp_path / "out")
    assert [video.file for video in found.videos] == ["0.mp4.npy", "1.mp4.npy"]
    assert found.means().shape == (2, 6)
    with pytest.raises(DataError, match="0 labels, not one"):
        found.labels()
    found = extract(model, data / "left" / "1.mp4", tmp_path / "out")
    assert [video.file for video in found.videos] == ["1.mp4.npy"] and not computed(found)


# -- what is found again ---------------------------------------------------------------------------


def test_nothing_is_computed_twice(model, model_path, data, tmp_path) -> None:
    out = tmp_path / "out"
    assert computed(extract(model_path, data, out)) == ALL
    before = {name: (out / name).stat().st_mtime_ns for name in ALL}
    assert computed(extract(model_path, data, out)) == []
    assert {name: (out / name).stat().st_mtime_ns for name in ALL} == before
    # The model in memory is the model in the file, and the data may be moved.
    assert computed(extract(model, data, out)) == []
    shutil.copytree(data, tmp_path / "moved", copy_function=shutil.copy2)
    assert computed(extract(model, tmp_path / "moved", out)) == []


def test_another_head_is_the_same_extractor() -> None:
    model, head = make_model(), make_model(num_classes=5)
    assert model_digest(model, "features") == model_digest(head, "features")
    assert model_digest(model, "logits") != model_digest(head, "logits")
    assert model_digest(model, "features") != model_digest(make_model(1), "features")


def test_changed_videos_are_computed_again(model, data, tmp_path, tiny_videos) -> None:
    out = tmp_path / "out"
    first = list(extract(model, data, out).arrays())
    shutil.copy(tiny_videos / "right" / "5.mp4", data / "left" / "1.mp4")
    again = extract(model, data, out)
    assert computed(again) == ["left/1.mp4.npy"]
    same = [np.array_equal(a, b) for a, b in zip(first, again.arrays(), strict=True)]
    assert same == [True, False, True, True]
    os.utime(data / "left" / "0.mp4")  # touched: nobody knows whether it is the same
    assert computed(extract(model, data, out)) == ["left/0.mp4.npy"]
    (data / "left" / "0.mp4").unlink()
    assert [v.file for v in extract(model, data, out).videos] == ALL[1:]
    assert (out / ALL[0]).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "logits"},
        {"num_clips": 2},
        {"pool": "none"},
        {"clip_spec": SPEC.replace(frame_rate=5.0)},
        {"clip_spec": SPEC.replace(framing="stretch")},
    ],
)
def test_other_settings_are_computed_again(model, data, tmp_path, change) -> None:
    extract(model, data, tmp_path / "out")
    assert computed(extract(model, data, tmp_path / "out", **change)) == ALL


def test_other_weights_are_computed_again(model, data, tmp_path) -> None:
    first = extract(model, data, tmp_path / "out").means()
    other = make_model(seed=1)
    again = extract(other, data, tmp_path / "out")
    assert computed(again) == ALL and not np.allclose(first, again.means())


def test_files_that_were_harmed_are_computed_again(model, data, tmp_path) -> None:
    out = tmp_path / "out"
    extract(model, data, out)
    (out / ALL[0]).unlink()
    (out / ALL[1]).write_bytes(b"cut")
    assert computed(extract(model, data, out)) == ALL[:2]
    (out / "cache.jsonl").unlink()
    assert computed(extract(model, data, out)) == ALL
    text = (out / "cache.jsonl").read_text()
    (out / "cache.jsonl").write_text(text[:-30])  # a process that was killed while it wrote
    assert computed(extract(model, data, out)) == ALL[3:]
    assert computed(extract(model, data, out)) == []


def test_the_cache_does_not_grow_without_end(tmp_path) -> None:
    with FeatureCache(tmp_path) as cache:
        for number in range(120):
            cache.add("a.npy", str(number), iter([np.zeros((1, 2))]), [(0, 1)])
    FeatureCache(tmp_path)
    assert (tmp_path / "cache.jsonl").read_text().count("\n") == 1
    assert FeatureCache(tmp_path).find("a.npy", "119") is not None


class Stopping(ClipReader):
    """Reads two videos, then somebody presses Ctrl-C."""

    reads = 0

    def timed_views(self, record, views):
        Stopping.reads += 1
        if Stopping.reads > 2:
            raise KeyboardInterrupt
        return super().timed_views(record, views)


def test_an_interruption_keeps_what_is_finished(model, data, tmp_path) -> None:
    from kvideo.data.annotations import read_data

    out, reader = tmp_path / "out", clip_reader(SPEC)
    stopping = Stopping(reader.spec, reader.open_video, reader.opener)
    arguments = {"root": str(data), "batch_size": 3, "workers": 1}
    details = {"decoder": "pyav"}
    with pytest.raises(KeyboardInterrupt):
        extract_features(model, read_data(data), stopping, out, details=details, **arguments)
    done = FeatureSet.load(out)
    assert [video.file for video in done.videos] == ALL[: len(done)] and 0 < len(done) <= 2
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp")]
    again = extract(model, data, out)
    assert computed(again) == ALL[len(done) :] and len(again) == 4


@pytest.mark.slow
def test_killed_at_any_moment(model_path, tiny_videos, tmp_path) -> None:
    """Whatever is in place is whole, and the same command goes on."""
    command = [sys.executable, "-c", "from kvideo.cli import main; main()", "features"]
    command += [str(model_path), str(tiny_videos), "-o", str(tmp_path / "out"), "-b", "1"]
    for kind in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        cache = tmp_path / "out" / "cache.jsonl"
        before = cache.read_text().count("\n") if cache.exists() else 0
        for _ in range(600):
            if cache.exists() and cache.read_text().count("\n") > before:
                break
            time.sleep(0.05)
        process.send_signal(kind)
        _, said = process.communicate(timeout=60)
        if kind == signal.SIGINT and process.returncode:
            assert "the same command goes on" in said and "Traceback" not in said
    for path in (tmp_path / "out").rglob("*.npy"):
        if not path.name.startswith(".tmp"):
            assert np.load(path).shape == (3, 6)
    done = cache.read_text().count("\n")
    found = extract(model_path, tiny_videos, tmp_path / "out")
    assert len(found) == 12 and len(computed(found)) == 12 - done


# -- what goes wrong -------------------------------------------------------------------------------


def test_broken_videos_are_named_and_the_rest_goes_on(model, data, tmp_path) -> None:
    (data / "left" / "0.mp4").write_bytes(b"nothing at all")
    (data / "right" / "0.mp4").write_bytes(b"")
    found = extract(model, data, tmp_path / "out")
    assert [v.file for v in found.found] == [ALL[1], ALL[3]] and len(found) == 2
    assert [v.reason for v in found.failures] == ["unreadable", "empty"]
    assert found.labels().tolist() == [0, 1]
    document = json.loads((tmp_path / "out" / "index.json").read_text())
    assert document["videos"][0]["reason"] == "unreadable" and document["videos"][0]["error"]
    assert FeatureSet.load(tmp_path / "out").failures == found.failures


def test_a_video_that_fails_midway_leaves_nothing(model, tmp_path) -> None:
    record = VideoRecord("/nowhere/a.mp4")
    clips = np.zeros((2, *SPEC.shape), "uint8")
    error = kvideo.errors.DecodeError(record.path, "truncated", "cut off")
    blocks = [Block(0, np.zeros((2, 2)), clips), Block(0, error=error)]
    parts = stream_features(Predictor(feature_extractor(model), 2), blocks)
    found = _write(FeatureCache(tmp_path), "a.npy", "key", record, parts)
    assert found.file is None and found.error == "cut off" and not list(tmp_path.rglob("*.npy"))


def test_features_that_are_no_numbers(data, tmp_path) -> None:
    inputs = keras.Input(SPEC.shape, name="clip")
    x = keras.layers.GlobalAveragePooling3D(name="features")(inputs)
    bad = keras.Model(inputs, keras.layers.Rescaling(float("inf"), name="logits")(x))
    bad.kvideo_info = ModelInfo(SPEC, ("a", "b", "c"))
    with pytest.raises(DataError, match="none of 4 videos gave features.*not a finite number"):
        extract(bad, data, tmp_path / "out", layer="logits")
    assert not (tmp_path / "out" / "index.json").exists()
    assert not list((tmp_path / "out").rglob("*.npy"))
    assert len(extract(bad, data, tmp_path / "out")) == 4


def test_unknown_layers(model) -> None:
    with pytest.raises(UnknownNameError, match='no layer "featurs". Did you mean "features"'):
        feature_extractor(model, "featurs")
    with pytest.raises(UnknownNameError, match="It has features, feature_map and logits"):
        feature_extractor(model, "q")
    with pytest.raises(UsageError, match="pool must be one of"):
        feature_extractor(model, pool="max")


def test_a_full_disk(tmp_path) -> None:
    def rows():
        yield np.zeros((2, 3))
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(kvideo.KVideoError, match="a/x.npy: the disk is full") as caught,
        FeatureCache(tmp_path) as cache,
    ):
        cache.add("a/x.npy", "key", rows(), [])
    assert is_disk_full(caught.value.__cause__) and not list((tmp_path / "a").iterdir())
    with pytest.raises(kvideo.KVideoError, match="nothing to write"):
        write_rows(tmp_path / "x.npy", iter([]))


def test_a_file_that_cannot_come_into_place(model, data, tmp_path) -> None:
    """The index names only what is there."""
    out = tmp_path / "out"
    (out / "left" / "1.mp4.npy").mkdir(parents=True)
    with pytest.raises(kvideo.KVideoError, match="left/1.mp4.npy: it is a folder"):
        extract(model, data, out)
    assert [video.file for video in FeatureSet.load(out).videos] == ALL[:1]


def test_arrays_grow_by_rows(tmp_path) -> None:
    blocks = [np.random.default_rng(n).normal(size=(n, 3, 2)) for n in (1, 5, 1000, 7)]
    assert write_rows(tmp_path / "x.npy", iter(blocks)) == (1013, 3, 2)
    found = np.load(tmp_path / "x.npy")
    np.testing.assert_array_equal(found, np.concatenate(blocks).astype("f4"))
    assert np.load(tmp_path / "x.npy", mmap_mode="r").shape == (1013, 3, 2)


def test_an_index_that_is_not_there_or_damaged(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no features"):
        FeatureSet.load(tmp_path)
    (tmp_path / "index.json").write_text('{"videos": [')
    with pytest.raises(DataError, match="is damaged"):
        FeatureSet.load(tmp_path)


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


def test_command(model_path, data, tmp_path) -> None:
    (data / "left" / "broken.mp4").write_bytes(b"nothing")
    out = tmp_path / "out"
    result = run("features", model_path, data, "-o", out)
    assert result.exit_code == 0
    assert "4 videos, 3×6 float32 each" in result.stdout and "index.csv" in result.stdout
    assert "1 video could not be used" in result.stderr and "broken.mp4" in result.stderr
    result = run("features", model_path, data, "-o", out)
    assert result.exit_code == 0 and "4 of them were there already" in result.stdout
    result = run("features", model_path, data, "-o", out, "--json", "--layer", "conv1")
    assert result.exit_code == 0 and len(json.loads(result.stdout)["videos"]) == 5
    # Without --out, beside the model.
    shutil.copytree(model_path.parent, tmp_path / "run")
    assert run("features", tmp_path / "run", data, "--clips", "1").exit_code == 0
    assert (tmp_path / "run" / "features" / "data-features" / "left" / "0.mp4.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["MODEL", "DATA", "--layer", "featurs"], 2, 'Did you mean "features"'),
        (["MODEL", "DATA", "--pool", "max"], 2, "max"),
        (["MODEL", "DATA", "--crops", "2"], 2, "num_crops must be 1 or 3"),
        (["MODEL", "DATA", "--clips", "0"], 2, "num_clips must be"),
        (["MODEL", "DATA", "--split", "dev"], 2, "dev"),
        (["MODEL", "VIDEO", "--split", "test"], 2, "0.mp4 has no parts"),
        (["MODEL", "CLASS", "--split", "test"], 2, "left has no parts"),
        (["MODEL", "nowhere"], 1, "no file or folder nowhere"),
        (["nowhere.keras", "DATA"], 1, "no model file nowhere.keras"),
        (["MODEL", "DATA", "-o", "MODEL"], 1, "cannot write into the folder"),
        (["MODEL"], 2, "Missing argument 'DATA'"),
    ],
)
def test_wrong_usage(model_path, data, arguments, status, message) -> None:
    places = {"MODEL": model_path, "DATA": data, "CLASS": data / "left"}
    places["VIDEO"] = data / "left" / "0.mp4"
    before = set(data.parent.rglob("*"))
    result = run("features", *[places.get(word, word) for word in arguments])
    assert result.exit_code == status and message in result.stderr and result.stdout == ""
    assert set(data.parent.rglob("*")) == before
    assert "extracting" not in result.stderr


def test_the_public_name_is_the_function() -> None:
    import kvideo.features  # binds nothing in the package

    assert callable(kvideo.features) and kvideo.features.__module__ == "kvideo.api"
    with pytest.raises(UsageError, match="needs out="):
        kvideo.features(make_model(), "demo")


@pytest.mark.slow
def test_a_support_vector_machine_in_five_lines(model_path, tiny_videos, tmp_path) -> None:
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import LinearSVC

    found = extract(model_path, tiny_videos, tmp_path / "features")
    svm = LinearSVC().fit(found.means(), found.labels())
    assert svm.score(found.means(), found.labels()) > 0.5
    with open(tmp_path / "features" / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    x = np.stack([np.load(tmp_path / "features" / row["file"]).mean(axis=0) for row in rows])
    np.testing.assert_allclose(x, found.means(), atol=1e-6)
    scores = cross_val_score(LinearSVC(), x, [row["label"] for row in rows], cv=3)
    assert len(scores) == 3 and ((scores >= 0) & (scores <= 1)).all()


def long_video(path: Path, seconds: float = 7.3) -> Path:
    """Grey that grows by one level a frame."""
    frames = np.arange(round(seconds * 10), dtype=np.uint8)[:, None, None, None]
    return write_video(path, np.broadcast_to(frames + 60, (len(frames), 32, 32, 3)).copy())


def test_a_sliding_window_has_its_middle_in_its_stride(model, tmp_path: Path) -> None:
    """Row i is the clip around (i + 1/2) strides; at the ends clips are moved inwards."""
    video = long_video(tmp_path / "videos" / "deep" / "a.mp4")
    found = extract(model, tmp_path / "videos", tmp_path / "out", stride=0.5)
    (entry,) = found.found
    assert entry.file == "deep/a.npy" and entry.shape[0] == 15  # of 7.3 s, rounded
    middles = (np.arange(15) + 0.5) * 0.5
    starts = np.clip(middles - 0.2, 0, 7.3 - 0.4)
    np.testing.assert_allclose(entry.times, np.stack([starts, starts + 0.4], axis=1), atol=1e-5)
    (rows,) = found.arrays()
    (clips,) = clip_reader(SPEC).clips_at(VideoRecord(str(video)), starts, 7.3)
    expected = Predictor(feature_extractor(model))(clips)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert not any(
        v.computed for v in extract(model, video.parents[1], tmp_path / "out", stride=0.5).found
    )
    again = extract(model, video.parents[1], tmp_path / "out", stride=1.0)
    assert again.found[0].computed and again.found[0].shape[0] == 7


def test_only_a_videos_ending_is_left_out() -> None:
    """Of names with dots nothing else; two files of one name do not meet."""
    paths = ("/v/match.2024", "/v/match.2025", "/v/a.b.mp4", "/v/c.mp4", "/v/c.mkv")
    names = file_names([VideoRecord(path) for path in paths], "/v", keep_ending=False)
    assert names[:4] == ["match.2024.npy", "match.2025.npy", "a.b.npy", "c.npy"]
    assert names[4].startswith("c-") and len(set(names)) == 5


def test_a_list_of_segments_is_of_whole_videos(model, tmp_path: Path) -> None:
    """Each once, though its segments overlap; a video shorter than a clip has one row."""
    long_video(tmp_path / "a.mp4")
    long_video(tmp_path / "b.mp4", 0.2)
    (tmp_path / "s.csv").write_text("video,start,end,label\na,1,3,x\na.mp4,2,4,y\nb,0,0.1,x\n")
    found = extract(model, tmp_path / "s.csv", tmp_path / "out", stride=0.5)
    assert [(v.file, v.shape[0], v.labels) for v in found.found] == [
        ("a.npy", 15, ()), ("b.npy", 1, ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0.5, "num_clips": 3}, "leave out the views"),
        ({"stride": 0}, "stride must be above 0"),
        ({"stride": float("nan")}, "stride must be above 0"),
    ],
)
def test_wrong_strides(model, tmp_path: Path, options, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        extract(model, long_video(tmp_path / "a.mp4"), tmp_path / "out", **options)
