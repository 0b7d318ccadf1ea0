"""What tensorflow-io does not decode rightly PyAV reads, and that is said once."""

import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from kvideo_tfio.decoder import open_video
from kvideo_tfio.native import Stream
from kvideo_tfio.suitability import (
    PacketSurvey,
    UnsuitableError,
    _header_layouts,
    _packet_layouts,
)
from videos import number_in, write

from kvideo.cli import cli
from kvideo.data.decode import open_video as with_pyav
from kvideo.errors import DecodeError

TIMES = [1.3, 0.0, 0.72, 0.72]


def bt709(stream) -> None:
    stream.codec_context.colorspace = 1


UNFIT = [
    ("width.mp4", {"size": (100, 64)}, "width is no multiple of 8"),
    ("ten.mp4", {"pix_fmt": "yuv420p10le"}, "pixel formats"),
    ("bt709.mp4", {"setup": bt709}, "colours other than BT.601"),
    ("full.mp4", {"pix_fmt": "yuvj420p"}, "(colours|pixel formats)"),
    ("stream.ts", {"container": "mpegts"}, "neither MP4"),
    ("vp9.mkv", {"codec": "libvpx-vp9"}, "codecs other than"),
    ("interlaced.mp4", {"options": {"flags": "+ildct", "x264-params": "tff=1"}}, "interlaced"),
    ("b.avi", {"codec": "mpeg4", "options": {"bf": "2"}}, "without a time for each frame"),
]


@pytest.mark.parametrize(("name", "how", "reason"), UNFIT, ids=[row[0] for row in UNFIT])
def test_unfit_videos_are_pyavs_with_one_warning(tmp_path: Path, name, how, reason) -> None:
    path = write(tmp_path / name, **how)
    again = tmp_path / f"again-{name}"
    shutil.copy(path, again)
    with pytest.warns(UserWarning, match=f"is read with PyAV.*{reason}") as caught:
        for file in (path, again):
            with open_video(file) as mine, with_pyav(file) as others:
                assert mine.info == others.info
                np.testing.assert_array_equal(mine.read(TIMES), others.read(TIMES))
                how = {"size": (24, 40)}
                for (time, picture), (wanted_time, wanted) in zip(
                    mine.frames(**how), others.frames(**how), strict=True
                ):
                    assert time == wanted_time
                    np.testing.assert_array_equal(picture, wanted)
    assert len(caught) == 1 and str(path) in str(caught[0].message)


def test_another_kind_is_another_warning(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "width.mp4", size=(100, 64)),
        write(tmp_path / "ten.mp4", pix_fmt="yuv420p10le"),
    ]
    with pytest.warns(UserWarning) as caught:
        for path in paths * 2:
            with open_video(path) as reader:
                reader.read([0.0])
    assert len(caught) == 2


def test_asking_for_nothing_but_the_description_warns_of_nothing(tmp_path: Path) -> None:
    with open_video(write(tmp_path / "width.mp4", size=(100, 64))) as reader:
        assert reader.info.width == 100


