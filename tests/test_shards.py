"""Shards: written, read by others' readers and ours, trained on, damaged, resumed."""

import contextlib
import json
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import drifting, write_video

from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.annotations import find_splits, read_data
from kvideo.data.check import check_videos, videos_to_check
from kvideo.data.decode import open_video
from kvideo.data.pipeline import clip_reader
from kvideo.data.sampling import (
    Augmentation,
    clip_times,
    is_padding,
    random_window,
    view_windows,
)
from kvideo.data.shards import windows
from kvideo.data.shards.layout import read_index
from kvideo.data.shards.messages import encoded_frames
from kvideo.data.shards.plan import ShardSettings, plan_shards
from kvideo.data.shards.serving import start_dispatcher, stop
from kvideo.data.shards.source import ShardSource, order_by_file
from kvideo.data.shards.writing import prepare, write_shards
from kvideo.data.shares import Share
from kvideo.errors import DataError, DecodeError, KVideoError, UsageError
from kvideo.ports import free_ports

SPEC = ClipSpec(4, 10.0, (16, 16))
PLAIN = Augmentation(crop="center", flip=False, brightness=0, contrast=0, saturation=0)


def make(data, out: Path, **settings) -> Path:
    plan = plan_shards(data, ShardSettings(**settings))
    write_shards(plan.shards, plan, prepare(plan, out), workers=2)
    return out


