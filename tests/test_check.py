"""`kvideo check`: what is wrong with which file, and the quarantine file."""

import json
import os
import re
import threading

import av
import numpy as np
import pytest
from click.testing import CliRunner

from kvideo.cli import cli
from kvideo.data.annotations import VideoRecord, VideoSet, read_data
from kvideo.data.check import (
    BadVideo,
    CheckReport,
    check_videos,
    read_quarantine,
    videos_to_check,
    without_quarantined,
    write_quarantine,
)
from kvideo.data.decode import open_video
from kvideo.errors import DataError, KVideoError


def write_video(path, frames=30, seed=0, codec="libx264", rate=10):
    """A small video of noise, so that every packet has some size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def cut(source, target, part):
    data = source.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data[: int(len(data) * part)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes; one file of each kind that cannot be used."""
    top = tmp_path_factory.mktemp("set")
    good = write_video(top / "a/good.mp4")
    write_video(top / "a/other.avi", seed=1, codec="mpeg4")
    write_video(top / "b/matroska.mkv", seed=2)
    write_video(top / "b/single.mp4", frames=1, seed=3)
    (top / "b/again.mp4").write_bytes(good.read_bytes())
    (top / "a/empty.mp4").touch()
    (top / "a/text.mp4").write_text("this is no video")
    cut(good, top / "a/no_index.mp4", 0.6)
    cut(top / "a/other.avi", top / "b/cut.avi", 0.5)
    cut(top / "b/matroska.mkv", top / "b/cut.mkv", 0.4)
    (top / "b/gone.mp4").symlink_to(top / "nowhere.mp4")
    return top


EXPECTED = {
    "a/empty.mp4": "empty",
    "a/text.mp4": "unreadable",
    "a/no_index.mp4": "truncated",
    "b/again.mp4": "duplicate",
    "b/cut.avi": "truncated",
    "b/cut.mkv": "truncated",
    "b/gone.mp4": "missing",
    "b/single.mp4": "too_short",
}


def test_every_kind_is_found(folder):
    done = []
    report = check_videos(
        read_data(folder), workers=2, on_progress=lambda *counts: done.append(counts)
    )
    found = {os.path.relpath(video.path, folder): video.reason for video in report.bad}
    assert found == EXPECTED
    assert done == [(i + 1, 11) for i in range(11)]
    assert report.num_files == 11 and report.seconds == pytest.approx(9.0, abs=0.2)
    assert report.counts()["truncated"] == 3
    details = {os.path.relpath(video.path, folder): video.detail for video in report.bad}
    assert details["b/again.mp4"].endswith("a/good.mp4, with another label")
    assert all(detail for detail in details.values())


def test_minimum_length_and_segments(folder):
    good = str(folder / "a/good.mp4")
    records = (VideoRecord(good, (0,), 1.0, 2.0), VideoRecord(good, (0,), 60.0, 70.0))
    report = check_videos(VideoSet(records, ("a",)))
    assert not report.bad and "60 s lies behind the end (3.00 s)" in report.notes[0]
    (bad,) = check_videos(VideoSet(records[1:], ("a",))).bad
    assert bad.reason == "too_short" and "behind the end" in bad.detail
    (bad,) = check_videos(VideoSet(records[:1], ("a",)), min_seconds=3.5).bad
    assert bad.reason == "too_short" and "at least 3.5 s" in bad.detail
    assert not check_videos(VideoSet(records[:1], ("a",)), min_seconds=3.0).bad


def segments_of(folder, tmp_path, *rows):
    """What `check_videos` says of rows of segments of a video that lasts 3 s."""
    lines = [f"{folder / 'a/good.mp4'},{row}" for row in rows]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end,label", *lines]))
    return check_videos(videos_to_check(tmp_path / "list.csv"))


def test_segments_that_go_past_the_end(folder, tmp_path):
    report = segments_of(folder, tmp_path, "1,8,kick")
    (bad,) = report.bad
    assert not report.notes and bad.reason == "labels"
    assert bad.detail == "the segment from 1 to 8 s goes past the end (3.00 s)"
    report = segments_of(folder, tmp_path, "0,1,hug", "1,8,kick")
    assert not report.bad and "from 1 to 8 s goes past the end" in report.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,2,hug", "1,3,kick"), r"'hug' \(0 to 2 s\) and 'kick' \(1 to 3 s\) overlap\)"),
        (("0,2,hug;kick",), r"several labels for the segment from 0 s\)"),
        (("0,3.28,hug",), r"from 0 to 3.28 s lies outside the video, which lasts 3.00 s\)"),
    ],
)
def test_segments_that_suit_clips_only_are_noted(folder, tmp_path, rows, message):
    report = segments_of(folder, tmp_path, *rows)
    assert not report.bad
    (note,) = report.notes
    assert re.search("label for each frame do not take the segments of 1 file .*" + message, note)


def test_good_segments_are_good(folder, tmp_path):
    report = segments_of(folder, tmp_path, "0,1,hug", "1,2,kick", "2,3.05,hug")
    assert not report.bad and not report.notes


