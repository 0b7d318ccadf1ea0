"""Reading DATA: class folders and annotation files, real ones and odd ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvideo.data import class_names
from kvideo.data.annotations import VideoRecord, VideoSet, find_splits, read_data
from kvideo.errors import DataError, UsageError


def touch(folder: Path, *names: str, data: bytes = b"x") -> None:
    for parent in {os.path.dirname(f"{folder}/{name}") for name in names}:
        os.makedirs(parent, exist_ok=True)
    for name in names:
        with open(f"{folder}/{name}", "wb") as file:
            file.write(data)


def relative(videos: VideoSet, folder: Path) -> list[str]:
    return [os.path.relpath(record.path, folder) for record in videos.records]


def labels(videos: VideoSet) -> list[str]:
    return [videos.class_names[record.labels[0]] for record in videos.records]


# ------------------------------------------------------------------------- class folders


def test_class_folders_at_any_depth_without_clutter(tmp_path):
    touch(tmp_path, "run/b.mp4", "run/A.AVI", "run/more/deep/c.webm", "jump/1.mov", "jump/2.gif")
    touch(tmp_path, "run/Thumbs.db", "run/notes.txt", "run/.hidden.mp4", "jump/.cache/x.mp4")
    touch(tmp_path, ".git/x.mp4", "README.md", "__MACOSX/run/._b.mp4")
    videos = read_data(tmp_path)
    assert videos.class_names == ("jump", "run")
    assert relative(videos, tmp_path) == [
        "jump/1.mov", "jump/2.gif", "run/A.AVI", "run/b.mp4", "run/more/deep/c.webm",
    ]  # fmt: skip
    assert videos.labels_array().tolist() == [0, 0, 1, 1, 1]
    assert videos.class_counts().tolist() == [2, 3]
    assert len(videos) == 5 and not videos.multi_label and videos.flip_safe and not videos.notes
    assert all(os.path.isabs(record.path) for record in videos.records)


def test_files_without_a_known_ending_are_looked_into(tmp_path):
    touch(tmp_path, "a/one", "a/two.dat", data=b"\0\0\0\x20ftypisom" + bytes(50))
    touch(tmp_path, "a/three", "a/four.dat", data=b"just text")
    touch(tmp_path, "b/x.mp4")
    assert relative(read_data(tmp_path), tmp_path) == ["a/one", "a/two.dat", "b/x.mp4"]


def test_every_real_video_counts_whatever_its_ending(shared, tmp_path):
    for number, path in enumerate(sorted((shared / "data/clips").rglob("*"))):
        if path.suffix in (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".gif"):
            (tmp_path / "a").mkdir(exist_ok=True)
            if path.name != "bad_video.mp4":
                (tmp_path / "a" / f"{number}.odd").symlink_to(path)
    assert len(read_data(tmp_path)) == len(list((tmp_path / "a").iterdir())) > 50


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "store/x.mp4", "data/a/1.mp4")
    (tmp_path / "data/b").symlink_to(tmp_path / "store")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    assert relative(read_data(tmp_path / "data"), tmp_path / "data") == [
        "a/1.mp4", "a/loop/b/x.mp4", "b/x.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("validation", None), (None, "test")])
def test_train_and_val_folders_are_parts(tmp_path, val, test):
    touch(tmp_path, "train/a/1.mp4", "train/a/2.mp4", "train/b/3.mp4")
    for part in filter(None, (val, test)):
        touch(tmp_path, f"{part}/a/{part}.mp4", f"{part}/b/{part}.mp4")
    assert find_splits(tmp_path)[:2] == ("train", "val")
    assert ("test" in find_splits(tmp_path)) == (test is not None)
    assert relative(read_data(tmp_path), tmp_path) == ["train/a/1.mp4", "train/a/2.mp4",
                                                       "train/b/3.mp4"]  # fmt: skip
    expected = val or test
    assert relative(read_data(tmp_path, split="val"), tmp_path) == [
        f"{expected}/a/{expected}.mp4", f"{expected}/b/{expected}.mp4",
    ]  # fmt: skip
    assert len(read_data(tmp_path, split="all")) == 3 + 2 * len([p for p in (val, test) if p])
    with pytest.raises(UsageError, match="no part 'dev'"):
        read_data(tmp_path, split="dev")


def test_a_class_named_train_is_a_class(tmp_path):
    touch(tmp_path, "train/1.mp4", "test/2.mp4")
    assert find_splits(tmp_path) == ()
    assert read_data(tmp_path).class_names == ("test", "train")
    touch(tmp_path, "bus/near/1.mp4", "train/near/1.mp4")
    assert read_data(tmp_path).class_names == ("bus", "test", "train")


def test_further_folders_beside_train_and_val(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4", "untrimmed/4.mp4")
    assert find_splits(tmp_path) == ("train", "val") and len(read_data(tmp_path)) == 2
    touch(tmp_path / "vehicles", "train/near/1.mp4", "bus/near/2.mp4", "test/3.mp4")
    assert read_data(tmp_path / "vehicles").class_names == ("bus", "test", "train")


def test_class_names_of_a_model_set_the_order(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "c").mkdir()
    videos = read_data(tmp_path, class_names=("c", "b", "a"))
    assert labels(videos) == ["a", "b"] and videos.class_names == ("c", "b", "a")
    assert "class folder c holds no videos" in videos.notes[0]
    with pytest.raises(DataError, match="folder a: there is no class 'a'"):
        read_data(tmp_path, class_names=("b", "c"))


def test_mirrored_classes_are_not_flipped(tmp_path):
    touch(tmp_path, "turn_Left/1.mp4", "turn_right/2.mp4")
    videos = read_data(tmp_path)
    assert not videos.flip_safe and not videos.notes
    touch(tmp_path / "more", "brighten/1.mp4", "left_behind/2.mp4")
    assert read_data(tmp_path / "more").flip_safe


def test_ucf101_names_in_class_folders_give_groups(tmp_path):
    touch(tmp_path, "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c02.avi",
          "Biking/v_Biking_g25_c07.avi", "Biking/other.avi")  # fmt: skip
    groups = [record.group for record in read_data(tmp_path).records]
    assert groups == ["v_Archery_g01", "v_Archery_g01", None, "v_Biking_g25"]


def empty_folder(top):
    pass


def only_text(top):
    touch(top, "a.txt")


def videos_without_folders(top):
    touch(top, "a.mp4", "b.mp4")


def list_beside_videos(top):
    touch(top, "a.mp4", "labels.csv")


def frames_as_pictures(top):
    touch(top, "run/v1/0001.jpg", "run/v1/0002.jpg")


def empty_class_folder(top):
    touch(top, "a/1.mp4")
    (top / "b").mkdir()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty_folder, "is empty"),
        (only_text, "holds no videos"),
        (videos_without_folders, "2 videos without labels.*folders named after their classes"),
        (list_beside_videos, r"1 video and no class folders.*labels\.csv"),
        (frames_as_pictures, "pictures, but no videos"),
        (empty_class_folder, "class folder .*b holds no videos.*remove it"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        read_data(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_one_class_can_be_read(tmp_path):
    touch(tmp_path, "a/1.mp4")
    assert read_data(tmp_path).class_names == ("a",)


def test_stray_videos_are_named(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/1.mp4", "lost.mp4")
    (note,) = read_data(tmp_path).notes
    assert "1 video directly in" in note and "lost.mp4" in note


def test_data_that_is_not_there_or_neither(tmp_path):
    with pytest.raises(DataError, match="no file or folder .*nowhere"):
        read_data(tmp_path / "nowhere")
    touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match="a.mp4 is a video"):
        read_data(tmp_path / "a.mp4")
    touch(tmp_path, "a.bin", data=bytes(range(256)))
    with pytest.raises(DataError, match="neither a folder of videos nor an annotation file"):
        read_data(tmp_path / "a.bin")
    touch(tmp_path, "a.txt", data=b" \n")
    with pytest.raises(DataError, match="a.txt is empty"):
        read_data(tmp_path / "a.txt")


# ----------------------------------------------------------------------- two-column lists


@pytest.mark.parametrize(
    "text",
    [
        "my dir/a,b.mp4 3\nc.mp4 0\n",
        "my dir/a,b.mp4,3\r\nc.mp4,0\r\n",
        "\ufeffmy dir/a,b.mp4\t3\n\nc.mp4\t0",
        '"my dir/a,b.mp4", 3\n"c.mp4", 0\n',
        "my dir/a,b.mp4   3  \nc.mp4 0.0 \n",
        "path label\nmy dir/a,b.mp4 3\nc.mp4 0\n",
        "my dir\\a,b.mp4 3\nc.mp4 0\n",
        "# a comment\n./my dir/a,b.mp4 3\nmy dir/../c.mp4 0\n\x1a",
    ],
)
def test_two_columns(tmp_path, text):
    touch(tmp_path, "my dir/a,b.mp4", "c.mp4")
    (tmp_path / "list.csv").write_bytes(text.encode())
    videos = read_data(tmp_path / "list.csv")
    assert relative(videos, tmp_path) == ["my dir/a,b.mp4", "c.mp4"]
    assert videos.class_names == ("0", "1", "2", "3")
    assert videos.labels_array().tolist() == [3, 0]


def test_label_names_may_hold_blanks(tmp_path):
    touch(tmp_path, "a b.mp4", "c.mp4")
    for separator in ",\t ":
        lines = (f"a b.mp4{separator}air drumming", f"c.mp4{separator}abseiling")
        (tmp_path / "list.txt").write_text("\n".join(lines))
        assert labels(read_data(tmp_path / "list.txt")) == ["air drumming", "abseiling"]


def test_numbers_without_names_keep_their_places(tmp_path):
    touch(tmp_path, *(f"{i}.mp4" for i in range(4)))
    for numbers, names in (
        ([1, 2, 4, 4], ("1", "2", "3", "4")),
        ([0, 0, 1, 3], ("0", "1", "2", "3")),
        ([7, 700, 7, 90], ("7", "90", "700")),
    ):
        text = "".join(f"{i}.mp4 {n}\n" for i, n in enumerate(numbers))
        (tmp_path / "list.txt").write_text(text)
        videos = read_data(tmp_path / "list.txt")
        assert videos.class_names == names
        assert labels(videos) == [str(n) for n in numbers]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "run\njump\nswim\n", "jump"),
        ("classInd.txt", "1 run\r\n2 jump\r\n3 swim\r\n", "run"),
        ("label_map.txt", "0: run\n1: jump it\n2: swim\n", "jump it"),
        ("Classes.TXT", "run 0\njump 1\n", "jump"),
        ("labels.txt", 'id,name\n0,run\n1,"jump, high"\n', "jump, high"),
    ],
)
def test_class_files_beside_the_list(tmp_path, name, text, expected):
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    (tmp_path / name).write_bytes(text.encode())
    assert labels(read_data(tmp_path / "list.txt")) == [expected]


def test_a_file_of_class_names_given_by_hand(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 5\nb.mp4 9\n")
    (tmp_path / "names.txt").write_text("9 swim\n5 run\n")
    videos = read_data(tmp_path / "list.txt", class_names=tmp_path / "names.txt")
    assert videos.class_names == ("run", "swim") and labels(videos) == ["run", "swim"]


def test_numbers_go_by_the_lists_own_names_under_a_models_classes(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 1\nb.mp4 2\n")
    (tmp_path / "classInd.txt").write_text("1 run\n2 swim\n")
    videos = read_data(tmp_path / "list.txt", class_names=("swim", "dive", "run"))
    assert labels(videos) == ["run", "swim"]
    assert videos.class_names == ("swim", "dive", "run")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.mp4 0\nb.mp4\n", r"list\.txt, line 2: expected a path and a label, found 'b.mp4'"),
        ("a.mp4 0\nb.mp4 9\n", r"line 2: there is no class 9 in .*classes.txt \(numbers 0 to 1\)"),
        ("a.mp4,run\nb.mp4,jmp\n", "line 2: there is no class 'jmp'.*Did you mean 'jump'"),
        ("a.mp4\nb.mp4\n", "line 1: 'a.mp4' has no label"),
        ("path,label\n", "has a header, but lists no videos"),
        ("# nothing yet\n", "lists no videos"),
        ("a.mp4,0,0.5,2\n", "line 1: 4 columns, but no header"),
        ("x/a.mp4 0\ny.mp4 1\n", r"none of its 2 videos is there \(first: .*x/a.mp4\).*--root"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, words):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "classes.txt").write_text("run\njump\n")
    with pytest.raises(DataError, match=words):
        read_data(tmp_path / "list.txt")


def test_missing_files_are_counted_and_left_out(tmp_path):
    touch(tmp_path, "a.mp4", "c.avi", "list.txt")
    (tmp_path / "list.txt").write_text("a.mp4 x\nb.mp4 y\nc.mp4 y\n")
    videos = read_data(tmp_path / "list.txt")
    # c.mp4 has become c.avi, as after a conversion.
    assert relative(videos, tmp_path) == ["a.mp4", "c.avi"] and videos.missing == ("b.mp4",)
    assert "1 of 3 videos" in videos.notes[0] and "b.mp4" in videos.notes[0]
    assert len(read_data(tmp_path / "list.txt", must_exist=False)) == 3


def test_root_and_absolute_paths(tmp_path):
    touch(tmp_path, "videos/a.mp4", "else/b.mp4")
    (tmp_path / "list.txt").write_text(f"a.mp4 x\n{tmp_path}/else/b.mp4 y\n")
    videos = read_data(tmp_path / "list.txt", root=tmp_path / "videos")
    assert relative(videos, tmp_path) == ["videos/a.mp4", "else/b.mp4"]
    with pytest.raises(DataError, match="no folder .*nowhere"):
        read_data(tmp_path / "list.txt", root=tmp_path / "nowhere")


def test_names_in_other_encodings(tmp_path):
    touch(tmp_path, "caf\u00e9.mp4", "u\u0308ber.mp4", "日本.mp4")
    lines = {
        "latin.txt": "caf\u00e9.mp4 0\n".encode("latin-1"),
        "nfc.txt": "\u00fcber.mp4 0\n".encode(),
        "bom16.txt": "日本.mp4 0\n".encode("utf-16"),
    }
    for name, data in lines.items():
        (tmp_path / name).write_bytes(data)
        assert len(read_data(tmp_path / name)) == 1, name


def test_conflicting_lines_make_a_multi_label_set(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 x\na.mp4 y\nb.mp4 x\nb.mp4 x\n")
    videos = read_data(tmp_path / "list.txt")
    assert videos.multi_label and videos.labels_array().tolist() == [[1, 1], [1, 0]]
    assert "1 of 2 videos with several labels" in videos.notes[0]


# ------------------------------------------------------------------------------------ CSV


def test_csv_with_header(tmp_path):
    touch(tmp_path, "a, b.mp4", 'q"uote.mp4', "c.mp4")
    (tmp_path / "d.csv").write_text(
        "\ufeffPath,Label,start,end,group,comment\n"
        '"a, b.mp4",long jump,1.5,3,film 1,"two\nlines"\n'
        '"q""uote.mp4",run,,,film 2\n\n'
        "c.mp4,run,,2.5,,\n"
    )
    videos = read_data(tmp_path / "d.csv")
    assert relative(videos, tmp_path) == ["a, b.mp4", 'q"uote.mp4', "c.mp4"]
    assert labels(videos) == ["long jump", "run", "run"]
    first, second, third = videos.records
    assert (first.start, first.end, first.group) == (1.5, 3.0, "film 1")
    assert (second.start, second.end, second.group) == (None, None, "film 2")
    assert (third.start, third.end, third.group) == (None, 2.5, None)


def test_csv_with_several_labels(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "d.csv").write_text("path,label\na.mp4,dog;water\nb.mp4,water | ball\nb.mp4,dog\n")
    videos = read_data(tmp_path / "d.csv")
    assert videos.multi_label and videos.class_names == ("ball", "dog", "water")
    assert videos.labels_array().tolist() == [[0, 1, 1], [1, 1, 1]]
    assert videos.labels_array().dtype == np.uint8
    (tmp_path / "classes.txt").write_text("dog;water\nwater\nball\ndog\n")
    assert read_data(tmp_path / "d.csv").records[0].labels == (0,)  # a name may hold ";"


def test_csv_with_semicolons_and_parts(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "d.csv").write_text("video;class;subset\na.mp4;x|y;training\nb.mp4;x;validation\n")
    assert find_splits(tmp_path / "d.csv") == ("train", "val")
    assert relative(read_data(tmp_path / "d.csv"), tmp_path) == ["a.mp4"]
    assert relative(read_data(tmp_path / "d.csv", split="val"), tmp_path) == ["b.mp4"]
    assert len(read_data(tmp_path / "d.csv", split="all")) == 2
    with pytest.raises(UsageError, match="no part 'test'; it has train, val"):
        read_data(tmp_path / "d.csv", split="test")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.mp4", "line 3: the line breaks off, it has 1 of the 4 columns"),
        ("a.mp4,,1,2", "line 3: a.mp4 has no label"),
        (",x,1,2", "line 3: the column 'path' is empty"),
        ("a.mp4,x,one,2", "line 3: start must be a number of seconds.*'one'"),
        ("a.mp4,x,3,2", r"line 3: the segment ends \(2 s\) before it starts \(3 s\)"),
        ("a.mp4,x,-1,2", "line 3: start must be"),
        ('"a.mp4,x,1,2', "line 3: not valid CSV"),
    ],
)
def test_csv_errors_name_the_line(tmp_path, row, words):
    touch(tmp_path, "a.mp4")
    (tmp_path / "d.csv").write_text(f"path,label,start,end\na.mp4,x,,\n{row}\n")
    with pytest.raises(DataError, match=words) as caught:
        read_data(tmp_path / "d.csv")
    assert "d.csv, line 3" in str(caught.value)


def test_a_video_in_which_nothing_happens_is_background(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = "a.mp4,1,2,goal\nb.mp4,,,\nc.mp4,0,4,corner\n"
    (tmp_path / "d.csv").write_text(f"video,start,end,label\n{rows}")
    found = read_data(tmp_path / "d.csv")
    assert found.class_names == ("background", "corner", "goal")
    assert [record.labels for record in found.records] == [(2,), (0,), (1,)]
    assert (found.records[1].start, found.records[1].end) == (None, None)
    assert "1 video without a label: a clip each" in found.notes[0]
    # Background by the name that it has there; a model without such a class is not asked for it.
    (tmp_path / "e.csv").write_text(f"video,start,end,label\n{rows}c.mp4,4,9,Background\n")
    assert read_data(tmp_path / "e.csv").class_names == ("Background", "corner", "goal")
    less = read_data(tmp_path / "d.csv", class_names=("corner", "goal"))
    assert [record.labels for record in less.records] == [(1,), (0,)]
    assert 'left out: there is no class "background"' in less.notes[0]
    over_time = read_data(tmp_path / "d.csv", per_frame=True)
    assert [record.labels for record in over_time.records] == [(0, 2), (0,), (1,)]
    with pytest.raises(DataError, match="a.mp4 has no label"):
        (tmp_path / "f.csv").write_text("video,start,end,label\na.mp4,1,2,\n")
        read_data(tmp_path / "f.csv")


def test_csv_without_labels(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "d.csv").write_text("path,start\na.mp4,1\n")
    with pytest.raises(DataError, match="line 2: a.mp4 has no label.*column `label`"):
        read_data(tmp_path / "d.csv")
    videos = read_data(tmp_path / "d.csv", require_labels=False)
    assert videos.records[0].labels == ()
    with pytest.raises(DataError, match="a.mp4 has no labels"):
        videos.labels_array()


# ------------------------------------------------------------------------------- Kinetics


def test_kinetics_csv(tmp_path):
    touch(tmp_path, "kinetics/train/long jump/aaaaaaaaaaa_000010_000020.mp4",
          "kinetics/train/air drumming/-b_bbbbbbbb.webm", "kinetics/val/x/ccccccccccc.mkv",
          "kinetics/val/x/ddddddddddd_3_13.avi")  # fmt: skip
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        '"long jump",aaaaaaaaaaa,10,20,train,0\n'
        "air drumming,-b_bbbbbbbb,65,75,train,0\n"
        "air drumming,-b_bbbbbbbb,100,110,train,0\n"
        "long jump,ccccccccccc,0,10,validate,0\n"
        "long jump,ddddddddddd,3,13,test,0\n"
        "long jump,eeeeeeeeeee,3,13,train,0\n"
    )
    videos = read_data(tmp_path / "k.csv", root=tmp_path / "kinetics")
    cut_out, first, second = videos.records
    assert (cut_out.start, cut_out.end) == (None, None)  # cut out already
    assert (first.start, first.end, second.start) == (65.0, 75.0, 100.0)
    assert first.group == second.group == "-b_bbbbbbbb" != cut_out.group
    assert labels(videos) == ["long jump", "air drumming", "air drumming"]
    assert videos.missing == ("eeeeeeeeeee",)
    assert find_splits(tmp_path / "k.csv") == ("train", "val", "test")
    (val,) = read_data(tmp_path / "k.csv", split="val").records
    assert (val.start, val.end) == (0.0, 10.0) and val.path.endswith("ccccccccccc.mkv")
    (test,) = read_data(tmp_path / "k.csv", split="test").records
    assert (test.start, test.path[-20:]) == (None, "ddddddddddd_3_13.avi")


def test_kinetics_class_order_comes_from_the_label_map(shared, tmp_path):
    text = (shared / "oracles/annotations/kinetics400/label_map.txt").read_text()
    (tmp_path / "label_map.txt").write_text(text)
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nzumba,a,0,10,train\nabseiling,b,0,10,train\n"
    )
    videos = read_data(tmp_path / "k.csv")
    assert len(videos.class_names) == 400 and videos.labels_array().tolist() == [399, 0]
    assert "400 classes" in videos.notes[0] and "2 in use" in videos.notes[0]


# --------------------------------------------------------------------- UCF101 and HMDB51


@pytest.fixture(scope="module")
def ucf101(shared, tmp_path_factory):
    """UCF101's real lists, and an empty file for every video that they name."""
    source, top = shared / "oracles/annotations/ucf101", tmp_path_factory.mktemp("ucf")
    (top / "lists").mkdir()
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        data = (source / name).read_bytes()
        (top / "lists" / name).write_bytes(data)
        if "list" in name:
            touch(top / "videos", *(line.split()[0] for line in data.decode().splitlines()))
    return top


