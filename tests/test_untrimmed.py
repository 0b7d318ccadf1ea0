"""Segments of untrimmed videos, read from every form, with what real files get wrong."""

import json
from pathlib import Path

import pytest

from kvideo.data.tracks import Segment
from kvideo.data.untrimmed import (
    UntrimmedVideo,
    fit_segments,
    has_segments,
    note_of,
    read_untrimmed,
    video_name,
)
from kvideo.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    return tmp_path


def activitynet(folder: Path, **videos) -> Path:
    path = folder / "annotations.json"
    database = {
        name: {
            "subset": subset,
            "duration": 20.0,
            "annotations": [{"segment": [s, e], "label": label} for s, e, label in segments],
        }
        for name, (subset, segments) in videos.items()
    }
    path.write_text(json.dumps({"version": "1.3", "taxonomy": [], "database": database}))
    return path


def rows(videos) -> list[tuple]:
    names = videos.class_names
    return [
        (video.name, segment.start, segment.end, names[segment.label])
        for video in videos.videos
        for segment in video.segments
    ]


def test_activitynet(folder: Path) -> None:
    """Parts, overlapping segments, videos without any; the folder may be named, too."""
    path = activitynet(
        folder,
        a=("training", [(5, 9, "swim"), (1, 6, "run")]),
        b=("training", []),
        c=("validation", [(0, 2, "run")]),
    )
    train = read_untrimmed(path)
    assert rows(train) == [("a", 1, 6, "run"), ("a", 5, 9, "swim")]
    assert train.class_names == ("run", "swim")
    assert [video.duration for video in train.videos] == [20.0, 20.0]
    assert train.notes == ("1 video without a segment: all of it is background.",)
    assert train.videos[0].path == str(folder / "a.mp4")
    assert rows(read_untrimmed(folder, prefer=("test", "val"))) == [("c", 0, 2, "run")]
    assert len(read_untrimmed(path, split="all")) == 3
    assert [record.path for record in train.records().records] == [
        str(folder / "a.mp4"), str(folder / "b.mp4"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no part 'swim'"):
        read_untrimmed(path, split="swim")


def test_csv_with_names_or_files(folder: Path) -> None:
    """With or without an ending, in any folder below, and an empty end."""
    (folder / "deep").mkdir()
    (folder / "c.mp4").rename(folder / "deep" / "c.mp4")
    path = folder / "s.csv"
    path.write_text("video,start,end,label\na,1,2,x\nb.mp4,0.5,,y\nc,3,4,x\n")
    found = read_untrimmed(path)
    assert rows(found) == [
        ("a", 1, 2, "x"), ("b", 0.5, float("inf"), "y"), ("c", 3, 4, "x"),
    ]  # fmt: skip
    assert found.videos[2].path == str(folder / "deep" / "c.mp4")
    path.write_text("video,label\na,x\n")
    with pytest.raises(DataError, match="line 2: there is no segment;.*names the columns"):
        read_untrimmed(path)


def test_thumos14_text_files(folder: Path) -> None:
    """A file for each class and part; the validation part is the one to train on."""
    (folder / "Dive_val.txt").write_text("a  1.0 2.5\nb  3.0 4.0\n")
    (folder / "Dive_test.txt").write_text("c  1 2\n")
    (folder / "Ambiguous_val.txt").write_text("b  5.0 6.0\n")
    train = read_untrimmed(folder)
    assert sorted(rows(train)) == [("a", 1.0, 2.5, "Dive"), ("b", 3.0, 4.0, "Dive")]
    assert train.notes == ("1 segment of the class Ambiguous left out.",)
    assert rows(read_untrimmed(folder, prefer=("test", "val"))) == [("c", 1, 2, "Dive")]
    (folder / "my_val.txt").write_text("a.mp4 3\n")  # a list of videos is no such file
    assert not has_segments(str(folder / "my_val.txt"))
    assert has_segments(str(folder / "Dive_val.txt"))


@pytest.mark.parametrize(
    ("file", "videos", "segments", "first"),
    [
        ("val_Annotation.csv", 200, 3007, "BaseballPitch"),
        ("test_Annotation.csv", 213, 3358, "BaseballPitch"),
        ("thumos14_test_groundtruth.csv", 213, 3358, "0"),
        ("thumos_gt.json", 200, 3007, "BaseballPitch"),
    ],
)
def test_thumos14s_real_files(
    shared: Path, file: str, videos: int, segments: int, first: str
) -> None:
    found = read_untrimmed(shared / "oracles/annotations/thumos14" / file, must_exist=False)
    assert (len(found), found.num_segments, len(found.class_names)) == (videos, segments, 20)
    assert found.class_names[0] == first


def test_activitynets_real_files(shared: Path) -> None:
    """BSN's form is what ActivityNet calls `database`, by itself."""
    top = shared / "oracles/annotations/activitynet13"
    found = read_untrimmed(top / "activitynet_form_sample.json", split="all", must_exist=False)
    assert (len(found), found.num_segments) == (361, 569)
    found = read_untrimmed(top / "bsn_form_sample.json", must_exist=False)
    assert found.num_segments == 112 and found.videos[0].duration == 14.07


def test_a_wrong_segment_costs_itself_only(folder: Path) -> None:
    """It is left out and told, or kept where an official evaluation counts it."""
    path = activitynet(
        folder, a=("training", [(5, 3, "run"), (1, 2, "run")]), b=("training", [(4, 4, "swim")])
    )
    found = read_untrimmed(path)
    assert rows(found) == [("a", 1, 2, "run")] and len(found) == 2
    assert found.notes[0].startswith("2 segments left out or cut; the first: ")
    assert "the segment ends (3 s) before it starts (5 s)" in found.notes[0]
    kept = read_untrimmed(path, keep_faults=True)
    assert kept.num_segments == 3 and "counted, though" in kept.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,start,end,label\na,1,x,run\n", "line 2: end must be a number of seconds"),
        ("video,start,end,label\na,1,nan,run\n", "line 2: end must be a number of seconds"),
        ("video,start,end,label\na,1,2,\n", "line 2: a has no label"),
        ("video,start,label\na,1,run\n", "line 2: there is no segment"),
        ("video,start,end,label\nz,1,2,run\n", "none of its 1 video is there.*--root"),
        ("video,start,end,label\na,2,1,run\n", "left out.*before it starts"),
        ("video,start,end,label\na,,,\n", "no segment with a label"),
        ("", "is empty"),
        ("\0\1", "not text"),
    ],
)
def test_what_cannot_be_read(folder: Path, text: str, words: str) -> None:
    (folder / "s.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_untrimmed(folder / "s.csv")


def test_unknown_things_have_names(folder: Path) -> None:
    path = activitynet(folder, a=("training", [(1, 2, "runn")]), gone=("training", [(1, 2, "run")]))
    assert read_untrimmed(path).missing == ("gone",) and len(read_untrimmed(path)) == 1
    kept = read_untrimmed(path, keep_missing=True)
    assert [video.path is None for video in kept.videos] == [False, True]
    assert "counted as missed (first: gone)" in kept.notes[0]
    with pytest.raises(DataError, match="there is no class 'runn'.*Did you mean 'run'"):
        read_untrimmed(path, class_names=["run", "swim"])
    with pytest.raises(DataError, match="no file or folder nowhere.json"):
        read_untrimmed("nowhere.json")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="holds no annotations"):
        read_untrimmed(folder / "empty")
    with pytest.raises(DataError, match="there is no folder nowhere"):
        read_untrimmed(path, root="nowhere")


