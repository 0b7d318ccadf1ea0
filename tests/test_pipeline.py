"""From records to batches: shapes, order, repetition, failures, views, timelines, memory."""

import dataclasses
import itertools
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import drifting, write_video

from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.annotations import VideoRecord, VideoSet, read_data
from kvideo.data.clip_reader import GREY, ClipReader, iterate_views
from kvideo.data.decode import open_video
from kvideo.data.epochs import balanced_order, epoch_order
from kvideo.data.failures import Failures
from kvideo.data.pipeline import VideoSource, batches, class_counts, clip_dataset, clip_reader
from kvideo.data.sampling import Augmentation, view_windows
from kvideo.data.shares import Share
from kvideo.data.threads import ordered_map
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import DataError, DecodeError, UnknownNameError

SPEC = ClipSpec(4, 10.0, (16, 16))
PLAIN = Augmentation(crop="center", flip=False, brightness=0, contrast=0, saturation=0)


@pytest.fixture
def videos(tiny_videos: Path) -> VideoSet:
    return read_data(tiny_videos)


def training_clips(videos: VideoSet, spec: ClipSpec = SPEC, **options) -> TrainingClips:
    augmentation = options.pop("augmentation", Augmentation(flip=False))
    return TrainingClips(videos, clip_reader(spec), augmentation, **options)


def one_epoch(clips: TrainingClips, batch_size: int, epoch: int = 0) -> tf.data.Dataset:
    return batches(clips, batch_size, lambda: (epoch, None))


def full_batches(clips: TrainingClips, batch_size: int, **options: Any) -> tf.data.Dataset:
    return VideoSource(clips).batches(batch_size, **{"epoch": 0, **options})