def test_ucf101_lists(ucf101, shared):
    videos = read_data(ucf101 / "lists/trainlist01.txt", root=ucf101 / "videos")
    assert len(videos) == 9537 and len(videos.class_names) == 101
    assert videos.class_names[0] == "ApplyEyeMakeup" and videos.class_names[100] == "YoYo"
    assert all(Path(r.path).parent.name == videos.class_names[r.labels[0]] for r in videos.records)
    assert videos.records[0].group == "v_ApplyEyeMakeup_g08" and not videos.notes
    test = read_data(ucf101 / "lists/testlist01.txt", root=ucf101 / "videos")
    assert len(test) == 3783 and test.class_names == videos.class_names
    assert not {r.group for r in videos.records} & {r.group for r in test.records}


def test_ucf101_folder_of_lists(ucf101):
    lists, root = ucf101 / "lists", ucf101 / "videos"
    assert set(find_splits(lists)) == {"train", "val", "test", "train1", "val1", "test1"}
    assert len(read_data(lists, root=root)) == len(read_data(lists, root=root, split="train1"))
    assert len(read_data(lists, root=root, split="val")) == 3783
    assert len(read_data(lists, root=root, split="all")) == 9537 + 3783
    with pytest.raises(UsageError, match="no part 'train2'"):
        read_data(lists, root=root, split="train2")