def test_class_numbers_have_names_beside_them(folder: Path) -> None:
    (folder / "s.csv").write_text("video,start,end,label\na,1,2,7\na,3,4,12\n")
    (folder / "detclasslist.txt").write_text("7 BaseballPitch\n9 Basketball\n12 Billiards\n")
    found = read_untrimmed(folder / "s.csv")
    assert rows(found) == [("a", 1, 2, "BaseballPitch"), ("a", 3, 4, "Billiards")]


def test_a_segment_may_begin_before_the_video(folder: Path) -> None:
    """It is cut; one that is over by then is left out."""
    (folder / "s.csv").write_text(
        "video,start,end,label\na,-1,2,run\na,-3,-1,run\nb,,,\nb,1,2,run\n"
    )
    found = read_untrimmed(folder / "s.csv")
    assert rows(found) == [("a", 0, 2, "run"), ("b", 1, 2, "run")]
    assert found.notes[0].startswith("2 segments left out or cut") and "not '-1'" in found.notes[0]


def test_a_row_with_a_name_alone_is_a_video(folder: Path) -> None:
    """Nothing happens in it."""
    (folder / "s.csv").write_text("video,start,end,label\na,1,2,run\nb,,,\n")
    found = read_untrimmed(folder / "s.csv")
    assert [(video.name, len(video.segments)) for video in found.videos] == [("a", 1), ("b", 0)]
    assert found.notes == ("1 video without a segment: all of it is background.",)


