"""The demo data: only the order of the frames tells the class; files appear whole or not at all."""

import csv
import dataclasses
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kvideo.data import demo, demo_dots, demo_sequences
from kvideo.data.annotations import find_splits, read_data
from kvideo.data.check import videos_to_check
from kvideo.data.decode import open_video
from kvideo.data.demo import SETTINGS, demo_data, demo_folder
from kvideo.data.records import mirrored_classes
from kvideo.data.textures import DIRECTIONS, DemoSettings, Texture, make_orbit
from kvideo.errors import DataError, UsageError

SMALL = dataclasses.replace(
    SETTINGS, train=2, val=1, untrimmed=(1, 1), untrimmed_seconds=(6.0, 7.0)
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "SETTINGS", SMALL)
    return SMALL


def gray(path):
    """All frames of a file, (T, H, W) uint8."""
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])


# ------------------------------------------------------------------------- what is written


def test_layout_and_records(small, tmp_path):
    train, val = (demo_data(split, folder=tmp_path) for split in ("train", "val"))
    assert train.class_names == val.class_names == tuple(sorted(DIRECTIONS))
    assert train.class_counts().tolist() == [2] * 6 and val.class_counts().tolist() == [1] * 6
    assert not train.flip_safe and not train.multi_label
    for record in train.records + val.records:
        assert os.path.isabs(record.path)
        assert os.path.basename(os.path.dirname(record.path)) == train.class_names[record.labels[0]]
    # A texture is a group, which all classes share.
    assert {r.group for r in train.records} == {"train/000", "train/001"}
    top = demo_folder(tmp_path)
    assert sorted(p.name for p in top.iterdir()) == ["demo.json", "train", "untrimmed", "val"]
    as_folder = read_data(top)
    assert len(as_folder) == 12 and not as_folder.flip_safe
    with av.open(train.records[0].path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 96, 96)
        assert float(stream.average_rate) == SMALL.frame_rate
        assert stream.frames == SMALL.num_frames == 43