def test_ucf101_without_class_file_and_without_class_folders(ucf101, tmp_path):
    lines = (ucf101 / "lists/trainlist01.txt").read_bytes().splitlines(keepends=True)
    (tmp_path / "trainlist01.txt").write_bytes(b"".join(lines[::50]))
    (tmp_path / "testlist01.txt").write_bytes(b"".join(lines[::50]).replace(b" 1\r", b"\r"))
    names = [Path(line.split()[0].decode()).name for line in lines[::50]]
    touch(tmp_path, *names)
    train = read_data(tmp_path / "trainlist01.txt")
    assert train.class_names[:2] == ("ApplyEyeMakeup", "ApplyLipstick")
    for record, label in zip(train.records, labels(train), strict=True):
        assert record.group.lower().startswith(f"v_{label}_g".lower())


@pytest.fixture(scope="module")
def hmdb51(shared, tmp_path_factory):
    """HMDB51's real split files, and an empty file for every video that they name."""
    top = tmp_path_factory.mktemp("hmdb")
    (top / "splits").mkdir()
    for source in (shared / "oracles/annotations/hmdb51").iterdir():
        (top / "splits" / source.name).write_bytes(source.read_bytes())
        class_name = source.name.split("_test_split")[0]
        files = [line.rstrip()[:-2] for line in source.read_text().splitlines()]
        touch(top / "videos" / class_name, *files)
    return top