def pixels(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([clips.numpy() for clips, _ in dataset])


def labels_of(dataset: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([labels.numpy() for _, labels in dataset])


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("kvideo-decode")]


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- batches ---------------------------------------------------------------------------------------


def test_batches_have_their_shapes_and_every_video_once(videos) -> None:
    dataset = full_batches(training_clips(videos), 4)
    clips_spec, labels_spec = dataset.element_spec
    assert clips_spec.shape == (4, *SPEC.shape) and clips_spec.dtype == tf.uint8
    assert labels_spec.shape == (4,) and labels_spec.dtype == tf.int32
    assert len(list(dataset)) == 3
    np.testing.assert_array_equal(np.bincount(labels_of(dataset)), [6, 6])
    assert len(set(map(bytes, pixels(dataset)))) == 12


def test_the_last_batch_stays_short_or_is_filled_up(videos) -> None:
    sizes, labels = {}, {}
    for fill in (True, False):
        dataset = (full_batches if fill else one_epoch)(training_clips(videos), 5)
        sizes[fill] = [len(clips) for clips, _ in dataset]
        labels[fill] = labels_of(dataset)
    assert sizes == {True: [5, 5, 5], False: [5, 5, 2]}
    np.testing.assert_array_equal(labels[True], [*labels[False], -1, -1, -1])


def test_the_shares_of_processes_and_devices_are_the_rows_of_the_batches(videos) -> None:
    whole = [clips.numpy() for clips, _ in full_batches(training_clips(videos), 8)]
    labels = labels_of(full_batches(training_clips(videos), 8))
    for workers, pieces in ((2, 1), (1, 2), (2, 2), (4, 1)):
        shares = [Share(worker, workers, pieces) for worker in range(workers)]
        parts = [[*full_batches(training_clips(videos), 8, share=share)] for share in shares]
        rows: list[Any] = []
        for step in range(len(whole)):
            for part in parts:
                rows += part[step * pieces : (step + 1) * pieces]
        np.testing.assert_array_equal(
            np.concatenate([clips.numpy() for clips, _ in rows]), np.concatenate(whole)
        )
        np.testing.assert_array_equal(np.concatenate([one.numpy() for _, one in rows]), labels)


def test_balanced_epochs_have_as_many_of_each_class() -> None:
    labels = [(0,)] * 50 + [(1,)] * 7 + [(3,)] * 2 + [(1, 3)]
    seen = np.zeros(60, int)
    for epoch in range(12):
        order = balanced_order(labels, 4, epoch)
        assert len(order) == 60
        counts = np.bincount(order, minlength=60)
        seen += counts
        assert counts[:50].sum() == 20 and counts[:50].max() == 1  # a large class: no one twice
        assert counts[50:57].sum() + counts[57:59].sum() + counts[59] == 40
        assert 2 <= counts[50:57].min() and counts[50:57].max() <= 3  # 20 draws of 8 records
        assert counts[57:59].min() >= 6  # 20 draws of 3 records
        np.testing.assert_array_equal(order, balanced_order(labels, 4, epoch))
    assert (seen[:50] > 0).all() and seen[:50].max() <= 11
    assert not np.array_equal(balanced_order(labels, 4, 0), balanced_order(labels, 4, 1))
    assert not np.array_equal(balanced_order(labels, 4, 0), balanced_order(labels, 5, 0))
    # More classes than places: as many of them as there is room for.
    assert len(balanced_order([(0, 1, 2), (3, 4)], 0, 0)) == 2


def test_balanced_batches_take_small_classes_again(videos) -> None:
    few = [r for r in videos.records if r.labels == (1,)][:2]
    uneven = dataclasses.replace(videos, records=(*videos.records[:6], *few))
    clips = training_clips(uneven, sampling="balanced")
    np.testing.assert_array_equal(np.bincount(labels_of(one_epoch(clips, 4))), [4, 4])


class CountedDecoder:
    """`open_video`, and how many files it has opened."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self, path: str, **options: Any) -> Any:
        self.opened += 1
        return open_video(path, **options)


def test_several_clips_of_a_video_come_from_one_opening(videos) -> None:
    decoder = CountedDecoder()
    reader = ClipReader(SPEC, decoder)
    clips = TrainingClips(videos, reader, Augmentation(), seed=2, repeats=3)
    assert clips.num_clips == 36
    several = list(clips.epoch(1))
    assert decoder.opened == 12 and len(several) == 36
    rows = [clip for clip, _, _ in several]
    assert len(set(map(bytes, rows))) == 36  # all of them differ
    order = clips.order(1)
    assert [label for _, label, _ in several] == [
        videos.records[index].labels[0] for index in order.repeat(3)
    ]
    # Each is what the video gives for its own place, wherever reading begins.
    for place in (0, 4, 35):
        rng = np.random.default_rng([2, 1, place, 0])
        record = videos.records[order[place // 3]]
        np.testing.assert_array_equal(
            rows[place], reader.training_clip(record, Augmentation(), rng)
        )
    resumed = [clip for clip, _, _ in clips.epoch(1, range(7, 20))]
    np.testing.assert_array_equal(resumed, rows[7:20])
    filled = labels_of(full_batches(clips, 16))
    assert len(filled) == 48 and (filled[36:] == -1).all() and (filled[:36] >= 0).all()


def test_a_video_that_fails_is_replaced_in_all_of_its_clips(videos, tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    records = (VideoRecord(str(broken), (0,)), *videos.records[:3])
    clips = training_clips(dataclasses.replace(videos, records=records), repeats=2)
    several = list(clips.epoch(0))
    assert len(several) == 8 and len(clips.failures) == 1
    for first, second in zip(several[::2], several[1::2], strict=True):
        assert first[1] == second[1] and not np.array_equal(first[0], second[0])


def test_labels_belong_to_their_clips(videos) -> None:
    """The textures of class "left" move left: every clip's motion tells its label."""
    for clips, labels in one_epoch(training_clips(videos, augmentation=PLAIN), 4):
        for clip, label in zip(clips.numpy().astype(float), labels.numpy(), strict=True):
            errors = [
                np.abs(np.roll(clip[0], shift, axis=1)[:, 3:-3] - clip[1][:, 3:-3]).mean()
                for shift in (-1, 1)
            ]
            assert int(np.argmin(errors)) == label


def test_multi_label_sets_give_rows_of_zeros_and_ones(videos) -> None:
    records = tuple(
        VideoRecord(record.path, (0, 2) if index % 2 else (1,))
        for index, record in enumerate(videos.records)
    )
    several = VideoSet(records, ("a", "b", "c"), multi_label=True)
    labels = labels_of(one_epoch(training_clips(several), 4))
    assert labels.dtype == np.float32 and labels.shape == (12, 3)
    np.testing.assert_array_equal(labels.sum(axis=0), [6, 6, 6])
    assert {tuple(row) for row in labels} == {(1, 0, 1), (0, 1, 0)}
    np.testing.assert_array_equal(class_counts(several), [6, 6, 6])


def test_the_number_of_workers_changes_nothing(videos) -> None:
    results = [
        one_epoch(training_clips(videos, augmentation=Augmentation(), seed=3, workers=workers), 4)
        for workers in (1, 2, 5)
    ]
    first = pixels(results[0])
    for other in results[1:]:
        np.testing.assert_array_equal(pixels(other), first)
        np.testing.assert_array_equal(labels_of(other), labels_of(results[0]))
    np.testing.assert_array_equal(pixels(results[0]), first)  # iterated once more


def test_another_epoch_or_seed_gives_other_clips_in_another_order(videos) -> None:
    one, two = (one_epoch(training_clips(videos), 4, epoch=epoch) for epoch in (0, 1))
    other = one_epoch(training_clips(videos, seed=1), 4)
    seen = [pixels(dataset) for dataset in (one, two, other)]
    for a, b in itertools.combinations(seen, 2):
        assert not np.array_equal(a, b)
        # Not only the order: the clips of an epoch are other parts of the videos.
        assert len(set(map(bytes, a)) & set(map(bytes, b))) < 3
    np.testing.assert_array_equal(np.sort(epoch_order(9, 0, 1)), np.arange(9))
    assert not np.array_equal(epoch_order(9, 0, 1), epoch_order(9, 0, 2))


def test_resuming_inside_an_epoch_gives_its_tail(videos) -> None:
    def make(first: int) -> tf.data.Dataset:
        clips = training_clips(videos, augmentation=Augmentation(), seed=5)
        return full_batches(clips, 4, epoch=2, first_batch=first)

    whole = pixels(make(0))
    for first in (1, 2):
        np.testing.assert_array_equal(pixels(make(first)), whole[4 * first :])


def test_a_source_has_one_dataset_for_all_epochs(videos) -> None:
    source = VideoSource(training_clips(videos))
    first = source.batches(4, epoch=0)
    seen = pixels(first)
    second = source.batches(4, epoch=1)
    assert second is first and not np.array_equal(pixels(second), seen)
    np.testing.assert_array_equal(pixels(source.batches(4, epoch=0, first_batch=1)), seen[4:])


def test_one_change_for_all_frames_of_a_clip(tmp_path: Path) -> None:
    """On real pixels: the frames of a video that stands still stay equal to each other."""
    still = np.repeat(drifting(0, 1)[:1], 12, axis=0)
    for name in "ab":
        write_video(tmp_path / "still" / name / "1.mp4", still)
    videos = read_data(tmp_path / "still")
    clips = pixels(one_epoch(training_clips(videos, augmentation=Augmentation()), 2)).astype(int)
    for clip in clips:
        assert np.abs(clip - clip[:1]).max() <= 3  # what the codec's later pictures add
    assert np.abs(clips[0] - clips[1]).mean() > 5  # the two clips are changed differently


def test_letterboxed_clips_are_grey_around_the_picture(tmp_path: Path) -> None:
    wide = np.full((10, 24, 48, 3), 250, np.uint8)
    path = write_video(tmp_path / "wide.mp4", wide)
    spec = SPEC.replace(framing="letterbox")
    reader = clip_reader(spec)
    (clip,) = reader.views(VideoRecord(str(path)), Views(1, 3))
    assert clip.shape == spec.shape
    assert (clip[:, :4] == GREY).all() and (clip[:, 12:] == GREY).all()
    assert (clip[:, 4:12] > 240).all()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        clip = reader.training_clip(VideoRecord(str(path)), Augmentation(min_area=0.25), rng)
        white = (clip > 240).all(axis=(0, 3))
        assert ((clip == GREY).all(axis=(0, 3)) | white).all()
        rows, columns = white.any(axis=1).sum(), white.any(axis=0).sum()
        assert white.sum() == rows * columns and abs(columns - 2 * rows) <= 1
        assert 8 <= columns <= 16


def test_clip_dataset_is_a_new_epoch_each_time(tiny_videos, videos) -> None:
    dataset = clip_dataset(tiny_videos, SPEC, batch_size=5, seed=2)
    assert int(dataset.cardinality()) == 3
    one, two = pixels(dataset), pixels(dataset)
    assert one.shape == two.shape == (12, *SPEC.shape) and not np.array_equal(one, two)
    again = clip_dataset(videos, SPEC, batch_size=5, seed=2, workers=1)
    np.testing.assert_array_equal(pixels(again), one)
    np.testing.assert_array_equal(pixels(again), two)


def test_clip_dataset_refuses_what_it_cannot_use(tiny_videos, videos) -> None:
    unlabelled = VideoSet(tuple(VideoRecord(r.path) for r in videos.records), ("a", "b"))
    with pytest.raises(DataError, match="no labelled videos"):
        clip_dataset(unlabelled, SPEC)
    with pytest.raises(UnknownNameError, match='no decoder "pyavv". Did you mean "pyav"'):
        clip_dataset(tiny_videos, SPEC, decoder="pyavv")


def test_videos_without_labels_are_left_out_of_a_dataset(videos) -> None:
    records = tuple(
        VideoRecord(record.path, record.labels if index else ())
        for index, record in enumerate(videos.records)
    )
    mixed = VideoSet(records, videos.class_names)
    labels = labels_of(clip_dataset(mixed, SPEC, batch_size=4))
    np.testing.assert_array_equal(np.bincount(labels), [5, 6])


# -- videos that fail ------------------------------------------------------------------------------


@pytest.fixture
def with_bad_ones(tiny_videos: Path, tmp_path: Path) -> VideoSet:
    shutil.copytree(tiny_videos, tmp_path / "data")
    for name in ("left/b1.mp4", "left/b2.mp4", "right/b3.mp4"):
        (tmp_path / "data" / name).write_bytes(b"this is no video")
    (tmp_path / "data" / "right" / "empty.mp4").write_bytes(b"")
    return read_data(tmp_path / "data")


def test_failures_are_replaced_and_counted_by_reason(with_bad_ones) -> None:
    assert len(with_bad_ones) == 16
    clips = training_clips(with_bad_ones, workers=3)
    dataset = one_epoch(clips, 4)
    first = pixels(dataset)
    assert first.shape == (16, *SPEC.shape)
    reasons = sorted(error.reason for error in clips.failures.errors())
    assert reasons == ["empty", "unreadable", "unreadable", "unreadable"]
    summary = clips.failures.summary()
    assert summary.startswith("4 videos could not be read (3 unreadable, 1 empty):")
    assert all(name in summary for name in ("b1.mp4", "b2.mp4", "b3.mp4", "empty.mp4"))
    assert "kvideo check" in clips.failures.summary(limit=2)
    np.testing.assert_array_equal(pixels(dataset), first)
    assert len(clips.failures) == 4  # a file counts once, however often it fails
    other = training_clips(with_bad_ones, workers=1)
    np.testing.assert_array_equal(pixels(one_epoch(other, 4)), first)


def test_strict_stops_at_the_first_failure(with_bad_ones) -> None:
    clips = training_clips(with_bad_ones, strict=True)
    with pytest.raises(DecodeError, match=r"(b\d|empty)\.mp4"):
        list(clips.epoch(0))
    assert isinstance(clips.error, DecodeError)
    clips.error = None
    with pytest.raises(tf.errors.OpError):
        list(one_epoch(clips, 4))
    assert isinstance(clips.error, DecodeError)  # for whoever wants it as it was
    with pytest.raises(tf.errors.OpError, match=r"(b\d|empty)\.mp4"):
        list(clip_dataset(with_bad_ones, SPEC, strict=True))


def test_nothing_but_failures_is_an_error(with_bad_ones) -> None:
    bad = with_bad_ones.select(
        index for index, r in enumerate(with_bad_ones.records) if Path(r.path).stem[0] in "be"
    )
    assert len(bad) == 4
    with pytest.raises(
        DataError, match=r"no video could be read in 20 attempts.*[^.]\. `kvideo check`"
    ):
        list(training_clips(bad).epoch(0))


def test_a_part_behind_the_end_is_too_short(videos) -> None:
    record = VideoRecord(videos.records[0].path, (0,), start=50.0, end=60.0)
    with pytest.raises(DecodeError, match="from 50.0 to 60.0 s lies outside") as caught:
        clip_reader(SPEC).views(record, Views(2, 1))
    assert caught.value.reason == "too_short" and caught.value.path == record.path


def test_failures_of_many_threads(videos) -> None:
    failures = Failures()
    errors = [DecodeError(f"{n % 10}.mp4", "empty", "no bytes") for n in range(200)]
    list(ordered_map(failures.add, errors, 8, 16))
    assert len(failures) == 10 and failures.summary(limit=0).startswith("10 videos")
    assert Failures().summary() == ""


# -- views and timelines ---------------------------------------------------------------------------


def test_views_are_clips_by_crops_from_one_decode(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", drifting(2, 1, side=64)[:, :32])
    record, opened = VideoRecord(str(path)), []

    def counting(*arguments, **options):
        opened.append(arguments)
        return open_video(*arguments, **options)

    reader = ClipReader(SPEC, counting)
    views = reader.views(record, Views(3, 3))
    assert len(opened) == 1 and views.shape == (9, *SPEC.shape)
    centre = reader.views(record, Views(3, 1))
    # The crops of one clip are neighbours; the middle one is the centre crop.
    np.testing.assert_array_equal(views[1::3], centre)
    with open_video(str(path)) as file:
        window = view_windows((32, 64), SPEC, 3)[2]
        top, left, height, width = window.crop
        frames = file.read([0.0, 0.1, 0.2, 0.3], size=window.size)
    np.testing.assert_array_equal(views[2], frames[:, top : top + height, left : left + width])


def test_views_of_many_videos_come_in_their_order(with_bad_ones) -> None:
    reader, views = clip_reader(SPEC), Views(2, 1)
    results = list(iterate_views(with_bad_ones.records, reader, views, 4))
    assert len(results) == 16
    for record, result in zip(with_bad_ones.records, results, strict=True):
        if isinstance(result, DecodeError):
            assert result.path == record.path and Path(record.path).stem[0] in "be"
        else:
            np.testing.assert_array_equal(result, reader.views(record, views))
    assert sum(isinstance(result, DecodeError) for result in results) == 4


@pytest.mark.parametrize(("start", "end"), [(None, None), (0.3, None), (0.25, 1.0)])
def test_a_timeline_is_the_clips_one_by_one(tmp_path: Path, start, end) -> None:
    path = write_video(tmp_path / "long.mp4", drifting(2, 4, frames=60))  # 6 s: blocks of 16 clips
    record, reader, step = VideoRecord(str(path), start=start, end=end), clip_reader(SPEC), 0.25
    centres = reader.timeline(record, step)
    clips = list(reader.clips_around(record, centres))
    assert all(len(block) <= 16 for block in clips)
    assert len(clips) > 1 or end is not None
    together = np.concatenate(clips)
    assert together.shape == (len(centres), *SPEC.shape)
    first, last = start or 0.0, end or 6.0
    np.testing.assert_allclose(centres, first + 0.2 + step * np.arange(len(centres)))
    assert centres[-1] + 0.2 <= last + 1e-6 < centres[-1] + 0.2 + step + 1e-6
    window = view_windows((32, 32), SPEC, 1)[0]
    for centre, clip in zip(centres, together, strict=True):
        with open_video(str(path)) as file:
            times = np.minimum(centre - 0.2 + np.arange(4) / 10, last - 0.002)
            frames = file.read(times, size=window.size, crop=window.crop)
        np.testing.assert_array_equal(clip, frames)


def test_a_timeline_of_a_video_shorter_than_a_clip(videos) -> None:
    reader = clip_reader(ClipSpec(40, 10.0, (16, 16)))
    centres = reader.timeline(videos.records[0], 1.0)
    (block,) = reader.clips_around(videos.records[0], centres)
    np.testing.assert_allclose(centres, [0.6])
    assert block.shape == (1, 40, 16, 16, 3)
    assert (block[0, 12:] == block[0, 11]).all() and (block[0, 0] != block[0, 11]).any()


def test_thumbnails_are_whole_pictures(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", drifting(2, 1, side=64)[:, :32])
    pictures = clip_reader(SPEC).thumbnails(VideoRecord(str(path)), count=3, side=40)
    assert pictures.shape == (3, 20, 40, 3) and pictures.dtype == np.uint8


def test_remote_paths_go_through_the_opener(videos) -> None:
    asked = []

    def opener(path: str):
        asked.append(path)
        return open(path.removeprefix("mem://"), "rb")

    local = videos.records[0].path
    reader = ClipReader(SPEC, open_video, opener)
    there = reader.views(VideoRecord(f"mem://{local}"), Views(1, 1))
    assert asked == [f"mem://{local}"]
    np.testing.assert_array_equal(there, reader.views(VideoRecord(local), Views(1, 1)))
    assert len(asked) == 1  # a plain path is the system's


# -- the pool --------------------------------------------------------------------------------------


def test_results_come_in_order_whatever_takes_longer() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return item * item

    assert list(ordered_map(slow_first, range(20), 4, 8)) == [n * n for n in range(20)]
    assert list(ordered_map(slow_first, [], 4, 8)) == []


def test_no_more_results_wait_than_asked_for() -> None:
    taken, most, lock = 0, 0, threading.Lock()

    def work(item: int) -> int:
        nonlocal most
        with lock:
            most = max(most, item - taken)
        return item

    for ahead in (1, 3, 7):
        taken = most = 0
        for item in ordered_map(work, range(50), 3, ahead):
            time.sleep(0.002)  # the pool runs ahead as far as it may
            assert item == taken
            taken += 1
        assert most <= ahead
    assert most > 1


def test_an_endless_stream_is_taken_lazily() -> None:
    results = ordered_map(lambda item: item, itertools.count(), 2, 4)
    assert [next(results) for _ in range(100)] == list(range(100))
    results.close()


def test_an_error_appears_at_its_place() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise DecodeError("3.mp4", "empty", "no bytes")
        return item

    results, seen = ordered_map(work, range(10), 4, 8), []
    with pytest.raises(DecodeError, match=r"3\.mp4"):
        seen.extend(results)
    assert seen == [0, 1, 2] and not decoding_threads()


def test_an_iterator_closed_early_leaves_no_threads(videos) -> None:
    wait_until(lambda: not decoding_threads())
    clips = training_clips(videos, workers=3).epoch(0)
    next(clips)
    assert decoding_threads()
    clips.close()
    assert not decoding_threads()
    views = iterate_views(videos.records, clip_reader(SPEC), Views(2, 1), 3)
    next(views)
    views.close()
    assert not decoding_threads()


def test_a_dataset_dropped_early_leaves_no_threads(videos) -> None:
    iterator = iter(one_epoch(training_clips(videos, workers=3), 2))
    next(iterator)
    del iterator
    wait_until(lambda: not decoding_threads())
