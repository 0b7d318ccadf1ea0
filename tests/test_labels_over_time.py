"""Labels over time: annotations of every form, files that do not fit them, clips and windows."""

import json
from pathlib import Path

import numpy as np
import pytest
import video_files
from video_files import number_in

from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import find_splits, read_data, split_validation
from kvideo.data.check import check_videos, videos_to_check
from kvideo.data.pipeline import VideoSource, class_shares, clip_dataset, clip_reader
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.sampling import Augmentation, covering_times, is_padding
from kvideo.data.tracks import LabelTrack, Segment
from kvideo.data.training_clips import TrainingClips
from kvideo.data.windows import iterate_blocks
from kvideo.errors import DataError, DecodeError

PLAIN = Augmentation(crop="center", flip=False, brightness=0, contrast=0, saturation=0)
SPEC = ClipSpec(8, 10.0, (64, 96), framing="stretch")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """a.mp4 and b.mp4 of 60 and c.mp4 of 30 numbered frames, 10 a second."""
    folder = tmp_path_factory.mktemp("numbered")
    for name, frames in (("a", 60), ("b", 60), ("c", 30)):
        video_files.write(folder / f"{name}.mp4", rate=10, frames=frames)
    return folder


@pytest.fixture
def data(videos: Path, tmp_path: Path):
    """Writes an annotation file; gives its path."""

    def write(text: str, name: str = "segments.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def segments(record: VideoRecord) -> list[tuple[float, float, int]]:
    return [(s.start, s.end, s.label) for s in record.track.segments]


# -- annotations -----------------------------------------------------------------------------------


def test_rows_of_segments_become_one_record_a_video(videos, data) -> None:
    path = data(
        "path,start,end,label,group,split\n"
        "a.mp4,3,4.5,run,x,train\na.mp4,1,2,swim,x,train\nb.mp4,0,6,run,y,train\n"
        "c.mp4,0,3,swim,z,val\n"
    )
    found = read_data(path, root=videos, per_frame=True)
    assert find_splits(path) == ("train", "val")
    assert found.class_names == ("background", "run", "swim") and found.per_frame
    assert [Path(r.path).name for r in found.records] == ["a.mp4", "b.mp4"]
    assert segments(found.records[0]) == [(1, 2, 2), (3, 4.5, 1)]
    assert found.records[0].labels == (0, 1, 2) and found.records[1].labels == (1,)
    assert found.records[0].group == "x" and found.records[0].start is None
    assert any('class "background", which is number 0' in note for note in found.notes)
    val = read_data(path, root=videos, per_frame=True, split="val", class_names=found.class_names)
    assert segments(val.records[0]) == [(0, 3, 2)]
    # The same rows without per_frame are a record each, as ever.
    plain = read_data(path, root=videos)
    assert len(plain) == 3 and not plain.per_frame and plain.class_names == ("run", "swim")


def test_background_is_added_only_where_there_are_gaps(videos, data) -> None:
    full = data("path,start,end,label\na.mp4,0,2,run\na.mp4,2.001,6,swim\n")
    found = read_data(full, root=videos, per_frame=True)
    assert found.class_names == ("run", "swim") and found.notes == ()
    assert segments(found.records[0]) == [(0, 2.001, 0), (2.001, 6, 1)]  # rounding closed
    named = data("path,start,end,label\na.mp4,1,2,run\na.mp4,3,6,Background\n")
    found = read_data(named, root=videos, per_frame=True)
    assert found.class_names == ("Background", "run") and found.records[0].track.background == 0
    gaps = data("path,start,end,label\na.mp4,1,2,run\n")
    found = read_data(gaps, root=videos, per_frame=True, class_names=("run", "swim"))
    assert found.class_names == ("run", "swim") and found.records[0].track.background == -1
    assert any('no class "background", so they are left out' in note for note in found.notes)


def test_numbers_of_classes_move_up_for_the_background(videos, data, tmp_path) -> None:
    (tmp_path / "classes.txt").write_text("run\nswim\n")
    path = data("path,start,end,label\na.mp4,1,2,0\na.mp4,3,4,1\na.mp4,4,5,1\n")
    found = read_data(path, root=videos, per_frame=True)
    assert found.class_names == ("background", "run", "swim")
    assert segments(found.records[0]) == [(1, 2, 1), (3, 5, 2)]


def test_open_ends_and_equal_neighbours(videos, data) -> None:
    path = data("path,start,end,label\na.mp4,,2,run\na.mp4,2,3,run\na.mp4,3,,swim\n")
    (record,) = read_data(path, root=videos, per_frame=True).records
    assert segments(record) == [(0, 3, 0), (3, float("inf"), 1)]
    assert record.track.fitted(6.0, 10, 60, lambda: 60).segments[-1].end == 6.0


def test_activitynet(videos, data) -> None:
    def video(subset, annotations, duration=6.0):
        return {"subset": subset, "duration": duration, "annotations": annotations}

    one = [{"segment": [1.0, 2.0], "label": "run"}]
    database = {
        "a": video("training", one),
        "b": video("validation", []),
        "gone": video("validation", one),
        "c": video("validation", [{"segment": [0, 3], "label": "swim"}], 3.0),
        "hidden": video("testing", []),
    }
    path = data(json.dumps({"version": "1.3", "database": database}), "net.json")
    assert find_splits(path) == ("train", "val")
    train = read_data(path, root=videos, per_frame=True)
    assert train.class_names == ("background", "run") and len(train) == 1
    both = read_data(path, root=videos, per_frame=True, split="all")
    assert both.class_names == ("background", "run", "swim")
    by_name = {Path(r.path).stem: r for r in both.records}
    assert set(by_name) == {"a", "b", "c"} and both.missing == ("gone",)
    assert by_name["b"].labels == (0,) and by_name["b"].track.segments == ()
    assert by_name["c"].labels == (2,)


def test_activitynets_segments_are_clips_for_other_models(videos, data) -> None:
    """With what lies between them as background, if it lasts a second."""
    segments = [{"segment": [1.5, 2.0], "label": "run"}, {"segment": [0.2, 1.8], "label": "swim"}]
    database = {
        "a": {"subset": "training", "duration": 4.0, "annotations": segments},
        "b": {"subset": "training", "annotations": []},
    }
    path = data(json.dumps({"database": database}), "net.json")
    found = read_data(path, root=videos)
    assert found.class_names == ("background", "run", "swim") and "background" in found.notes[0]
    rows = [(Path(r.path).stem, r.start, r.end, r.labels) for r in found.records]
    assert rows == [
        ("a", 1.5, 2.0, (1,)), ("a", 0.2, 1.8, (2,)), ("a", 2.0, 4.0, (0,)),
    ]  # fmt: skip
    assert {record.group for record in found.records} == {"a"}  # set aside together
    without = read_data(path, root=videos, class_names=["run", "swim"])
    assert [r.labels for r in without.records] == [(0,), (1,)] and not without.notes


def test_wrong_segments_of_activitynets_form_are_left_out(videos, data) -> None:
    """In either reading and when parts are looked for; those of another part are not told."""
    good, bad = {"segment": [1, 2], "label": "run"}, {"segment": [3, 2], "label": "run"}
    database = {
        "a": {"subset": "training", "duration": 4.0, "annotations": [good, bad]},
        "b": {"subset": "training", "duration": 3.0, "annotations": [bad]},
        "c": {"subset": "validation", "duration": 4.0, "annotations": [bad, good]},
    }
    path = data(json.dumps({"database": database}), "net.json")
    assert find_splits(path) == ("train", "val")
    clips = read_data(path, root=videos)
    assert clips.notes[0].startswith("2 segments left out or cut; the first: ")
    assert [(Path(r.path).stem, r.start, r.end) for r in clips.records if r.labels == (1,)] == [
        ("a", 1, 2)
    ]
    tracks = read_data(path, root=videos, per_frame=True)
    assert [len(record.track.segments) for record in tracks.records] == [1, 0]


def test_activitynet_names_files_v_identifier(videos, data, tmp_path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v_xyz.mp4").symlink_to(videos / "a.mp4")
    annotation = {"segment": [1, 2], "label": "run"}
    database = {"xyz": {"subset": "training", "annotations": [annotation]}}
    found = read_data(data(json.dumps({"database": database}), "net.json"), per_frame=True)
    assert Path(found.records[0].path).name == "v_xyz.mp4"


def test_untrimmed_videos_of_the_test_data(shared: Path) -> None:
    path = shared / "data" / "ut_untrimmed" / "annotations.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    train, val = (read_data(path, per_frame=True, split=s) for s in ("train", "val"))
    assert (len(train), len(val)) == (24, 16) and train.class_names[0] == "background"
    assert sum(len(r.track.segments) for r in train.records) == 84
    assert sum(len(r.track.segments) for r in val.records) == 56
    # The annotations' own duration, and the decoder's: nothing lies outside.
    reader = clip_reader(ClipSpec(8, 8, (32, 32)))
    first, last, track = reader.span(val.records[0])
    assert last > 30 and track.segments[-1].end < last
    shares = class_shares(val, reader)
    assert shares.sum() == pytest.approx(16) and shares[0] > 8


@pytest.mark.parametrize("form", ["path,labels\n{}.mp4,{}.txt\n", "{}.mp4 {}.txt\n"])
def test_a_file_with_a_label_for_each_frame(videos, data, tmp_path, form) -> None:
    labels = ["run"] * 20 + ["-1"] * 5 + ["swim"] * 35
    data("\n".join(labels) + "\n\n", "a.txt")
    found = read_data(data(form.format("a", "a"), "list.txt"), root=videos, per_frame=True)
    assert found.class_names == ("run", "swim")
    track = found.records[0].track
    assert track.num_frames == 60 and segments(found.records[0])[1] == (20, 25, -1)
    fitted = track.fitted(6.0, 10.0, 60, lambda: 60)
    times = np.arange(60) / 10
    expected = np.repeat([0, -1, 1], [20, 5, 35])
    np.testing.assert_array_equal(fitted.at(times), expected)
    np.testing.assert_array_equal(fitted.at(times + 0.05), expected)
    np.testing.assert_array_equal(fitted.at(times - 0.0005)[1:], expected[1:])


BAD = [
    ("path,start,end,label\na.mp4,4,2,run\n", r"line 2: the segment ends \(2 s\) before it starts"),
    (
        "path,start,end,label\na.mp4,0,3,run\na.mp4,2,5,swim\n",
        r"line 2: the segments 'run' \(0 to 3 s\) and 'swim' \(2 to 5 s\) overlap in .*a.mp4",
    ),
    ("path,start,end,label\na.mp4,0,3,run;swim\n", "line 2: 2 labels for one segment"),
    ("path,label\na.mp4,run\nb.mp4,swim\n", "has one label for each video, not one for each frame"),
    ("path,labels\na.mp4,none.txt\n", "cannot read .*none.txt"),
    ("path,labels\na.mp4,empty.txt\n", "empty.txt, line 2: there is no label"),
    ("path,labels\na.mp4,good.txt\na.mp4,good.txt\n", "line 3: .*a.mp4 has labels for its frames"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_annotations_are_told_in_one_sentence(videos, data, text, message) -> None:
    data("run\n\nrun\n", "empty.txt")
    data("run\nswim\n", "good.txt")
    with pytest.raises(DataError, match=message):
        read_data(data(text), root=videos, per_frame=True)


@pytest.mark.parametrize(
    "database",
    [
        "[]",
        '{"a": {"annotations": [{"label": "x"}]}}',
        '{"a": {"annotations": [{"segment": [1]}]}}',
    ],
)
def test_damaged_activitynet_files(videos, data, database) -> None:
    with pytest.raises(DataError, match="database|an annotation needs `segment`"):
        read_data(data(f'{{"database": {database}}}', "net.json"), root=videos, per_frame=True)


@pytest.mark.parametrize("per_frame", [False, None, True])
def test_activitynet_without_any_annotation(videos, data, per_frame) -> None:
    path = data('{"database": {"a": {"annotations": []}, "b": {}}}', "net.json")
    with pytest.raises(DataError, match="net.json .* none of its videos has an annotation"):
        read_data(path, root=videos, per_frame=per_frame)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,start,end,label\na.mp4,,,run\n"),
        ("list.json", '[{"path": "a.mp4", "label": "run", "start": null, "end": null}]'),
    ],
)
def test_a_segment_without_start_and_end_is_the_whole_video(videos, data, name, text) -> None:
    (found,) = read_data(data(text, name), root=videos, per_frame=True).records
    assert segments(found) == [(0.0, float("inf"), 0)]


def test_class_folders_have_no_labels_over_time(tiny_videos) -> None:
    with pytest.raises(DataError, match="one label for each video"):
        read_data(tiny_videos, per_frame=True)


# -- files that do not fit -------------------------------------------------------------------------


def record(path: Path, *parts: tuple[float, float, int], **track) -> VideoRecord:
    return VideoRecord(
        str(path), (0, 1), track=LabelTrack(tuple(Segment(*part) for part in parts), **track)
    )


def test_segments_beyond_the_end(videos) -> None:
    reader = clip_reader(SPEC)
    with pytest.raises(DecodeError, match="from 5 to 9 s lies outside .* lasts 6.00 s") as caught:
        reader.span(record(videos / "a.mp4", (0, 5, 0), (5, 9, 1)))
    assert caught.value.reason == "labels"
    # By a frame or two: cut.
    track = reader.span(record(videos / "a.mp4", (0, 5, 0), (5, 6.15, 1)))[2]
    assert track.segments[-1].end == pytest.approx(6.0)


@pytest.mark.parametrize("count", [58, 59, 61, 62])
def test_a_frame_label_too_many_or_too_few_is_forgiven(videos, count: int) -> None:
    track = clip_reader(SPEC).span(record(videos / "a.mp4", (0, count, 1), num_frames=count))[2]
    np.testing.assert_array_equal(track.at(np.arange(60) / 10), 1)


@pytest.mark.parametrize("count", [30, 90])
def test_another_number_of_frame_labels_is_refused(videos, count: int) -> None:
    with pytest.raises(DecodeError, match=f"labels for {count} frames, but the video has 60"):
        clip_reader(SPEC).span(record(videos / "a.mp4", (0, count, 1), num_frames=count))


def test_declared_frames_do_not_count_where_decoded_ones_do(shared: Path) -> None:
    """Frames that the container declares too many: labels fit the decoded ones."""
    clips = shared / "data" / "ut_interaction"
    path = next(clips.rglob("*.avi"), None)
    if path is None:
        pytest.skip("no UT-Interaction")
    from kvideo.data.decode import open_video

    with open_video(path) as video:
        decoded = len(video.frame_times())
    reader = clip_reader(SPEC)
    track = reader.span(record(path, (0, decoded, 1), num_frames=decoded))[2]
    assert (track.at(np.arange(decoded) / 30) == 1).all()
    with pytest.raises(DecodeError, match=f"labels for {decoded - 9} frames"):
        reader.span(record(path, (0, 9, 1), num_frames=decoded - 9))


def test_check_finds_labels_that_do_not_fit(videos, data) -> None:
    data("run\n" * 60, "a.txt")
    data("run\n" * 30, "b.txt")
    path = data("path,labels\na.mp4,a.txt\nb.mp4,b.txt\n")
    report = check_videos(videos_to_check(path, root=videos))
    assert [(v.reason, Path(v.path).name) for v in report.bad if v.reason == "labels"] == [
        ("labels", "b.mp4")
    ]


# -- clips -----------------------------------------------------------------------------------------


def test_the_label_of_a_clip_is_that_of_each_of_its_frames(videos) -> None:
    """The frames carry their numbers: what is seen and what is said must agree."""
    rows = tuple((n, n + 3, n // 3 % 2) for n in range(0, 60, 3))
    labelled = VideoSet((record(videos / "a.mp4", *rows, num_frames=60),) * 6, ("even", "odd"))
    clips = TrainingClips(labelled, clip_reader(SPEC), PLAIN, seed=1)
    for clip, labels, _ in clips.epoch(0):
        numbers = np.array([number_in(frame) for frame in clip])
        assert labels.dtype == np.int32 and labels.shape == (8,)
        np.testing.assert_array_equal(labels, numbers // 3 % 2)


def test_padding_and_unknown_times_have_no_label(videos) -> None:
    reader = clip_reader(ClipSpec(40, 10.0, (32, 32)))
    short = record(videos / "c.mp4", (0, 1, 1), (1, 2, -1), (2, 3, 0))
    clip, labels = reader.labelled_training_clip(short, PLAIN, np.random.default_rng(0))
    np.testing.assert_array_equal(labels, np.repeat([1, -1, 0, -1], 10))
    np.testing.assert_array_equal(clip[30:], clip[29:30].repeat(10, axis=0))
    assert is_padding(0.0, 3.0, ClipSpec(40, 10.0)).tolist() == [False] * 30 + [True] * 10
    assert not is_padding(0.0, 0.0, ClipSpec(1, 10.0)).any()


def test_batches_and_datasets(videos, data) -> None:
    path = data("path,start,end,label\na.mp4,1,2,run\nb.mp4,2,5,swim\nc.mp4,0,3,run\n")
    spec = ClipSpec(16, 8.0, (32, 32))
    labelled = read_data(path, root=videos, per_frame=True)
    clips = TrainingClips(labelled, clip_reader(spec), PLAIN)
    dataset = VideoSource(clips).batches(3, epoch=0)
    assert dataset.element_spec[1].shape == (3, 16)
    ((clips, labels),) = list(dataset)
    assert clips.shape == (3, 16, 32, 32, 3) and set(np.unique(labels)) <= {0, 1, 2}
    dataset = clip_dataset(labelled, spec, batch_size=2)
    assert dataset.element_spec[1].shape == (None, 16)
    train, val = split_validation(labelled, 0.4)
    assert train.per_frame and val.per_frame and len(train) + len(val) == 3


def test_class_shares_are_seconds_of_each_class(videos) -> None:
    labelled = VideoSet(
        (
            record(videos / "a.mp4", (0, 1.5, 1), background=0),
            record(videos / "c.mp4", (0, 1, 1), (1, 2, -1), (2, 3, 0)),
            VideoRecord(str(videos / "none.mp4"), (0,), track=LabelTrack((), 0)),
        ),
        ("no", "yes"),
    )
    np.testing.assert_allclose(class_shares(labelled, clip_reader(SPEC)), [1.25, 0.75])


# -- whole videos ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.05, 0.8, 0.85, 3.2, 6.0, 7.77])
@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_windows_cover_every_time_and_overlap_by_half(seconds: float, frames: int) -> None:
    spec = ClipSpec(frames, 10.0)
    times, firsts = covering_times((1.0, 1.0 + seconds), spec)
    np.testing.assert_allclose(times, 1.0 + np.arange(len(times)) / 10)
    assert times[-1] < 1.0 + seconds <= times[-1] + 0.1 + 0.003
    assert firsts[0] == 0 and (np.diff(firsts) >= 1).all()
    assert (np.diff(firsts) <= max(1, frames // 2)).all()
    if len(times) >= frames:
        assert firsts[-1] + frames == len(times)
    else:
        assert len(firsts) == 1


def test_blocks_are_the_windows_in_order_whatever_the_workers(videos) -> None:
    missing = VideoRecord(str(videos / "none.mp4"))
    unlabelled = record(videos / "b.mp4", (0, 6, -1))
    records = [
        VideoRecord(str(videos / "a.mp4")),
        missing,
        unlabelled,
        record(videos / "c.mp4", (0, 3, 1)),
    ]
    reader = clip_reader(SPEC)
    for workers in (1, 3):
        blocks = list(iterate_blocks(records, reader, workers))
        assert [b.index for b in blocks] == sorted(b.index for b in blocks)
        assert [b.error.reason for b in blocks if b.error] == ["missing", "labels"]
        first = [b for b in blocks if b.index == 0]
        assert first[-1].last and first[0].cover.labels is None
        clips = np.concatenate([b.clips for b in first])
        starts = first[0].cover.firsts
        assert len(clips) == len(starts)
        for clip, start in zip(clips, starts, strict=True):
            assert [number_in(frame) for frame in clip] == list(range(start, start + 8))
        np.testing.assert_array_equal(blocks[-1].cover.labels, np.ones(30))