def test_hmdb51_folder_of_splits(hmdb51):
    splits, root = hmdb51 / "splits", hmdb51 / "videos"
    assert {"train", "val", "train1", "test3"} <= set(find_splits(splits))
    for number in (1, 2, 3):
        train = read_data(splits, root=root, split=f"train{number}")
        test = read_data(splits, root=root, split=f"test{number}")
        assert train.class_names == ("hug", "kick", "punch", "push", "shake_hands", "wave")
        assert train.class_counts().tolist() == [70] * 6  # as HMDB51's paper says
        assert test.class_counts().tolist() == [30] * 6
        assert not {r.path for r in train.records} & {r.path for r in test.records}
    assert len(read_data(splits, root=root)) == 420  # training part of split 1
    every = {p for p in root.rglob("*") if p.is_file()}
    assert len(read_data(splits, root=root, split="all")) == len(every)


def test_hmdb51_single_file_and_groups(hmdb51):
    file, root = hmdb51 / "splits/kick_test_split1.txt", hmdb51 / "videos"
    assert len(read_data(file, root=root)) == 70
    assert len(read_data(file, root=root, split="test")) == 30
    groups = {r.group for r in read_data(file, root=root).records}
    assert "Best_fight_scene_in_history_of_movie_kick" in groups and None not in groups