def test_real_clips(shared):
    """All files of EXPECTED.json that open are good, those that do not are told."""
    expected = json.loads((shared / "data/clips/EXPECTED.json").read_text())
    names = [n for n, v in expected.items() if v.get("width", 0) <= 640 or "error" in v]
    top = shared / "data/clips"
    records = tuple(VideoRecord(str(top / name)) for name in names)
    bad = {v.path: v.reason for v in check_videos(VideoSet(records, ())).bad}
    for name in names:
        value, reason = expected[name], bad.get(str(top / name))
        if "error" in value:
            assert reason in ("unreadable", "no_video"), name
        else:
            assert reason == ("too_short" if value["frames"] == 1 else None), name


def test_interrupt_stops_at_once(folder, tmp_path):
    """Ctrl-C in the middle: the file being decoded is left, the others are not begun."""
    write_video(tmp_path / "long.mp4", frames=400)
    paths = [tmp_path / "long.mp4", *sorted(folder.rglob("*.mp4"))]
    begun, seen = [], threading.Event()

    def decoder(path, **options):
        begun.append(path)
        if path.endswith("long.mp4"):
            seen.set()
        else:
            seen.wait(10)
        return open_video(path, **options)

    def interrupt(done, total):
        raise KeyboardInterrupt

    videos = VideoSet(tuple(VideoRecord(str(path)) for path in paths), ())
    with pytest.raises(KeyboardInterrupt):
        check_videos(videos, workers=2, on_progress=interrupt, decoder=decoder)
    assert len(begun) < len(paths)


def test_command(folder, tmp_path):
    quarantine = tmp_path / "bad.txt"
    result = CliRunner().invoke(cli, ["check", str(folder), "--quarantine", str(quarantine)])
    assert result.exit_code == 1
    for name in EXPECTED:
        assert name in result.stdout
    assert "8 files cannot be used; 3 good" in result.stdout
    assert "11/11" in result.stderr and "11/11" not in result.stdout
    assert set(read_quarantine(quarantine)) == {str(folder / name) for name in EXPECTED}

    kept = without_quarantined(read_data(folder), quarantine)
    assert len(kept) == 3 and "8 videos left out" in kept.notes[-1]
    again = CliRunner().invoke(cli, ["check", str(folder / "a/good.mp4")])
    assert again.exit_code == 0 and "1 file: all are good" in again.stdout


def test_command_json(folder):
    result = CliRunner().invoke(cli, ["check", str(folder), "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (document["files"], document["good"]) == (11, 3)
    assert {os.path.relpath(b["path"], folder): b["reason"] for b in document["bad"]} == EXPECTED


def test_lists_tell_what_is_missing(folder, tmp_path):
    (tmp_path / "list.txt").write_text("a/good.mp4 0\na/lost.mp4 0\n")
    videos = videos_to_check(tmp_path / "list.txt", root=folder)
    (bad,) = check_videos(videos).bad
    assert (bad.path, bad.reason) == ("a/lost.mp4", "missing")
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "list.txt")])
    assert result.exit_code == 1 and "--root" in result.stderr and "Traceback" not in result.stderr


def test_folders_without_classes_can_be_checked(folder, tmp_path):
    assert len(videos_to_check(folder / "b")) == 6
    with pytest.raises(DataError, match="is empty"):
        videos_to_check(tmp_path)


def test_quarantine_cannot_be_written(folder, tmp_path):
    arguments = ["check", str(folder), "--quarantine", str(tmp_path / "no/where.txt")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and "there is no folder" in result.stderr


def test_quarantine_file_with_odd_names(tmp_path):
    names = ["/a b.mp4", "/tab\there.mp4", "/line\nbreak.mp4", '/"quoted".mp4', "/日本.mp4"]
    names += ["#x.mp4", "gs://b/x.mp4", "/not utf-8 \udcff.mp4"]
    bad = tuple(BadVideo(name, "unreadable", "two\nlines\tand a tab") for name in names)
    file = tmp_path / "bad.txt"
    write_quarantine(file, CheckReport("x", 9, 0.0, bad))
    read = read_quarantine(file)
    assert list(read) == [str(tmp_path / n) if n == "#x.mp4" else n for n in names]
    assert set(read.values()) == {"unreadable: two lines and a tab"}


def test_quarantine_file_by_hand(folder, tmp_path):
    file = folder / "by_hand.txt"
    file.write_bytes("\ufeff# mine\r\na/good.mp4\r\n\r\nb/again.mp4\tugly\r\n".encode())
    try:
        read = read_quarantine(file)
    finally:
        file.unlink()
    assert read == {str(folder / "a/good.mp4"): "", str(folder / "b/again.mp4"): "ugly"}
    with pytest.raises(DataError, match="cannot read the quarantine file .*nowhere"):
        read_quarantine(tmp_path / "nowhere")


def test_quarantine_of_everything(folder, tmp_path):
    videos = read_data(folder)
    bad = tuple(BadVideo(path, "empty", "") for path in videos.paths)
    write_quarantine(tmp_path / "q", CheckReport("x", 9, 0.0, bad))
    with pytest.raises(DataError, match="names every video"):
        without_quarantined(videos, tmp_path / "q")


def test_write_is_whole_or_not_at_all(tmp_path):
    (tmp_path / "dir").mkdir()
    with pytest.raises(KVideoError, match="is a folder"):
        write_quarantine(tmp_path / "dir", CheckReport("x", 0, 0.0, ()))