def test_files_that_are_not_local(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    with pytest.warns(UserWarning, match="not local") as caught:
        for _ in range(2):
            with open_video("far://a.mp4", opener=lambda _: open(path, "rb")) as reader:
                assert number_in(reader.read([0.4])[0]) == 10
    assert len(caught) == 1


def test_videos_of_shards(tmp_path: Path) -> None:
    folder, shards = tmp_path / "videos", tmp_path / "shards"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        write(folder / name / "0.mp4")
    done = CliRunner().invoke(cli, ["shard", str(folder), str(shards)])
    assert done.exit_code == 0, done.output
    path = f"{next(shards.rglob('*.tfrecord'))}#0"
    with (
        pytest.warns(UserWarning, match="videos of shards"),
        open_video(path) as mine,
        with_pyav(path) as others,
    ):
        np.testing.assert_array_equal(mine.read([0.0, 1.0]), others.read([0.0, 1.0]))


def test_cut_off_files(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mkv", options={"g": "5"})
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with (
        pytest.warns(UserWarning, match="cut off"),
        open_video(cut) as mine,
        with_pyav(cut) as others,
    ):
        assert mine.info.cut_off
        for (_, picture), (_, wanted) in zip(mine.frames(), others.frames(), strict=True):
            np.testing.assert_array_equal(picture, wanted)


@pytest.mark.parametrize("after", [0, 1, 12])
def test_frames_that_do_not_come(tmp_path: Path, monkeypatch, after: int) -> None:
    """The decoder stops at damage without a word; PyAV goes on from there."""
    path, right = write(tmp_path / "a.mp4"), Stream.next
    calls = [0]

    def stops(self: Stream) -> np.ndarray:
        calls[0] += 1
        return right(self)[: 0 if calls[0] > after else None]

    monkeypatch.setattr(Stream, "next", stops)
    with pytest.warns(UserWarning, match="fewer or more frames"), open_video(path) as reader:
        assert [number_in(picture) for _, picture in reader.frames()] == list(range(40))
    calls[0] = 0
    monkeypatch.setattr("kvideo_tfio.reader._warned", set())
    with pytest.warns(UserWarning, match="fewer or more frames"), open_video(path) as reader:
        assert [number_in(image) for image in reader.read(np.arange(40) / 25)] == list(range(40))


def test_frames_that_come_twice(tmp_path: Path, monkeypatch) -> None:
    path, right = write(tmp_path / "a.mp4"), Stream.next
    monkeypatch.setattr(Stream, "next", lambda self: right(self).repeat(2, axis=0))
    with pytest.warns(UserWarning, match="fewer or more frames"), open_video(path) as reader:
        assert number_in(reader.read([99.0])[0]) == 39


def test_a_first_picture_that_is_another(tmp_path: Path, monkeypatch) -> None:
    path, right = write(tmp_path / "a.mp4"), Stream.next
    monkeypatch.setattr(Stream, "next", lambda self: right(self)[:, ::-1])
    with pytest.warns(UserWarning, match="first picture"), open_video(path) as reader:
        assert number_in(reader.read([0.4])[0]) == 10


def test_sizes_that_change_on_the_way_never_reach_the_decoder(tmp_path: Path) -> None:
    """It would write beyond its pictures."""
    packets, formats = (
        [],
        [("a.ts", (96, 64), 0), ("b.ts", (640, 48), 1000), ("c.ts", (96, 64), 2000)],
    )
    for name, size, start in formats:
        stamps = [start + 40 * n for n in range(10)]
        path = write(tmp_path / name, size=size, frames=10, stamps=stamps, container="mpegts")
        with av.open(str(path)) as container:
            packets.append([packet for packet in container.demux(video=0) if packet.size])
    first, second, third = packets
    with pytest.raises(UnsuitableError, match="parameters change"):
        PacketSurvey("h264", None).stamps(first + second)
    assert len(PacketSurvey("h264", None).stamps(first + third)) == 20
    with pytest.raises(UnsuitableError, match="starts anew"):
        PacketSurvey("h264", None).stamps(third + first)


def test_parameters_in_headers_are_those_in_packets(tmp_path: Path) -> None:
    """In MP4 they come in another form."""
    for codec, name in (("libx264", "h264"), ("libx265", "hevc")):
        quiet = {"x265-params": "log-level=none:repeat-headers=1"} if name == "hevc" else {}
        repeated = {"x264-params": "repeat-headers=1"} if name == "h264" else quiet
        headers, layouts = [], []
        for container, options in (("mp4", quiet), ("mpegts", repeated)):
            path = write(tmp_path / name, codec, options=options, container=container)
            with av.open(str(path)) as opened:
                headers.append(opened.streams.video[0].codec_context.extradata)
                first = next(packet for packet in opened.demux(video=0) if packet.size)
                header = headers[-1] if container == "mp4" else None
                found = [
                    *_header_layouts(header, name),
                    *_packet_layouts(bytes(first), name, header),
                ]
                layouts.append({layout.rstrip(b"\0") for layout in found})
        assert layouts[0] == layouts[1] and len(layouts[0]) == 1
    with pytest.raises(UnsuitableError, match="damaged"):
        PacketSurvey("hevc", headers[0][:24]).stamps([])


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "cut", "sound"])
def test_broken_files_fail_as_with_pyav(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.mp4"
    whole = write(tmp_path / "whole.mp4")
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no video\n" * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut":
        path.write_bytes(whole.read_bytes()[:2000])
    elif kind == "sound":
        with av.open(str(path), "w") as output:
            stream = output.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 16000
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    with pytest.raises(DecodeError) as wanted:
        with_pyav(path)
    with warnings.catch_warnings(), pytest.raises(DecodeError) as mine:
        warnings.simplefilter("error")
        open_video(path)
    assert str(mine.value) == str(wanted.value) and mine.value.reason == wanted.value.reason