def test_hmdb51_error_names_the_line(tmp_path):
    (tmp_path / "run_test_split1.txt").write_text("a.avi 1 \nb.avi 3 \n")
    with pytest.raises(DataError, match=r"run_test_split1.txt, line 2: .*found 'b.avi 3'"):
        read_data(tmp_path / "run_test_split1.txt")


# --------------------------------------------------------- Sports-1M, UT-Interaction, JSON


def test_sports1m(tmp_path):
    touch(tmp_path, "CX-BdDHW0Ho.mp4", "local file.mp4", "x.mp4")
    (tmp_path / "train_partition.txt").write_text(
        "http://www.youtube.com/watch?v=CX-BdDHW0Ho 371,385\n"
        "https://youtu.be/NotThere123 3\nlocal file.mp4 0\ngs://bucket/far.mp4 385,2\n"
    )
    (tmp_path / "labels.txt").write_text("".join(f"sport {i}\n" for i in range(487)))
    videos = read_data(tmp_path / "train_partition.txt")
    assert videos.multi_label and len(videos.class_names) == 487
    assert [r.labels for r in videos.records] == [(371, 385), (0,), (385, 2)]
    assert videos.records[0].path == str(tmp_path / "CX-BdDHW0Ho.mp4")
    assert videos.records[2].path == "gs://bucket/far.mp4" and videos.missing == ("NotThere123",)
    assert videos.labels_array().sum(axis=1).tolist() == [2, 1, 2]