def test_files_of_the_same_name(folder: Path) -> None:
    """A path is honoured; a name that several files have is refused; names tell them apart."""
    for path in ("x/cam.mp4", "y/cam.mp4", "c.mkv", "match.2024", "match.2025"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"\0\0\0\x18ftypmp42")
    (folder / "s.csv").write_text(
        "video,start,end,label\nx/cam.mp4,1,2,run\ny/cam.mp4,3,4,run\nc.mp4,5,6,run\n"
        "c.mkv,7,8,run\nmatch.2024,9,10,run\nmatch.2025,11,12,run\na.mp4,1,2,run\na,3,4,run\n"
    )
    found = read_untrimmed(folder / "s.csv")
    assert [(name, start) for name, start, _, _ in rows(found)] == [
        ("x/cam", 1), ("y/cam", 3), ("c.mp4", 5), ("c.mkv", 7),
        ("match.2024", 9), ("match.2025", 11), ("a", 1), ("a", 3),
    ]  # fmt: skip
    assert len({video.path for video in found.videos}) == 7
    path = activitynet(folder, **{"x/cam": ("training", [(1, 2, "run")])})
    assert read_untrimmed(path).videos[0].path == str(folder / "x" / "cam.mp4")
    path = activitynet(folder, cam=("training", [(1, 2, "run")]))
    with pytest.raises(DataError, match="several files are called cam: .*x/cam.mp4 and"):
        read_untrimmed(path)


def test_segments_are_cut_at_the_videos_end() -> None:
    segments = (Segment(1, 4, 0), Segment(8, 12, 1), Segment(9, 10.05, 1), Segment(10, 11, 2))
    segments += (Segment(5, float("inf"), 2),)
    kept, phrases = fit_segments(UntrimmedVideo("v", "v.mp4", segments), 10.0, 0.1)
    assert kept == (
        Segment(1, 4, 0), Segment(8, 10.0, 1), Segment(9, 10.0, 1), Segment(5, 10.0, 2),
    )  # fmt: skip
    assert phrases == [
        "8 to 12 s of v, which has 10.00 s (cut)", "10 to 11 s of v, which has 10.00 s (left out)",
    ]  # fmt: skip
    assert note_of(["p"], "bag", "bags") == "1 bag: p."
    assert note_of(list("pqrst"), "bag", "bags") == "5 bags: p; q; r; and 2 more."


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/y/a.mp4", "a"), ("a.b.webm", "a.b"), ("video_test_0000004", "video_test_0000004"),
        ("v.2024-01-01 long", "v.2024-01-01 long"), ("c:\\films\\a.avi", "a"),
    ],
)  # fmt: skip
def test_names_of_videos(path: str, name: str) -> None:
    assert video_name(path) == name


def test_the_demo() -> None:
    train, test = read_untrimmed("demo"), read_untrimmed("demo", prefer=("test", "val"))
    assert (len(train), len(test)) == (6, 4) and train.class_names == test.class_names
    assert not {v.path for v in train.videos} & {v.path for v in test.videos}