@pytest.fixture(scope="module")
def shards(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of 12 frames, 32×32, in three files."""
    return make(tiny_videos, tmp_path_factory.mktemp("shards") / "s", num_shards=3)


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def run(*arguments: str):
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def source(folder: Path, spec: ClipSpec = SPEC, **options) -> ShardSource:
    augmentation = options.pop("augmentation", Augmentation(flip=False))
    return ShardSource(read_data(folder), spec, augmentation, **options)


def epoch(source: ShardSource, number: int = 0, **options):
    """Clips and labels of an epoch in batches of four, (N, ...)."""
    pairs = list(source.batches(4, epoch=number, **options))
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


# ----------------------------------------------------------------------------- what is written


def test_a_plain_tensorflow_reader_reads_the_files(shards: Path, tiny_videos: Path) -> None:
    """As the video pipeline of tensorflow/models and DMVR parse them."""
    files = sorted(str(path) for path in shards.glob("train-*-of-00003.tfrecord"))
    assert len(files) == 3
    seen = []
    for serialized in tf.data.TFRecordDataset(files):
        context, lists = tf.io.parse_single_sequence_example(
            serialized,
            {
                "clip/label/index": tf.io.VarLenFeature(tf.int64),
                "clip/label/text": tf.io.VarLenFeature(tf.string),
                "clip/media_id": tf.io.FixedLenFeature((), tf.string),
                "image/frame_rate": tf.io.FixedLenFeature((), tf.float32),
                "clip/end/timestamp": tf.io.FixedLenFeature((), tf.int64),
            },
            {
                "image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
                "image/timestamp": tf.io.FixedLenSequenceFeature((), tf.int64),
            },
        )
        name = context["clip/media_id"].numpy().decode()
        text = tf.sparse.to_dense(context["clip/label/text"]).numpy()[0].decode()
        assert (
            name.split("/")[0] == text == ("left", "right")[context["clip/label/index"].values[0]]
        )
        assert context["image/frame_rate"] == 10
        assert context["clip/end/timestamp"] == 1_200_000
        assert lists["image/timestamp"].numpy().tolist() == [100_000 * i for i in range(12)]
        frames = np.stack([tf.io.decode_jpeg(f).numpy() for f in lists["image/encoded"]])
        with open_video(tiny_videos / name) as video:
            original = np.stack([picture for _, picture in video.frames()])
        assert np.abs(frames.astype(int) - original).mean() < 20  # noise is hard on JPEG
        seen.append(name)
    assert sorted(seen) == sorted(str(p.relative_to(tiny_videos)) for p in tiny_videos.glob("*/*"))
    assert seen != sorted(seen)  # shuffled


def test_the_index_says_where_everything_is(shards: Path) -> None:
    import hashlib

    index = read_index(str(shards))
    assert index.class_names == ("left", "right") and index.flip_safe is False
    for file in index.files.values():
        data = (shards / file.name).read_bytes()
        assert len(data) == file.size and hashlib.sha256(data).hexdigest() == file.sha256
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(shards / file.name))]
        for record, video in zip(records, file.videos, strict=True):
            assert data[video.offset : video.offset + video.length] == record
            assert len(encoded_frames(record)) == video.frames == 12
        sidecar = json.loads((shards / file.name.replace(".tfrecord", ".json")).read_text())
        assert sidecar == json.loads(json.dumps(file.to_json()))


def test_contents_depend_on_list_and_seed_only(tiny_videos: Path, tmp_path: Path) -> None:
    a = make(tiny_videos, tmp_path / "a", num_shards=2)
    plan = plan_shards(tiny_videos, ShardSettings(num_shards=2))
    folder = prepare(plan, tmp_path / "b")
    for part in (2, 1):  # tasks of a job array, in any order
        report = write_shards(plan.share(part, 2), plan, folder, workers=1)
        assert report.made == 1 and report.waiting == (1 if part == 2 else 0)
    names = sorted(os.listdir(a))
    assert names == sorted(os.listdir(folder)) and "index.json" in names
    assert all((a / name).read_bytes() == Path(folder, name).read_bytes() for name in names)
    other = plan_shards(tiny_videos, ShardSettings(num_shards=2, seed=1))
    assert [s.names for s in other.shards] != [s.names for s in plan.shards]


def test_size_rate_segments_and_videos_that_fail(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", drifting(1, 0, frames=40, side=64), rate=20)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video" * 99)
    lines = ["path,label,start,end", "v/a.mp4,x,0.5,1.5", "v/a.mp4,y,1,2", "v/broken.mp4,x,,"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    plan = plan_shards(tmp_path / "list.csv", ShardSettings(short_side=32, frame_rate=5))
    report = write_shards(plan.shards, plan, prepare(plan, tmp_path / "s"))
    assert report.videos == 2 and [e.reason for e in report.failures.errors()] == ["unreadable"]
    videos = read_data(tmp_path / "s")
    assert "1 video gave no frames" in videos.notes[0]
    assert {record.group for record in videos.records} == {str(tmp_path / "v" / "a.mp4")}
    for record in videos.records:
        start = 0.5 if videos.class_names[record.labels[0]] == "x" else 1.0
        with open_video(record.path) as stored, open_video(tmp_path / "v" / "a.mp4") as video:
            assert (stored.info.height, stored.info.width) == (32, 32)
            assert (stored.info.num_frames, stored.info.duration) == (5, 1.0)
            wanted = video.read(start + np.arange(5) / 5, size=(32, 32))
            assert np.abs(stored.read(np.arange(5) / 5).astype(int) - wanted).mean() < 20
    with pytest.raises(DecodeError):
        plan = plan_shards(tmp_path / "list.csv", ShardSettings(short_side=16))
        write_shards(plan.shards, plan, prepare(plan, tmp_path / "t"), strict=True)


def test_an_interrupted_run_goes_on_and_others_shards_stay(copy: Path, tiny_videos: Path) -> None:
    (copy / "train-00001-of-00003.json").unlink()
    (copy / "index.json").unlink()
    kept = (copy / "train-00000-of-00003.tfrecord").stat().st_mtime_ns
    with pytest.raises(DataError, match="not all of them are made"):
        read_data(copy)
    done = run("shard", str(tiny_videos), str(copy), "--num-shards", "3", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["made"], report["kept"], report["videos"]) == (1, 2, 12)
    assert (copy / "train-00000-of-00003.tfrecord").stat().st_mtime_ns == kept
    assert len(read_data(copy)) == 12
    done = run("shard", str(tiny_videos), str(copy), "--num-shards", "2")
    assert done.exit_code == 2 and "--overwrite" in done.output
    done = run("shard", str(tiny_videos), str(copy), "--num-shards", "2", "--overwrite")
    assert done.exit_code == 0 and len(list(copy.glob("*.tfrecord"))) == 2
    done = run("shard", str(copy), str(copy / "again"))
    assert done.exit_code == 1 and "shards already" in done.output


def test_parts_of_a_data_set_become_parts(tiny_videos: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(tiny_videos, tmp_path / "d" / part)
    folder = make(tmp_path / "d", tmp_path / "s")
    assert find_splits(folder) == ("train", "val") == find_splits(tmp_path / "d")
    assert len(read_data(folder)) == len(read_data(folder, split="val")) == 12
    assert len(read_data(folder, split="all")) == 24
    with pytest.raises(UsageError, match="no part"):
        read_data(folder, split="extra")
    reversed_classes = read_data(folder, class_names=("right", "left"))
    assert [1 - r.labels[0] for r in reversed_classes.records] == [
        r.labels[0] for r in read_data(folder).records
    ]
    with pytest.raises(DataError, match="left"):
        read_data(folder, class_names=("right", "up"))


def test_any_file_system_of_tensorflow(tiny_videos: Path) -> None:
    folder = make(tiny_videos, "ram://shards/tiny", num_shards=2, short_side=16)
    from kvideo.data.remote import list_remote, open_remote

    videos = read_data(str(folder), listdir=list_remote, opener=open_remote)
    assert len(videos) == 12 and videos.records[0].path.startswith("ram://shards/tiny/train-")
    views = clip_reader(SPEC).views(videos.records[0], Views(2, 1))
    assert views.shape == (2, 4, 16, 16, 3)
    clips, labels = epoch(ShardSource(videos, SPEC, PLAIN))
    assert len(clips) == 12 and set(labels.tolist()) == {0, 1}
    assert not check_videos(videos, opener=open_remote).bad


def test_labels_over_time(tmp_path: Path) -> None:
    for name in "abcd":
        write_video(tmp_path / f"{name}.mp4", drifting(1, ord(name), frames=30), rate=10)
    rows = ["path,label,start,end"]
    rows += [f"{n}.mp4,{label}" for n in "abcd" for label in ("jump,0.5,1.2", "run,1.2,2.5")]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    plan = plan_shards(tmp_path / "list.csv", ShardSettings(), per_frame=True)
    write_shards(plan.shards, plan, prepare(plan, tmp_path / "s"))
    videos = read_data(tmp_path / "s", per_frame=True)
    assert videos.per_frame
    originals = {r.path: r.track for r in read_data(tmp_path / "list.csv", per_frame=True).records}
    times = np.arange(30) / 10
    for record in videos.records:
        name = read_index(str(tmp_path / "s")).find(record.path)[1].name
        expected = originals[str(tmp_path / name)].at(times)
        assert record.track.at(times).tolist() == expected.tolist()
    spec = ClipSpec(40, 10.0, (16, 16))  # longer than the video: it begins at its start
    _, labels = epoch(ShardSource(videos, spec, PLAIN))
    expected[:] = next(iter(originals.values())).at(times)
    assert labels.shape == (4, 40)
    assert (labels[:, :30] == expected).all() and (labels[:, 30:] == -1).all()


# ------------------------------------------------------------------------------ clips of them


def test_clips_are_those_that_the_reader_of_files_gives(shards: Path) -> None:
    """The same moments and the same part of the picture, from TensorFlow's own operations."""
    videos = read_data(shards)
    clips, labels = epoch(source(shards, augmentation=PLAIN, spec=ClipSpec(12, 10.0, (16, 16))))
    reader = clip_reader(ClipSpec(12, 10.0, (16, 16)))
    known = [reader.views(record, Views(1, 1))[0] for record in videos.records]
    order = []
    for clip, label in zip(clips, labels, strict=True):
        differences = [np.abs(clip.astype(int) - other).mean() for other in known]
        order.append(int(np.argmin(differences)))
        assert min(differences) < 6 and videos.records[order[-1]].labels == (label,)
    assert sorted(order) == list(range(12)) != order


class Draws:
    """A generator whose numbers are given."""

    def __init__(self, draws) -> None:
        self.draws = list(draws)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.draws.pop(0)

    def integers(self, low: int, high: int) -> int:
        return low + int(np.floor(self.draws.pop(0) * (high - low)))


@pytest.mark.parametrize("framing", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("crop", ["random_resized", "random", "center"])
def test_windows_are_those_of_numpy(framing: str, crop: str) -> None:
    rng = np.random.default_rng(0)
    augmentation = Augmentation(crop=crop)
    for size in ((16, 24), (40, 40)):
        spec = ClipSpec(2, 10.0, size, framing=framing)
        draw = tf.function(lambda p, d, s=spec: windows.draw_window(p, s, augmentation, d))
        for _ in range(20):
            picture, draws = tuple(rng.integers(12, 90, 2).tolist()), rng.uniform(size=4)
            full, place = draw(tf.constant(picture), tf.constant(draws))
            window = random_window(picture, spec, augmentation, Draws(draws))
            top, left = np.subtract(window.place, window.crop[:2])
            assert tuple(full.numpy()) == window.size
            assert tuple(place.numpy()) == (top, left)


def test_frames_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        frames, rate = int(rng.integers(1, 60)), float(rng.uniform(2, 40))
        spec = ClipSpec(int(rng.integers(1, 12)), float(rng.uniform(2, 40)))
        draw = float(rng.uniform())
        numbers, times, padding = windows.draw_frames(
            tf.constant(frames), tf.constant(rate, tf.float64), spec, tf.constant(draw)
        )
        end = frames / rate
        start = float(np.float32(draw)) * max(0.0, end - spec.span)
        expected = clip_times(np.array(start), end, spec)
        np.testing.assert_allclose(times, expected, rtol=1e-9)
        shown = np.floor((expected + min(1e-3, 0.25 / rate)) * rate).clip(0, frames - 1)
        np.testing.assert_array_equal(numbers, shown)
        np.testing.assert_array_equal(padding, is_padding(start, end, spec))


def test_the_part_of_the_picture_is_cut_out_right() -> None:
    y, x = np.mgrid[:30, :40]
    picture = np.stack([5 * y, 5 * x, 0 * x + 99], -1).astype(np.uint8)
    spec = ClipSpec(1, 10.0, (16, 20))
    window = view_windows((30, 40), spec, 1)[0]
    place = -np.array(window.crop[:2], np.int32)
    clip = windows.cut(tf.constant(picture[None]), window.size, tf.constant(place), spec.size)[
        0
    ].numpy()
    scale = 30 / window.size[0]
    rows = 5 * ((np.arange(16) + window.crop[0] + 0.5) * scale - 0.5)
    np.testing.assert_allclose(clip[..., 10, 0], rows, atol=2)
    assert (clip[..., 2] == 99).all()
    boxed = windows.cut(tf.constant(picture[None]), (12, 16), tf.constant([2, 1]), spec.size)[
        0
    ].numpy()
    assert (boxed[:2] == 127).all() and (boxed[14:] == 127).all() and (boxed[:, :1] == 127).all()
    assert (boxed[2:14, 1:17, 2] == 99).all() and (boxed[:, 17:] == 127).all()


def test_a_run_repeats_resumes_and_is_shared_out(shards: Path) -> None:
    clips, labels = epoch(source(shards, seed=3))
    again, _ = epoch(source(shards, seed=3))
    np.testing.assert_array_equal(clips, again)
    other, _ = epoch(source(shards, seed=3), 1)
    assert not np.array_equal(clips, other)
    rest, rest_labels = epoch(source(shards, seed=3), first_batch=2)
    np.testing.assert_array_equal(clips[8:], rest)
    np.testing.assert_array_equal(labels[8:], rest_labels)
    by_row = source(shards, seed=3, by_file=False)
    shares = [list(by_row.batches(4, epoch=0, share=Share(w, 2, 2))) for w in (0, 1)]
    pieces = [piece for step in range(3) for w in (0, 1) for piece in shares[w][2 * step :][:2]]
    np.testing.assert_array_equal(clips, np.concatenate([piece[0] for piece in pieces]))
    # A last batch that is not full is filled up with clips that do not count.
    filled, marks = zip(*source(shards).batches(5, epoch=0), strict=True)
    assert [len(batch) for batch in filled] == [5, 5, 5]
    assert (np.concatenate(marks) == -1).tolist() == [False] * 12 + [True] * 3


def test_processes_read_their_own_files(shards: Path) -> None:
    said: list[str] = []
    own = source(shards, say=said.append)
    read = []
    for worker in range(3):
        share = Share(worker, 3)
        places = np.fromiter(share.places(6, 0, 2), np.int64)
        read.append(own.rows(places, 6, 0, share))
        assert len(set(read[-1]["file"].tolist())) == 1
    numbers = np.concatenate([rows["number"] for rows in read])
    assert sorted(numbers.tolist()) == list(range(12)) and not said
    share = Share(0, 4)
    own.rows(np.fromiter(share.places(4, 0, 3), np.int64), 4, 0, share)
    own.rows(np.fromiter(share.places(4, 0, 3), np.int64), 4, 1, share)
    assert len(said) == 1 and "3 shards for 4 processes" in said[0]
    order = order_by_file(np.arange(11), np.array([0] * 9 + [1] * 2), 4, 2)
    assert sorted(order.tolist()) == list(range(11))


# ------------------------------------------------------------------------------------- damage


def test_a_shard_cut_in_half(copy: Path) -> None:
    path = copy / "train-00001-of-00003.tfrecord"
    size = path.stat().st_size
    os.truncate(path, size // 2)
    numbered = source(copy)
    (error,) = numbered.failures.errors()
    assert error.path == str(path) and error.reason == "truncated" and "of its 4" in str(error)
    clips, labels = epoch(numbered)
    assert len(clips) == 12 and set(labels.tolist()) == {0, 1}
    files = numbered.rows(np.arange(12), 4, 0, Share())["number"]
    assert len(set(files.tolist())) < 12
    assert len(numbered.failures) == 1  # one warning for the file
    with pytest.raises(DecodeError, match="cut off"):
        source(copy, strict=True)
    report = check_videos(videos_to_check(copy))
    assert {video.reason for video in report.bad} >= {"truncated", "damaged"}
    assert str(path) in {video.path for video in report.bad}


def test_flipped_bytes(copy: Path, shards: Path) -> None:
    path = copy / "train-00002-of-00003.tfrecord"
    index = read_index(str(copy))
    video = index.files[path.name].videos[1]
    data = bytearray(path.read_bytes())
    data[video.offset + video.length // 2] ^= 0xFF
    path.write_bytes(data)
    numbered = source(copy)
    clips, labels = epoch(numbered)
    assert len(clips) == 12 and (labels >= 0).all()
    (error,) = numbered.failures.errors()
    assert error.path == str(path) and error.reason == "damaged" and "record 1" in str(error)
    # The damaged one gave way to another clip of the video before it; all others are as they were.
    whole, _ = epoch(source(shards))
    assert sum(not np.array_equal(a, b) for a, b in zip(clips, whole, strict=True)) == 1
    strict = source(copy, strict=True)
    with pytest.raises(tf.errors.OpError):
        epoch(strict)
    assert isinstance(strict.error, DecodeError)
    report = check_videos(videos_to_check(copy))
    assert [(v.path, v.reason) for v in report.bad] == [
        (f"{path}#1", "damaged"),
        (str(path), "damaged"),
    ]
    with pytest.raises(DecodeError, match="checksum"):
        open_video(f"{path}#1")


def test_bad_paths_and_indices(copy: Path) -> None:
    path = copy / "train-00000-of-00003.tfrecord"
    with pytest.raises(DecodeError, match="no record"):
        open_video(f"{path}#99")
    with pytest.raises(DecodeError):
        open_video(copy / "none.tfrecord#0")
    path.unlink()
    with pytest.raises(DecodeError, match="no file"):
        open_video(f"{path}#0")
    assert source(copy).failures.errors()[0].reason == "missing"
    for text in ("{", "[]", '{"format": "kvideo shards 99"}'):
        (copy / "index.json").write_text(text)
        os.utime(copy / "index.json", ns=(1, len(text)))
        with pytest.raises(DataError):
            read_data(copy)
    for junk in (b"", b"\x12\xff", b"\x08\x01" * 3, b"\x13\x00", os.urandom(64)):
        with pytest.raises(ValueError):
            encoded_frames(junk)


# ------------------------------------------------------------------------------------ commands


def test_fit_evaluate_and_predict_on_shards(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    common = ["-m", "single_frame", "--set", "widths=[4]", "--size", "16", "--batch-size", "4"]
    done = run("fit", str(copy), *common, "--epochs", "1", "--out", str(folder))
    assert done.exit_code == 0, done.output
    done = run("evaluate", str(folder / "model.keras"), str(copy), "--clips", "1", "--json")
    assert done.exit_code == 0 and len(json.loads(done.stdout)["videos"]) == 12, done.output
    done = run("predict", str(folder / "model.keras"), str(copy), "--json")
    assert done.exit_code == 0 and done.stdout.count(".tfrecord#") == 12
    assert run("check", str(copy)).exit_code == 0


def test_what_a_killed_process_left_is_no_hindrance(tiny_videos: Path, tmp_path: Path) -> None:
    out = make(tiny_videos, tmp_path / "s", num_shards=3)
    name = next(out.glob("*.tfrecord")).name
    (out / name).rename(out / f".tmp-0123abcd-99999999-0123abcd-{name}")  # not finished
    done = run("shard", str(tiny_videos), str(out), "--num-shards", "3")
    assert done.exit_code == 0 and "1 file made, 2 there already" in done.output, done.output
    assert len(list(out.glob("train-*.tfrecord"))) == 3


def test_the_loader_that_is_measured_reads_files(shards: Path) -> None:
    done = run("benchmark", "loader", str(shards), "--seconds", "0.1")
    assert done.exit_code == 2 and "holds shards; the stages" in done.output


def test_one_dispatcher_for_a_journal(tmp_path: Path) -> None:
    ports = free_ports(2)
    server, folder = start_dispatcher(ports[0], tmp_path / "journal")
    with pytest.raises(KVideoError, match="another dispatcher writes its journal to"):
        start_dispatcher(ports[1], folder)
    stop(server)


def test_a_data_service_is_for_shards(tiny_videos: Path, tmp_path: Path) -> None:
    common = ["-m", "single_frame", "--set", "widths=[4]", "--size", "16", "--epochs", "1"]
    out = ["--out", str(tmp_path / "run"), "--data-service", "grpc://localhost:1"]
    done = run("fit", str(tiny_videos), *common, *out)
    assert done.exit_code == 2 and "kvideo shard" in done.output
    done = run("serve-data")
    assert done.exit_code == 2 and "--dispatcher or --worker" in done.output


def kill_first(title: str, stop: threading.Event) -> list[int]:
    """Kills the first process of that title that comes; the numbers of those killed."""
    while not stop.wait(0.002):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(title.encode()):
                    os.kill(number := int(path.parent.name), signal.SIGKILL)
                    return [number]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_ray(tiny_videos: Path, tmp_path: Path, lost: bool) -> None:
    """One file a task; a task whose process is killed is done again."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    stop = threading.Event()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with ThreadPoolExecutor() as pool:
            killed = pool.submit(kill_first, "ray::_make", stop) if lost else None
            done = run("shard", str(tiny_videos), str(tmp_path / "r"), "--num-shards", "3", "--ray")
            stop.set()
    finally:
        ray.shutdown()
    assert done.exit_code == 0, done.output
    assert killed is None or len(killed.result()) == 1
    make(tiny_videos, tmp_path / "s", num_shards=3)
    for path in (tmp_path / "s").iterdir():
        assert path.read_bytes() == (tmp_path / "r" / path.name).read_bytes()