def test_ut_interaction_as_it_stands(shared):
    top = shared / "data/ut_interaction"
    names = ("handshake", "hug", "kick", "point", "punch", "push")
    for fold in range(4):
        parts = [read_data(top / f"fold{fold}_{part}.csv") for part in ("train", "test")]
        assert sum(map(len, parts)) == 120
        for videos in parts:
            assert videos.class_names == names and not videos.missing and not videos.notes
            found = [Path(r.path).parent.name for r in videos.records]
            assert found == labels(videos)
    by_header = read_data(top / "clips.csv")
    assert len(by_header) == 120 and by_header.class_names == names


def test_json(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = [
        {"path": "a.mp4", "label": "x", "start": 1, "end": 2.5, "group": 7},
        {"path": "b.mp4", "labels": ["x", "y"]},
    ]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    first, second = read_data(tmp_path / "d.json").records
    assert (first.labels, first.start, first.end, first.group) == ((0,), 1.0, 2.5, "7")
    assert second.labels == (0, 1)
    (tmp_path / "d.json").write_text('{"a.mp4": 1, "b.mp4": 0}')
    assert read_data(tmp_path / "d.json").labels_array().tolist() == [1, 0]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [r.labels for r in read_data(tmp_path / "d.jsonl").records] == [(0,), (0, 1)]
    (tmp_path / "d.jsonl").write_text(json.dumps(rows[0]) + '\n{"path": "b.mp4"')
    with pytest.raises(DataError, match=r"d.jsonl, line 2: not valid JSON"):
        read_data(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"path": "a.mp4",\n "label" "x"}]', "d.json, line 2: not valid JSON"),
        ('[{"label": "x"}]', "entry 1: it has no `path`"),
        ('[{"path": "a.mp4", "label": []}]', "entry 1: a.mp4 has no label"),
        ('[{"path": "a.mp4", "label": {"a": 1}}]', "entry 1: a label must be a name or a number"),
        ("[3]", "entry 1: expected an object"),
        ('{"version": "1.3", "database": {}}', "ActivityNet's form"),
    ],
)
def test_json_errors(tmp_path, text, words):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DataError, match=words):
        read_data(tmp_path / "d.json")


