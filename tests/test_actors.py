"""Labelled boxes: AVA's files, our CSV, and what is wrong with real ones."""

from pathlib import Path

import numpy as np
import pytest

from kvideo.data.actors import Actor, parse_label_map, read_actors, read_frames
from kvideo.errors import DataError

PBTXT = 'item {\n  name: "run"\n  id: 3\n}\nitem {\n  name: "jump \\"high\\""\n  id: 7\n}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    (tmp_path / "action_list.pbtxt").write_text(PBTXT.replace('\\"', ""))
    return tmp_path


def read(folder: Path, text: str, **options):
    (folder / "boxes.csv").write_text(text)
    return read_actors(folder / "boxes.csv", **options)


def test_avas_csv(folder: Path) -> None:
    """A row for each action: one box of one person is one actor; a row of two columns is empty."""
    found = read(
        folder,
        "a,0902,0.1,0.2,0.5,0.9,3,0\na,0902,0.1,0.2,0.5,0.9,7,0\na,902,0.6,0.2,0.8,0.9,3,1\n"
        "b,0903\ngone,1,0.1,0.1,0.2,0.2,3,0\n",
    )
    assert found.class_names == ("run", "jump high")
    assert found.frames == {
        ("a", 902.0): (
            Actor((0.1, 0.2, 0.5, 0.9), (0, 1), "0"), Actor((0.6, 0.2, 0.8, 0.9), (0,), "1"),
        ),
        ("b", 903.0): (),
    }  # fmt: skip
    assert found.paths == {name: str(folder / f"{name}.mp4") for name in "ab"}
    assert found.missing == ("gone",) and found.num_boxes == 2
    videos, times, boxes, labels = found.columns()
    assert videos.tolist() == ["a"] * 3 and times.tolist() == [902.0] * 3
    assert boxes.shape == (3, 4) and labels.tolist() == [0, 1, 0]


def test_a_csv_with_a_header(folder: Path) -> None:
    """In any order; without a person; labels by name."""
    found = read(
        folder, "label,x1,y1,x2,y2,time,video\nrun,0,0,0.5,1,1.25,a.mp4\nswim,0,0,1,1,2,b.mp4\n"
    )
    assert found.frames[("a.mp4", 1.25)] == (Actor((0, 0, 0.5, 1), (0,), None),)
    assert found.frames[("b.mp4", 2.0)] == (Actor((0, 0, 1, 1), (), None),)  # somebody is there
    assert "of a class that" in found.notes[0] and "(swim)" in found.notes[0]
    (folder / "action_list.pbtxt").unlink()
    again = read_actors(folder / "boxes.csv")
    assert again.class_names == ("run", "swim")
    assert read_actors(folder / "boxes.csv", classes=["swim", "run"]).class_names == ("swim", "run")


def test_wrong_boxes_are_mended_or_left_out(folder: Path) -> None:
    found = read(
        folder,
        "a,1,0.5,0.9,0.1,0.2,3,0\na,1,-0.1,0.2,0.5,1.2,3,1\na,1,0.3,0.3,0.3,0.6,3,2\n"
        "a,1,1.1,0.1,1.5,0.9,3,3\na,1,0.2,0.2,0.4,0.4,9,4\na,1,0.6,0.6,0.9,0.9,7,5\n"
        "a,1,nan,0.1,0.5,inf,3,6\na,-1,0.1,0.1,0.5,0.5,3,7\n",
    )
    assert [(actor.box, actor.labels) for actor in found.frames[("a", 1.0)]] == [
        ((0.1, 0.2, 0.5, 0.9), (0,)), ((0.0, 0.2, 0.5, 1.0), (0,)), ((0.2, 0.2, 0.4, 0.4), ()),
        ((0.6, 0.6, 0.9, 0.9), (1,)),
    ]  # fmt: skip
    words = (
        "swapped corners", "partly outside", "without an area", "outside the picture", "lacks",
        "no number", "before the video's beginning",
    )  # fmt: skip
    assert all(any(word in note for note in found.notes) for word in words)
    assert all("line" in note for note in found.notes)


def test_a_moment_of_whose_boxes_none_is_left_is_no_empty_one(folder: Path) -> None:
    found = read(folder, "a,1,0.3,0.3,0.3,0.6,3,2\na,2\na,3,0.1,0.1,0.4,0.4,3,0\n")
    assert [time for _, time in found.frames] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no boxes"),
        ("a,x,0,0,1,1,3,0\n", "line 1: expected AVA's form"),
        ("a,1,0,0,1,1,3,0\na,x,0,0,1,1,3,0\n", "line 2: time must be a number, not 'x'"),
        ("a,1,0,0,1,,3,0\n", "line 1: y2 must be a number"),
        ("a,1,10,20,300,200,3,0\n", "corners must be fractions.*10, 20, 300, 200"),
        ("video,time,x1,y1,label\na,1,0,0,run\n", "the header lacks x2 and y2"),
        ("z,1,0,0,1,1,3,0\n", "none of its 1 video is there"),
        ("a,1,0.3,0.3,0.3,0.6,3,2\n", "1 box without an area"),
    ],
)
def test_what_cannot_be_read(folder: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(folder, text)


def test_label_maps() -> None:
    names = parse_label_map(PBTXT, "list")
    assert names.names[0] == "run" and names.index("7") == 1 and names.index("1") is None
    other = 'label {\n name: "sit"\n label_id: 2\n label_type: PERSON_MOVEMENT\n}'
    assert parse_label_map(other, "list").index("2") == 0
    twice = 'item { name: "x" id: 1 } item { name: "x" id: 2 }'
    assert parse_label_map(twice, "list").names == ("x (1)", "x (2)")
    assert parse_label_map("1: bend/bow\n3: kneel\n", "list").index("3") == 1
    with pytest.raises(DataError, match="item 1 has no `name` or no `id`"):
        parse_label_map("item { id: 1 }", "list")


def test_real_files(shared: Path) -> None:
    top = shared / "oracles" / "annotations"
    found = read_actors(top / "ava" / "ava_sample.csv", must_exist=False)
    assert found.num_boxes == 3 and len(found.class_names) == 4
    assert any("(74)" in note for note in found.notes)
    birds = read_actors(
        top / "ava_custom" / "ava_val_v2.2.csv", must_exist=False,
        classes=top / "ava_custom" / "ava_action_list_v2.2.pbtxt",
    )  # fmt: skip
    assert len(birds.class_names) == 8 and birds.num_boxes > 20
    assert read_frames(top / "ava_custom" / "ava_val_excluded_timestamps_v2.2.csv") == frozenset()
    names = parse_label_map(
        (top / "ava" / "ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt").read_text(), "v2.1"
    )
    assert len(names.names) == 60 and names.index("80") == 59
    mosaic = shared / "data" / "ut_mosaic"
    train = read_actors(mosaic / "train.csv", excluded=mosaic / "train_excluded_timestamps.csv")
    assert (train.num_boxes, len(train.excluded), len(train.paths)) == (248, 26, 24)
    assert not train.notes and len(train.class_names) == 6
    assert np.isclose(min(time for _, time in train.frames), 1.0)