def test_untrimmed_videos_and_their_annotations(small, tmp_path):
    videos = demo_data("untrimmed", folder=tmp_path)
    top = demo_folder(tmp_path) / "untrimmed"
    document = json.loads((top / "annotations.json").read_text())
    assert set(document) == {"version", "taxonomy", "database"}
    assert {v["subset"] for v in document["database"].values()} == {"training", "validation"}
    found = []
    for name, video in document["database"].items():
        with av.open(str(top / f"{name}.mp4")) as container:
            stream = container.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(video["duration"])
        end = 0.0
        for annotation in video["annotations"]:
            start, stop = annotation["segment"]
            assert end < start < stop < video["duration"]  # background before and after
            end = stop
            found.append((f"{name}.mp4", start, stop, annotation["label"]))
    records = [
        (os.path.basename(r.path), r.start, r.end, videos.class_names[r.labels[0]])
        for r in videos.records
    ]
    assert [r[0::3] for r in records] == [f[0::3] for f in found] and found
    assert np.allclose([r[1:3] for r in records], [f[1:3] for f in found], atol=1e-4)
    with open(top / "segments.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found)
    assert len(read_data(top / "segments.csv", split="all")) == len(found)


def test_untrimmed_segments_move_as_labelled(small, tmp_path):
    videos = demo_data("untrimmed", folder=tmp_path)
    for record in videos.records:
        first, last = (round(t * SMALL.frame_rate) for t in (record.start, record.end))
        assert_moves(gray(record.path)[first:last], videos.class_names[record.labels[0]])
    frames = gray(videos.records[0].path)
    first = round(videos.records[0].start * SMALL.frame_rate)
    velocity, coherence = motion(frames[:first])
    assert coherence < 0.3 or np.hypot(*velocity) < 0.2  # boiling, or still


def motion(frames):
    """Velocity (right, up) in pixels a frame by least squares, and how well it explains change."""
    frames = frames.astype(np.float32)
    middle = (frames[1:] + frames[:-1]) / 2
    change = np.diff(frames, axis=0)
    gradients = np.stack([np.gradient(middle, axis=2), -np.gradient(middle, axis=1)])
    gradients = gradients.reshape(2, -1)
    velocity = -np.linalg.solve(gradients @ gradients.T, gradients @ change.ravel())
    explained = velocity @ gradients
    return velocity, 1 - np.var(change.ravel() + explained) / max(np.var(change), 1e-9)


def assert_moves(frames, name):
    velocity, _ = motion(frames)
    angle = math.radians(DIRECTIONS[name])
    along = velocity @ [math.cos(angle), math.sin(angle)]
    assert along > 0.95 * np.hypot(*velocity), name
    low, high = SETTINGS.step
    assert 0.7 * low < along < 1.2 * high, name


def test_directions_are_as_named(small, tmp_path):
    videos = demo_data("train", folder=tmp_path)
    for record in videos.records:
        assert_moves(gray(record.path), videos.class_names[record.labels[0]])


@pytest.mark.parametrize("orbit", [(1, 6), (6, 1), (4, 5), (2, 3)])
def test_a_walk_in_any_direction_comes_past_every_place_once(orbit):
    settings = DemoSettings(orbit=orbit, size=16, waves=2)
    texture = Texture(settings, np.random.default_rng(1))
    count = settings.num_frames
    for degrees in DIRECTIONS.values():
        order = texture.order(degrees)
        assert sorted(order) == list(range(count)) and order[0] == 0
        walk = texture.phases + np.arange(count)[:, None] * texture.drift(degrees)
        assert np.allclose(np.exp(1j * walk), np.exp(1j * texture.places()[order]))


def test_periodic_waves_fit_the_coarser_lattice():
    orbit = make_orbit(1, 6, (3.2, 9.0))
    right, up_right = np.array([1, 0]), np.array([0.5, -math.sqrt(3) / 2])
    turns = (right + 6 * up_right) @ orbit.vectors / (2 * np.pi)
    assert np.allclose(turns, np.rint(turns)) and orbit.vectors.shape == (2, 6)


# ------------------------------------------------------------ only the order tells the class


def test_six_videos_of_a_texture_hold_the_same_pictures(small, tmp_path):
    videos = demo_data("train", folder=tmp_path)
    for group in ("train/000", "train/001"):
        paths = [r.path for r in videos.records if r.group == group]
        pictures = [gray(path) for path in paths]
        digests = [[hashlib.sha256(frame).digest() for frame in video] for video in pictures]
        assert len({tuple(sorted(d)) for d in digests}) == 1  # the same set
        assert len(set(digests[0])) == SMALL.num_frames  # each picture once
        assert len({tuple(d) for d in digests}) == 6  # in six orders
        assert len({d[0] for d in digests}) == 1  # from the same one on
        assert len({os.path.getsize(path) for path in paths}) == 1  # nor does the size tell


def orientations(frames):
    """Histogram of gradient orientations of each frame, (T, 12)."""
    dy, dx = np.gradient(frames.astype(np.float32), axis=(1, 2))
    bins = (np.arctan2(dy, dx) % np.pi / np.pi * 12).astype(int) % 12
    size = np.hypot(dx, dy)
    counts = np.stack([np.sum(size * (bins == b), axis=(1, 2)) for b in range(12)], axis=1)
    return counts / counts.sum(axis=1, keepdims=True)


def features(frames):
    """What a classifier may look at: one frame, the unordered set of frames, or the motion."""
    coarse = frames.reshape(len(frames), 24, 4, 24, 4).mean(axis=(2, 4))
    histograms = orientations(frames[:, ::2, ::2])
    found = {f"pixels of frame {n}": coarse[n].ravel() for n in (0, 1, 14, 42)}
    found |= {f"orientations in frame {n}": histograms[n] for n in (1, 14, 42)}
    ordered = np.sort(coarse, axis=0)
    found |= {
        "set: mean and deviation of every pixel": np.stack([coarse.mean(0), coarse.std(0)]),
        "set: sorted values of every pixel": ordered[::6, ::3, ::3],
        "set: mean orientations": histograms.mean(axis=0),
        "set: orientations in the mean": orientations(coarse.mean(axis=0)[None]),
        "motion": motion(frames[:, 32:64, 32:64])[0],
    }
    return {name: np.ravel(value) for name, value in found.items()}


def right_answers(train, train_labels, val, val_labels):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return int(np.sum(classifier.fit(train, train_labels).predict(val) == val_labels))


def binomial_bound(count, chance=1 / 6, tail=1e-3):
    """Fewest right answers that guessing reaches with a probability below `tail`."""
    mass = [math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(count + 1)]
    return next(k for k in range(count + 1) if sum(mass[k:]) < tail)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_linear_classifiers_without_the_order_are_at_chance(seed, tmp_path):
    sets = [demo_data(split, folder=tmp_path, seed=seed) for split in ("train", "val")]
    labels = [videos.labels_array() for videos in sets]
    rows = [[features(gray(r.path)) for r in videos.records] for videos in sets]
    assert len(labels[1]) == 72
    bound = binomial_bound(len(labels[1]))  # 24 of 72, where 12 are right on average
    for name in rows[0][0]:
        train, val = (np.stack([row[name] for row in part]) for part in rows)
        right = right_answers(train, labels[0], val, labels[1])
        if name == "motion":
            assert right >= 0.95 * len(labels[1])
        else:
            assert right < bound, f"{name}: {right} of {len(labels[1])}"
            if name.startswith("set"):  # the six videos of a texture cannot be told apart at all
                assert abs(right - 12) <= 1, name

    # So that the above can fail: a faint stain, of 10 grey levels, in a place that tells the class.
    train, val = (np.stack([row["pixels of frame 14"] for row in part]) for part in rows)
    for part, numbers in ((train, labels[0]), (val, labels[1])):
        for label in range(6):
            part[numbers == label, 96 * label : 96 * label + 96] += 10
    assert right_answers(train, labels[0], val, labels[1]) >= bound

    size = sum(p.stat().st_size for p in demo_folder(tmp_path, seed=seed).rglob("*"))
    assert size < 15e6


# ------------------------------------------------------------------------------ safety


def test_the_same_seed_gives_the_same_files(small, tmp_path):
    first, second = demo_folder(tmp_path / "a"), demo_folder(tmp_path / "b")
    other = demo_folder(tmp_path / "a", seed=1)
    assert first.name != other.name
    names = [p.relative_to(first) for p in sorted(first.rglob("*")) if p.is_file()]
    assert len(names) == 18 + 2 + 2 + 1
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
        if name.suffix == ".mp4":
            assert (first / name).read_bytes() != (other / name).read_bytes()


def test_written_once_and_mended_if_damaged(small, tmp_path):
    top = demo_folder(tmp_path)
    stamp = (top / "demo.json").stat().st_mtime_ns
    assert demo_folder(tmp_path) == top and (top / "demo.json").stat().st_mtime_ns == stamp
    victim = top / "val/left/000.mp4"
    data = victim.read_bytes()
    victim.write_bytes(data[:100])
    assert demo_folder(tmp_path) == top and victim.read_bytes() == data
    assert os.listdir(top.parent) == [top.name]


def test_an_interrupted_write_leaves_nothing(small, tmp_path, monkeypatch):
    encode, calls = demo._encode, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return encode(*arguments, **options)

    monkeypatch.setattr(demo, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo_folder(tmp_path)
    assert os.listdir(tmp_path / "demo") == []
    monkeypatch.setattr(demo, "_encode", encode)
    assert len(demo_data("train", folder=tmp_path)) == 12


PROCESS = """
import dataclasses, os, sys
from kvideo.data import demo, demo_sequences
demo.SETTINGS = dataclasses.replace(demo.SETTINGS, train=2, val=1, untrimmed=(1, 1),
                                    untrimmed_seconds=(6.0, 7.0))
if sys.argv[2] == "die":
    demo._write_segments = lambda *arguments: os._exit(9)
print(len(demo.demo_data("train", folder=sys.argv[1])))
"""


@pytest.mark.slow
def test_processes_at_the_same_time_and_one_that_is_killed(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    assert subprocess.run([*command, "die"], check=False).returncode == 9
    assert [name[:5] for name in os.listdir(tmp_path / "demo")] == [".tmp-"]
    running = [subprocess.Popen([*command, "live"], stdout=subprocess.PIPE) for _ in range(3)]
    assert [p.communicate()[0].strip() for p in running] == [b"12"] * 3
    assert [p.returncode for p in running] == [0, 0, 0]
    left = sorted(os.listdir(tmp_path / "demo"))
    assert len(left) == 2 and left[0].startswith(".tmp-")  # younger than six hours
    os.utime(tmp_path / "demo" / left[0], (0, 0))  # an old one is removed at the next write
    (tmp_path / "demo" / left[1] / "demo.json").unlink()
    subprocess.run([*command, "live"], check=True)
    assert os.listdir(tmp_path / "demo") == left[1:]


def test_a_folder_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the demo data to .*KVIDEO_CACHE"):
        demo_folder(tmp_path / "file")


def test_where_it_is_kept(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    assert demo_folder().parent == tmp_path / "cache/demo"
    monkeypatch.delenv("KVIDEO_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert demo_folder().parent == tmp_path / "home/.cache/kvideo/demo"


def test_demo_as_data(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path))
    assert find_splits("demo") == ("train", "val")
    assert [len(read_data("demo", split=s)) for s in (None, "train", "val", "all")] == [
        12,
        12,
        6,
        18,
    ]
    reverse = tuple(reversed(sorted(DIRECTIONS)))
    videos = read_data("demo", class_names=reverse)
    assert videos.class_names == reverse
    assert videos.labels_array().tolist() == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    with pytest.raises(DataError, match="no class 'down_left'"):
        read_data("demo", class_names=("left", "right"))
    with pytest.raises(UsageError, match="no part 'test'"):
        read_data("demo", split="test")
    with pytest.raises(UsageError, match="no variant 'still'"):
        demo_data("train", variant="still")


# ------------------------------------------------------------------------- sequences of motions

TINY_SEQUENCES = dataclasses.replace(demo_sequences.SEQUENCES, train=6, val=4)


@pytest.fixture
def tiny_sequences(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_sequences, "SEQUENCES", TINY_SEQUENCES)
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path))
    return tmp_path


def direction_seen(one, two):
    """The name of the drift from one frame to the next: the one that explains it best, or None."""
    if np.abs(one.astype(int) - two).mean() < 1:
        return None
    errors = {}
    for name, degrees in DIRECTIONS.items():
        unit = np.array([math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))])
        for step in np.arange(2.3, 3.05, 0.1):
            matrix = np.float32([[1, 0, step * unit[0]], [0, 1, step * unit[1]]])
            moved = cv2.warpAffine(one, matrix, one.shape[::-1], flags=cv2.INTER_CUBIC)
            error = np.abs(moved.astype(float) - two)[4:-4, 4:-4].mean()
            errors[name] = min(error, errors.get(name, np.inf))
    return min(errors, key=errors.get)