def test_activitynet_files_are_told_apart(shared):
    top = shared / "oracles/annotations"
    with pytest.raises(DataError, match="none of its 242 videos is there"):
        read_data(top / "activitynet13/activitynet_form_sample.json")
    with pytest.raises(DataError, match="has no label"):
        read_data(top / "activitynet13/bsn_video_info_sample.csv")


# -------------------------------------------------------------------------------- remote


def test_remote_folders_through_a_hook():
    tree = {
        "gs://b/set": ["train/", "val/", "notes.txt"],
        "gs://b/set/train": ["run/", "jump/"],
        "gs://b/set/train/run": ["1.mp4", "2.mp4", "x.txt"],
        "gs://b/set/train/jump": ["3.mp4"],
        "gs://b/set/val": ["run/"],
        "gs://b/set/val/run": ["4.mp4"],
    }
    videos = read_data("gs://b/set/", listdir=tree.__getitem__)
    assert [r.path for r in videos.records] == [
        "gs://b/set/train/jump/3.mp4", "gs://b/set/train/run/1.mp4", "gs://b/set/train/run/2.mp4",
    ]  # fmt: skip
    assert find_splits("gs://b/set", listdir=tree.__getitem__) == ("train", "val")
    with pytest.raises(DataError, match="cannot be listed"):
        read_data("gs://b/set")


def test_remote_list(tmp_path):
    (tmp_path / "far.txt").write_text("a/1.mp4 x\n")
    videos = read_data("mem://b/far.txt", opener=lambda path: open(tmp_path / path[8:], "rb"))
    assert videos.records == (VideoRecord("mem://b/a/1.mp4", (0,)),)
    with pytest.raises(DataError, match="cannot be opened here"):
        read_data("mem://b/far.txt")


# ----------------------------------------------------------------------------------- size


def test_a_hundred_thousand_rows_list_each_folder_once(tmp_path, monkeypatch):
    touch(tmp_path, *(f"c{i}/v{j}.mp4" for i in range(20) for j in range(25)))
    rows = "".join(f"c{i % 20}/v{i // 20 % 25}.mp4,c{i % 20},{i},{i + 1}\n" for i in range(100_000))
    (tmp_path / "big.csv").write_text("path,label,start,end\n" + rows)
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os.path, "exists", lambda path: listed.append(path) or True)
    videos = read_data(tmp_path / "big.csv")
    assert len(videos) == 100_000
    assert len(listed) <= 20 + 5


def test_nothing_heavy_is_imported():
    code = (
        "import sys, kvideo.data.annotations, kvideo.data.demo, kvideo.data.check;"
        "print([m for m in ('tensorflow', 'keras', 'av', 'cv2', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_class_file_with_a_name_twice(tmp_path):
    with pytest.raises(DataError, match="two classes have the name 'a'"):
        class_names.parse_class_names("a\nb\na\n", "classes.txt")
    with pytest.raises(DataError, match="two classes have the number 3"):
        class_names.parse_class_names("3 a\n3 b\n", "classes.txt")
    names = class_names.parse_class_names("action 1\naction 2\n", "classes.txt").names
    assert names == ("action 1", "action 2")


def test_select_and_without(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "b/3.mp4")
    videos = read_data(tmp_path)
    assert relative(videos.select([2, 0]), tmp_path) == ["b/3.mp4", "a/1.mp4"]
    assert relative(videos.without([tmp_path / "b/2.mp4"]), tmp_path) == ["a/1.mp4", "b/3.mp4"]


def test_class_names_beside_a_list_must_be_those_expected(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text("a.mp4 0\nb.mp4 1\n")
    (tmp_path / "classes.txt").write_text("0 hugging\n1 kicking\n")
    with pytest.raises(DataError, match="hugging and kicking, none of which.*hug and kick"):
        read_data(tmp_path / "list.csv", class_names=("hug", "kick"))
    turned = read_data(tmp_path / "list.csv", class_names=("kicking", "hugging"))
    assert [record.labels for record in turned.records] == [(1,), (0,)]
    # Classes that are mere numbers, and lists without names, go by position; the latter says so.
    numbers = read_data(tmp_path / "list.csv", class_names=("0", "1"))
    assert [record.labels for record in numbers.records] == [(0,), (1,)] and not numbers.notes
    (tmp_path / "classes.txt").unlink()
    plain = read_data(tmp_path / "list.csv", class_names=("hug", "kick"))
    assert "taken as places" in plain.notes[0]