def test_frames_have_the_labels_of_the_motion_that_led_to_them(tiny_sequences):
    train, val = (read_data("demo-frames", split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 4) and train.per_frame and not train.flip_safe
    assert train.class_names == tuple(sorted(DIRECTIONS)) and train == read_data(
        "demo-frames", per_frame=True
    )
    right = total = 0
    for record in train.records:
        frames = gray(record.path)
        assert frames.shape[1:] == (64, 64)
        segments = record.track.segments
        assert 2 <= len(segments) <= 4 and segments[0].start == 0
        assert all(0.95 <= s.end - s.start <= 2.55 for s in segments)
        assert all(a.label != b.label for a, b in zip(segments, segments[1:], strict=False))
        assert segments[-1].end == pytest.approx(len(frames) / 15, abs=1e-4)
        labels = record.track.fitted(len(frames) / 15, 15, len(frames), lambda: 0).at(
            np.arange(len(frames)) / 15
        )
        for n in range(1, len(frames)):
            seen = direction_seen(frames[n - 1], frames[n])
            right += seen == train.class_names[labels[n]]
            total += 1
    assert right / total > 0.95


def test_the_order_is_the_only_difference(tiny_sequences):
    videos = read_data("demo-order")
    assert videos.class_names == ("down_then_up", "up_then_down") and not videos.flip_safe
    assert mirrored_classes(videos.class_names) is None and not videos.per_frame
    assert videos.class_counts().tolist() == [3, 3]
    by_group = {}
    for record in videos.records:
        by_group.setdefault(record.group, []).append(gray(record.path))
    for one, two in by_group.values():
        assert len(one) == len(two) and 6.5 < len(one) / 15 < 7.6
        np.testing.assert_array_equal(one[0], two[0])  # the same texture
        moves = [[direction_seen(a, b) for a, b in zip(v, v[1:], strict=False)] for v in (one, two)]
        still = [[m is None for m in row] for row in moves]
        assert still[0] == still[1]  # at the same times
        runs = [(k, len(list(g))) for k, g in itertools.groupby(still[0])]
        assert [k for k, _ in runs] == [True, False, True, False, True]
        lead, first, pause, second, tail = (n for _, n in runs)
        assert lead >= 14 and tail >= 15 and pause == 45
        assert 11 <= first <= 15 and 11 <= second <= 15
        for row, names in zip(
            moves, (("down_left", "up_right"), ("up_right", "down_left")), strict=True
        ):
            assert set(row[lead : lead + first]) == {names[0]}
            assert set(row[-tail - second : -tail]) == {names[1]}


def test_words_for_the_sequences(tiny_sequences):
    for word in ("demo-frames", "demo-order"):
        assert find_splits(word) == ("train", "val")
        assert len(read_data(word, split="all")) == 10
        reverse = tuple(reversed(read_data(word).class_names))
        again = read_data(word, class_names=reverse)
        assert again.class_names == reverse
        assert len(videos_to_check(word)) == 10
    first, turned = read_data("demo-frames").records[0], again_first(reverse=True)
    last = len(DIRECTIONS) - 1
    assert [s.label for s in turned.track.segments] == [
        last - s.label for s in first.track.segments
    ]
    assert turned.labels == tuple(last - label for label in first.labels)
    with pytest.raises(DataError, match="demo-order has one label for each video"):
        read_data("demo-order", per_frame=True)
    with pytest.raises(UsageError, match="no part 'untrimmed'; it has train, val"):
        demo_data("untrimmed", variant="order")
    top = demo_folder(variant="order")
    assert sorted(p.name for p in top.iterdir()) == ["demo.json", "train", "val"]
    assert demo_folder(variant="frames") != top
    # The file of segments is an annotation file of its own.
    as_file = read_data(demo_folder(variant="frames") / "segments.csv", per_frame=True)
    assert [r.track.segments for r in as_file.records] == [
        r.track.segments for r in read_data("demo-frames").records
    ]


def again_first(reverse):
    names = sorted(DIRECTIONS, reverse=reverse)
    return read_data("demo-frames", class_names=names).records[0]


def test_sequences_are_the_same_everywhere_and_whole(tiny_sequences, tmp_path):
    for variant in ("frames", "order"):
        one = demo_folder(tmp_path / "one", variant=variant)
        two = demo_folder(tmp_path / "two", variant=variant)
        files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
        assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
        (one / files[-1]).unlink()
        assert demo_folder(tmp_path / "one", variant=variant) == one  # made again
        assert (one / files[-1]).exists()


@pytest.mark.slow
def test_one_second_does_not_tell_the_order(tiny_sequences, monkeypatch):
    """Windows with a motion, by the motion they show: the class is a coin's toss.

    A window's best evidence is the direction it sees, where in it the motion begins and ends, and
    how much stillness there is around it.
    """
    settings = dataclasses.replace(TINY_SEQUENCES, train=60)
    monkeypatch.setattr(demo_sequences, "SEQUENCES", settings)
    rng = np.random.default_rng(0)
    rows, labels, groups = [], [], []
    for record in read_data("demo-order").records:
        frames = gray(record.path)
        seen = [direction_seen(a, b) for a, b in zip(frames, frames[1:], strict=False)]
        step = np.array([{None: 0, "up_right": 1, "down_left": -1}[name] for name in seen])
        for start in rng.integers(0, len(step) - 13, 25):
            rows.append(step[start : start + 14])
            labels.append(record.labels[0])
            groups.append(record.group)
    rows, labels, groups = np.array(rows), np.array(labels), np.array(groups)
    held_out = np.isin(groups, np.unique(groups)[::2])
    tree = RandomForestClassifier(200, random_state=0).fit(rows[~held_out], labels[~held_out])
    assert abs(tree.score(rows[held_out], labels[held_out]) - 0.5) < 0.06


# -- dots ------------------------------------------------------------------------------------------

TINY_DOTS = dataclasses.replace(demo_dots.DOTS, train=3, val=2)


def places(name: str, seed: int, **changes) -> list[np.ndarray]:
    settings = dataclasses.replace(demo_dots.DOTS, **changes)
    return demo_dots.dot_places(name, settings, np.random.default_rng(seed))


def in_picture(dots: np.ndarray, half: float = 32) -> np.ndarray:
    return dots[(np.abs(dots) < half).all(axis=1)]


@pytest.mark.parametrize("name", demo_dots.MOTIONS)
def test_dots_of_one_picture_are_uniform_in_every_class(name):
    """Counts over a grid of 4×4 cells, of one picture of each of many videos, by chi-squared."""
    found = [in_picture(places(name, seed)[seed % 30]) for seed in range(400)]
    cells = np.floor((np.concatenate(found) + 32) / 16).astype(int)
    counts = np.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    expected = counts.sum() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # p = 1e-4 with 15 degrees of freedom
    numbers = [len(dots) for dots in found]
    assert abs(np.mean(numbers) - 55) < 2.5


@pytest.mark.parametrize("name", demo_dots.MOTIONS)
def test_dots_move_as_their_class_says(name):
    """Of the dots that live on, each is a step further."""
    speed = 1.5
    frames = places(name, 3, speed=(speed, speed))
    steps = {"down": (0, speed), "left": (-speed, 0), "right": (speed, 0), "up": (0, -speed)}
    angle = {"turn_left": -speed / 32, "turn_right": speed / 32}.get(name, 0.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for here, there in zip(frames, frames[1:], strict=False):
        expected = here @ turn + steps.get(name, (0, 0))
        nearest = np.abs(expected[:, None] - there).max(axis=2).min(axis=1)
        assert np.mean(nearest < 1e-9) > 0.8  # a tenth dies in each frame


def test_dots_as_data(tmp_path, monkeypatch):
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path))
    monkeypatch.setattr(demo_dots, "DOTS", TINY_DOTS)
    assert find_splits("demo-dots") == ("train", "val")
    videos = read_data("demo-dots")
    assert len(videos) == 18 and videos.class_names == demo_dots.MOTIONS
    assert not videos.flip_safe and len({record.group for record in videos.records}) == 18
    with open_video(videos.records[0].path) as reader:
        frames = np.stack([frame for _, frame in reader.frames()])
    assert frames.shape == (30, 64, 64, 3)
    assert frames.min() < 20 and frames.max() > 220 and 0.05 < (frames > 128).mean() < 0.25
    first = demo_folder(tmp_path / "a", variant="dots")
    second = demo_folder(tmp_path / "b", variant="dots")
    for path in sorted(first.rglob("*.mp4")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
