"""Decoding: every real file of the test data, and written ones for what is not among them."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from video_files import number_in, picture, write

from kvideo.data.decode import open_video
from kvideo.data.frames import FrameSource
from kvideo.data.packets import Run
from kvideo.errors import DecodeError, UsageError

CLIPS = Path(os.environ.get("KVIDEO_TEST_DATA", ROOT.parent / "shared"), "data", "clips")
EXPECTED = (
    json.loads((CLIPS / "EXPECTED.json").read_text())
    if (CLIPS / "EXPECTED.json").exists()
    else {"no test data": {"error": "set KVIDEO_TEST_DATA"}}
)
DECODABLE = [name for name, found in EXPECTED.items() if "frames" in found]
SMALL = (36, 48)
X264 = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-pyramid=normal"
X265 = "keyint=12:min-keyint=12:scenecut=0:bframes=3:log-level=none"


def hashes(reader, size=None):
    """Times of all frames in order, and a checksum of each picture."""
    pairs = [(time, zlib.crc32(image)) for time, image in reader.frames(size=size)]
    times, sums = zip(*pairs, strict=True)
    return np.array(times), list(sums)


def shown_at(times, seconds, rate):
    """Index of the frame on display: the rule that `read` documents, said once more."""
    tolerance = min(1e-3, 0.25 / rate)
    return np.maximum(np.searchsorted(times, np.asarray(seconds) + tolerance, "right") - 1, 0)


def random_times(generator, last):
    """Scattered times, a dense clip, and times outside of the video."""
    yield generator.uniform(-0.2, last + 0.5, 4)
    yield generator.uniform(0, last) + np.arange(6) * generator.uniform(0.005, 0.1)
    yield np.sort(generator.uniform(0, last, 8))
    yield [last, 0.0, last + 100, last / 2, last / 2]


def assert_random_access(path, times, sums, size=None, rounds=2):
    """Whatever is read, in whatever order, is what decoding from the beginning gives."""
    generator = np.random.default_rng(0)
    with open_video(path) as kept:
        for number in range(rounds):
            for index, seconds in enumerate(random_times(generator, times[-1])):
                with contextlib.ExitStack() as stack:
                    fresh = (number + index) % 2 == 0
                    reader = stack.enter_context(open_video(path)) if fresh else kept
                    clip = reader.read(seconds, size=size)
                wanted = shown_at(times, seconds, kept.info.frame_rate)
                got = [zlib.crc32(image) for image in clip]
                assert got == [sums[place] for place in wanted], (fresh, seconds)


# --- real files -----------------------------------------------------------------------------------


def mean_luma(frame):
    plane = frame.planes[0]
    deep = frame.format.components[0].bits > 8
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(frame.height, -1)
    return rows[:, : frame.width].mean()


@pytest.mark.parametrize("name", DECODABLE)
def test_real_file_gives_what_is_expected(shared, name):
    expected = EXPECTED[name]
    with open_video(CLIPS / name) as reader:
        info = reader.info
        samples = {sample["index"]: sample for sample in expected["samples"].values()}
        stamps = []
        for stamp, frame in reader._source.in_order():
            luma = samples.get(len(stamps), {}).get("y")
            if luma is not None:
                assert mean_luma(frame) == pytest.approx(luma, abs=0.1)
            stamps.append(stamp)
        tick = reader._source.tick
        assert len(stamps) == expected["frames"]
        assert stamps[0] * tick == pytest.approx(expected["first_time"], abs=2e-4)
        assert stamps[-1] * tick == pytest.approx(expected["last_time"], abs=2e-4)
        assert (info.coded_width, info.coded_height) == (expected["width"], expected["height"])
        assert info.rotation == expected["rotation_cw"]
        assert info.num_frames == expected["declared_frames"]
        assert info.pixel_format == expected["pix_fmt"]
        assert info.codec == expected["codec"]
        assert info.frame_rate == pytest.approx(float(Fraction(expected["fps"])), rel=1e-3)
        assert info.duration == pytest.approx(expected["duration"], abs=0.6)
        assert not info.cut_off
        width = expected["width"] * Fraction((expected["sar"] or "1:1").replace(":", "/"))
        shape = [round(width), expected["height"]]
        if expected["rotation_cw"] % 180:
            shape.reverse()
        assert [info.width, info.height] == shape
        for index, sample in samples.items():
            image = reader.read([(stamps[index] - stamps[0]) * tick])[0]
            assert image.shape == (info.height, info.width, 3)
            assert image.mean((0, 1)) == pytest.approx(sample["rgb"], abs=3)


@pytest.mark.parametrize("name", DECODABLE)
def test_random_access_to_a_real_file(shared, name):
    with open_video(CLIPS / name) as reader:
        times, sums = hashes(reader, SMALL)
    assert np.all(np.diff(times) > 0)
    assert_random_access(CLIPS / name, times, sums, SMALL, rounds=1)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in DECODABLE])
def test_real_file_that_is_no_video(shared, name):
    reason = {"cannot be opened": "unreadable", "no video stream": "no_video"}
    with pytest.raises(DecodeError) as caught:
        open_video(CLIPS / name)
    assert caught.value.reason == reason[EXPECTED[name]["error"]]
    assert name in str(caught.value)


def test_real_files_are_read_without_detours(shared, monkeypatch):
    """A plain file is reached the quickest of the three ways: the other two are for odd ones."""
    ways = []
    near = FrameSource._near
    monkeypatch.setattr(
        FrameSource,
        "_near",
        lambda self, limits, skips: ways.append(skips) or near(self, limits, skips),
    )
    for name in ("R6llTwEh07w.mp4", "WUzgd7C1pWA.mp4", "basketball.mp4"):
        with open_video(CLIPS / "torchvision" / name) as reader:
            reader.read(np.linspace(0, 10, 32))
            reader.read([5.0, 5.1])
            reader.read([5.2, 5.3])
    assert ways == [True] * 9


# --- codecs and containers ------------------------------------------------------------------------

FILES = {
    "h264.mp4": dict(options={"x264-params": X264}),
    "open_groups.mp4": dict(options={"x264-params": X264 + ":open-gop=1"}),
    "refreshed.mp4": dict(options={"x264-params": "keyint=20:intra-refresh=1:scenecut=0"}),
    "interlaced.mp4": dict(options={"x264-params": X264 + ":tff=1"}),
    "one_keyframe.mp4": dict(options={"x264-params": "keyint=1000:scenecut=0"}),
    "fragments.mp4": dict(
        options={"x264-params": X264},
        container_options={"movflags": "frag_keyframe+empty_moov"},
    ),
    "h264.ts": dict(frames=140, options={"x264-params": X264}),
    "h264.mkv": dict(options={"x264-params": X264}),
    "h264.flv": dict(options={"x264-params": X264}),
    "h264.avi": dict(options={"x264-params": X264}),
    "raw.h264": dict(options={"x264-params": X264}),
    "ten_bits.mkv": dict(pix_fmt="yuv420p10le", options={"x264-params": X264}),
    "hevc_open_groups.mp4": dict(codec="libx265", options={"x265-params": X265 + ":open-gop=1"}),
    "hevc.ts": dict(codec="libx265", frames=140, options={"x265-params": X265}),
    "raw.hevc": dict(codec="libx265", options={"x265-params": X265}),
    "vp8_alpha.webm": dict(
        codec="libvpx", pix_fmt="yuva420p", options={"auto-alt-ref": "0", "cpu-used": "8"}
    ),
    "vp9.webm": dict(
        codec="libvpx-vp9",
        options={"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "5"},
    ),
    "vp9_alpha.webm": dict(codec="libvpx-vp9", pix_fmt="yuva420p", options={"cpu-used": "5"}),
    "av1.mp4": dict(codec="libsvtav1", options={"g": "12", "preset": "12"}),
    "mpeg1.mpg": dict(codec="mpeg1video", options={"g": "12", "bf": "2"}),
    "mpeg2.ts": dict(codec="mpeg2video", frames=140, options={"g": "12", "bf": "2"}),
    "mpeg2.vob": dict(codec="mpeg2video", options={"g": "12", "bf": "2"}),
    "mpeg2.mxf": dict(codec="mpeg2video", options={"g": "12", "bf": "2"}),
    "mpeg4.mp4": dict(codec="mpeg4", options={"g": "12", "bf": "2", "qmax": "4"}),
    "mpeg4_b_frames.avi": dict(codec="mpeg4", options={"g": "12", "bf": "2", "qmax": "4"}),
    "mpeg4.avi": dict(codec="mpeg4", options={"g": "12", "qmax": "4"}),
    "msmpeg4.avi": dict(codec="msmpeg4", options={"g": "12", "qmax": "4"}),
    "wmv2.wmv": dict(codec="wmv2", frames=140, options={"g": "12", "qmax": "4"}),
    "flv1.flv": dict(codec="flv", options={"g": "12", "qmax": "4"}),
    "h263.3gp": dict(codec="h263", size=(176, 144), options={"g": "12", "qmax": "4"}),
    "mjpeg.avi": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "prores.mov": dict(codec="prores_ks", pix_fmt="yuv422p10le"),
    "ffv1.mkv": dict(codec="ffv1"),
    "animation.gif": dict(codec="gif", pix_fmt="rgb8"),
    "animation.apng": dict(codec="apng", pix_fmt="rgb24"),
    "ivf.ivf": dict(codec="libvpx", options={"g": "12"}),
}


@pytest.mark.parametrize("name", FILES)
def test_codecs_and_containers(tmp_path, name):
    settings = {"frames": 60, **FILES[name]}
    path = write(tmp_path / name, **settings)
    with open_video(path) as reader:
        numbers = [number_in(image) for _, image in reader.frames()]
        times, sums = hashes(reader)
        assert list(reader.frame_times()) == list(times)
        assert reader.info.frame_rate == 25
    assert numbers == list(range(settings["frames"]))
    # In program streams several pictures may share one stamp, and FFmpeg guesses the others.
    accuracy = 0.09 if name.endswith((".vob", ".mpg")) else 1.1e-3
    assert times == pytest.approx(np.arange(settings["frames"]) / 25, abs=accuracy)
    if len(set(times)) == len(times):
        assert_random_access(path, times, sums)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path, ending):
    gaps = np.random.default_rng(3).integers(2, 400, 60)
    gaps[20:40] = 20  # mixed: in the middle constant
    stamps = np.cumsum(gaps).tolist()
    path = write(
        tmp_path / f"variable.{ending}",
        options={"x264-params": X264},
        stamps=stamps,
        time_base="1/1000",
    )
    true = (np.array(stamps) - stamps[0]) / 1000
    with open_video(path) as reader:
        assert reader.frame_times() == pytest.approx(true, abs=1e-3)
        between = (true[:-1] + true[1:]) / 2
        clip = reader.read(np.concatenate([true, between, true - 0.0015]))
        numbers = [number_in(image) for image in clip]
        times, sums = hashes(reader)
    assert numbers == [*range(60), *range(59), 0, *range(59)]
    assert_random_access(path, times, sums)


@pytest.mark.parametrize(
    ("name", "stamps", "time_base"),
    [
        ("late.mkv", [i + 300 for i in range(60)], "1/25"),
        ("late.ts", [i + 3000 for i in range(60)], "1/25"),
        ("huge_time_base.mp4", [i * 40_000_000 + 7 for i in range(60)], "1/1000000000"),
    ],
)
def test_stamps_that_do_not_begin_at_zero(tmp_path, name, stamps, time_base):
    path = write(tmp_path / name, options={"x264-params": X264}, stamps=stamps, time_base=time_base)
    with open_video(path) as reader:
        assert reader.frame_times() == pytest.approx(np.arange(60) / 25, abs=1e-3)
        assert [number_in(image) for image in reader.read([0, 1, 2, -1, 99])] == [0, 25, 50, 0, 59]
        assert reader.info.duration == pytest.approx(2.4, abs=0.1)


def test_edit_list_hides_the_beginning(tmp_path):
    """Negative stamps become an edit list, which says that those frames are not shown."""
    path = write(
        tmp_path / "edited.mp4",
        frames=90,
        options={"x264-params": X264},
        stamps=[i - 30 for i in range(90)],
        time_base="1/25",
    )
    with open_video(path) as reader:
        assert [number_in(image) for _, image in reader.frames()] == list(range(30, 90))
        times, sums = hashes(reader)
    assert times == pytest.approx(np.arange(60) / 25)
    assert_random_access(path, times, sums)


def test_gaps_that_avi_fills_with_empty_packets(tmp_path):
    path = write(
        tmp_path / "gaps.avi",
        "mpeg4",
        frames=40,
        options={"qmax": "4", "g": "12"},
        stamps=[number if number < 20 else number + 7 for number in range(40)],
        time_base="1/25",
    )
    with open_video(path) as reader:
        assert [number_in(image) for _, image in reader.frames()] == list(range(40))
        assert [number_in(image) for image in reader.read([0.8, 1.0, 1.08, 5])] == [19, 19, 20, 39]


def test_recording_without_duration_or_index(tmp_path):
    options = {"x264-params": X264}
    live = {"live": "1"}
    path = write(tmp_path / "live.mkv", options=options, container_options=live)
    with open_video(path) as reader:
        assert reader.info.duration == pytest.approx(2.4)
        assert [number_in(image) for image in reader.read([2.0, 1.0, 9.0])] == [50, 25, 59]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_far_frames_are_reached_by_seeking(tmp_path, monkeypatch, name):
    decoded = []
    decode = Run._decode
    path = write(tmp_path / name, frames=400, options={"x264-params": X264})
    monkeypatch.setattr(
        Run, "_decode", lambda run, packet: decoded.append(0) or decode(run, packet)
    )
    for seconds in ([15.9], [8.0, 8.1], [99.0], [2.0, 12.0]):
        with open_video(path) as reader:
            decoded.clear()
            numbers = [number_in(image) for image in reader.read(seconds)]
        assert numbers == [min(int(25 * time + 0.03), 399) for time in seconds]
        assert len(decoded) < 130


def test_threads_give_the_same_pictures(tmp_path):
    path = write(tmp_path / "h264.mp4", options={"x264-params": X264})
    with open_video(path) as one, open_video(path, threads=2) as two:
        seconds = np.random.default_rng(0).uniform(0, 2.5, 20)
        assert np.array_equal(one.read(seconds), two.read(seconds))
        assert hashes(one)[1] == hashes(two)[1]


# --- what is shown when ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """60 numbered pictures, 25 a second."""
    folder = tmp_path_factory.mktemp("videos")
    return write(folder / "counted.mp4", options={"x264-params": X264})


def test_the_frame_is_the_one_on_display(counted):
    with open_video(counted) as reader:
        seconds = [1.0, 1.0395, 1.0389, 1.04, 0.0, -5, 2.36, 99, float("inf"), 1.0]
        numbers = [number_in(image) for image in reader.read(seconds)]
        assert numbers == [25, 26, 25, 26, 0, 0, 59, 59, 59, 25]
        assert reader.read([]).shape == (0, 64, 96, 3)


def test_size_and_crop(counted):
    with open_video(counted) as reader:
        whole = reader.read([0.5, 1.5], size=(128, 160))
        part = reader.read([0.5, 1.5], size=(128, 160), crop=(8, 16, 112, 100))
        assert whole.shape == (2, 128, 160, 3)
        assert np.array_equal(part, whole[:, 8:120, 16:116])
        assert np.array_equal(reader.read([0.5], size=(64, 96)), reader.read([0.5]))


def test_shrinking_does_not_alias(tmp_path):
    """Stripes of one pixel become grey; an aliasing filter leaves them black or white."""
    import av

    path = tmp_path / "stripes.mkv"
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        frame = av.VideoFrame.from_ndarray(stripes, format="rgb24")
        output.mux(stream.encode(frame.reformat(format="yuv444p")))
        output.mux(stream.encode(None))
    with open_video(path) as reader:
        assert reader.read([0.0])[0, 32].std() > 100
        shrunk = reader.read([0.0], size=(21, 31))[0].astype(float)
    assert np.abs(shrunk[2:-2, 2:-2] - 127).max() < 16


@pytest.mark.parametrize(
    "arguments",
    [
        dict(crop=(0, 0, 65, 96)),
        dict(crop=(-1, 0, 10, 10)),
        dict(crop=(0, 90, 10, 10)),
        dict(crop=(0, 0, 0, 10)),
        dict(size=(0, 10)),
    ],
)
def test_impossible_windows(counted, arguments):
    with open_video(counted) as reader, pytest.raises(UsageError, match="size|crop"):
        reader.read([0.0], **arguments)


def test_misuse_is_said(counted):
    with open_video(counted) as reader:
        with pytest.raises(UsageError, match="NaN"):
            reader.read([0.0, float("nan")])
        frames = reader.frames()
        next(frames)
        reader.read([2.0])
        with pytest.raises(UsageError, match="second time"):
            list(frames)
        unfinished = reader.frames()
        next(unfinished)
    with pytest.raises(UsageError, match="second time"):
        list(unfinished)
    with pytest.raises(UsageError, match="closed"):
        reader.read([0.0])
    reader.close()


# --- shape and colour -----------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_display_matrix(tmp_path, turn, mirrored):
    def turned(stream):
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a display matrix")
        stream.set_display_rotation(-turn, hflip=mirrored)

    path = write(tmp_path / "turned.mp4", frames=3, options={"qp": "0"}, setup=turned)
    plain = write(tmp_path / "plain.mp4", frames=3, options={"qp": "0"})
    with open_video(path) as reader, open_video(plain) as straight:
        right = straight.read([0.0])[0]
        # The writer turns first and mirrors then; the file holds the product only.
        right = np.rot90(right, -turn // 90)
        right = right[:, ::-1] if mirrored else right
        assert (reader.info.height, reader.info.width) == right.shape[:2]
        assert np.array_equal(reader.read([0.0])[0], right)
        crop = reader.read([0.0], crop=(3, 5, 20, 30))[0]
        assert np.array_equal(crop, right[3:23, 5:35])


def test_real_turned_video_is_upright(shared):
    clips = CLIPS / "decord"
    with open_video(clips / "video_90.mov") as turned, open_video(clips / "video_0.mov") as plain:
        assert (turned.info.width, turned.info.height) == (320, 568)
        assert (plain.info.width, plain.info.height) == (568, 320)


def test_pixels_become_square(tmp_path):
    def wide(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    path = write(tmp_path / "wide.mp4", frames=3, setup=wide)
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (144, 64)
        assert reader.info.sample_aspect_ratio == 1.5
        assert reader.read([0.0]).shape == (1, 64, 144, 3)


@pytest.mark.parametrize("size", [(97, 65), (102, 66), (99, 71)])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p"])
def test_odd_sizes(tmp_path, size, pix_fmt):
    path = write(tmp_path / "odd.mkv", "ffv1", frames=3, size=size, pix_fmt=pix_fmt)
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == size
        image = reader.read([0.04])[0].astype(float)
        assert image.shape == (size[1], size[0], 3)
        assert np.abs(image - picture(1, *size)).mean() < (4 if pix_fmt == "yuv444p" else 16)


@pytest.mark.parametrize(
    ("pix_fmt", "matrix"),
    [
        *itertools.product(["yuv420p", "yuv444p", "yuv420p10le"], [None, "ITU709", "ITU601"]),
        ("yuvj420p", "ITU601"),
    ],
)
def test_colours(tmp_path, pix_fmt, matrix):
    """The same colours, whatever the matrix, the range, the depth and the chroma are."""
    import av

    colours = np.array([[200, 40, 30], [30, 180, 60], [20, 50, 210], [230, 230, 20]], np.uint8)
    image = np.repeat(np.repeat(colours.reshape(2, 2, 3), 32, 0), 48, 1)
    path = tmp_path / "colours.mkv"
    space = {None: 2, "ITU709": 1, "ITU601": 6}[matrix]
    full = pix_fmt.startswith("yuvj")
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1" if not full else "mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format=pix_fmt,
            dst_colorspace=matrix or "ITU601",
            dst_color_range="JPEG" if full else "MPEG",
        )
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with open_video(path) as reader:
        got = reader.read([0.0])[0].astype(float)
    for index, colour in enumerate(colours):
        row, column = divmod(index, 2)
        corner = got[32 * row + 8 : 32 * row + 24, 48 * column + 8 : 48 * column + 40]
        assert corner.mean((0, 1)) == pytest.approx(colour, abs=6)


def test_frame_size_that_changes(tmp_path):
    first = write(tmp_path / "a.h264", frames=30)
    second = write(tmp_path / "b.h264", frames=30, size=(160, 120))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with open_video(joined) as reader:
        images = [image for _, image in reader.frames()]
        assert len(images) == 60
        assert {image.shape for image in images} == {(64, 96, 3)}
        assert np.array_equal(reader.read([1.8])[0], images[45])


def test_recordings_joined_to_one_file(tmp_path):
    one = write(tmp_path / "one.ts", options={"x264-params": X264})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    with open_video(joined) as reader:
        assert reader.frame_times() == pytest.approx(np.arange(120) / 25, abs=1e-3)
    with open_video(joined) as reader:
        assert [number_in(image) for image in reader.read([1.0, 3.4, 99])] == [25, 25, 59]


def test_single_picture_animation(shared):
    with open_video(CLIPS / "imageio/imageio_issue245.gif") as reader:
        clip = reader.read([0.0, 0.5, 99.0])
        assert np.array_equal(clip[0], clip[2])


# --- several streams, names and endings -----------------------------------------------------------


def write_with_cover(path, video):
    """An MP4 with a cover picture as its first video stream."""
    import av

    with av.open(str(path), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        streams = [output.add_stream("libx264", rate=25)] if video else []
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = output.add_stream("aac", rate=8000)
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), format="rgb24")
        output.mux(cover.encode(frame.reformat(format="yuvj420p")))
        output.mux(cover.encode(None))
        for stream in streams:
            for number in range(5):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        output.mux(sound.encode(silence))
        output.mux(sound.encode(None))


def test_cover_picture_is_not_the_video(tmp_path):
    write_with_cover(tmp_path / "both.mp4", video=True)
    with open_video(tmp_path / "both.mp4") as reader:
        assert (reader.info.codec, len(reader.frame_times())) == ("h264", 5)
    write_with_cover(tmp_path / "song.m4a.mp4", video=False)
    with pytest.raises(DecodeError, match="no video") as caught:
        open_video(tmp_path / "song.m4a.mp4")
    assert caught.value.reason == "no_video"


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        'it\'s "quoted".mp4',
        "-dash.mp4",
        "foo:bar.mp4",
        "http:x.mp4",
        "100%03d.mp4",
        "[a]{b}*?.mp4",
        "視頻 ü.mp4",
        os.fsdecode(b"not\xffutf8.mp4"),
        "concat",
    ],
)
def test_names(counted, tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(counted.read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        with open_video(path) as reader:
            assert number_in(reader.read([1.0])[0]) == 25


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv", "mpg", "gif", "jpg", "txt", "wav", ""])
@pytest.mark.parametrize("kind", ["mpeg4_b_frames.avi", "h264.ts", "animation.gif", "raw.h264"])
def test_wrong_endings(tmp_path, ending, kind):
    path = write(tmp_path / kind, **{**FILES[kind], "frames": 30})
    path = path.rename(tmp_path / f"renamed%d.{ending}")
    with open_video(path) as reader:
        assert [number_in(image) for _, image in reader.frames()] == list(range(30))


def test_metadata_that_is_not_unicode(tmp_path):
    import av

    path = tmp_path / "named.mkv"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "TITLETITLE"
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = 96, 64
        stream.metadata["title"] = "TITLETITLE"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1), format="rgb24")))
        output.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.count(b"TITLETITLE") == 2
    path.write_bytes(data.replace(b"TITLETITLE", b"\xff\xfe\xe9\xe8LETITL"))
    with open_video(path) as reader:
        assert len(reader.frame_times()) == 1


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cut.mp4", dict(container_options={"movflags": "faststart"})),
        ("cut.mkv", {}),
        ("cut.avi", dict(codec="mpeg4", options={"qmax": "4", "g": "12"})),
        ("cut.ts", {}),
        ("cut.wmv", dict(codec="wmv2", options={"qmax": "4", "g": "12"})),
    ],
)
def test_cut_file_gives_its_frames_and_holds_the_last(tmp_path, name, settings):
    options = {"x264-params": X264}
    path = write(tmp_path / name, **{"frames": 120, "options": options, **settings})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_video(path) as reader:
        numbers = [number_in(image) for _, image in reader.frames()]
        assert numbers[:-4] == list(range(len(numbers) - 4))
        assert numbers == sorted(numbers)  # pictures that lean on lost ones may be missing
        assert 40 < len(numbers) < 80
        assert bool(reader.info.cut_off) == (name not in ("cut.ts", "cut.wmv"))
        assert reader.info.duration == pytest.approx(len(numbers) / 25, abs=0.2)
        late = [number_in(image) for image in reader.read([1.0, 4.0, 4.8])]
        assert late == [25, numbers[-1], numbers[-1]]


def test_whole_files_are_not_called_cut(counted, tmp_path):
    for path in (counted, write(tmp_path / "a.mkv"), write(tmp_path / "a.avi", "mpeg4")):
        with open_video(path) as reader:
            assert reader.info.cut_off == ""
        padded = tmp_path / f"padded{path.suffix}"
        padded.write_bytes(path.read_bytes() + bytes(100))
        with open_video(padded) as reader:
            assert reader.info.cut_off == ""


def test_index_lost_to_a_cut(counted, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(counted.read_bytes()[:6000])
    with pytest.raises(DecodeError) as caught:
        open_video(path)
    assert caught.value.reason == "truncated"
    assert str(caught.value) == (
        f"{path}: no frame could be decoded (moov atom not found); the file is probably cut off"
    )


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "vp9.webm", "mjpeg.avi"])
def test_damage_in_the_middle_is_passed(tmp_path, name):
    path = write(tmp_path / name, **{**FILES[name], "frames": 120})
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(5)
    for place in generator.integers(len(data) * 4 // 10, len(data) // 2, 5):
        data[place : place + 60] = generator.bytes(60)
    path.write_bytes(data)
    with open_video(path) as reader:
        times, _ = hashes(reader)
        assert len(times) > 80
        assert times[-1] == pytest.approx(119 / 25, abs=0.05)
        clip = reader.read([0.4, *times[-3:], 1.0])
        assert [number_in(image) for image in clip] == [10, 117, 118, 119, 25]


@pytest.mark.parametrize(
    ("name", "content", "reason", "words"),
    [
        ("empty.mp4", b"", "empty", "empty"),
        ("notes.txt", b"hello world\n" * 2000, "unreadable", "no video"),
        ("notes.mp4", b"hello world\n" * 2000, "unreadable", "no video"),
        ("page.mp4", b"<!DOCTYPE html><html>" + b"x" * 3000, "unreadable", "no video"),
        ("zeros.mp4", bytes(50_000), "unreadable", "no video"),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/hostname\n", "unreadable", "no video"),
        ("words.srt", b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", "no_video", "no video"),
    ],
)
def test_files_that_are_no_videos(tmp_path, capfd, name, content, reason, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=words) as caught:
        open_video(path)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")  # FFmpeg itself stays silent


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4_b_frames.avi", "h264.flv"])
def test_any_damage_is_survived(tmp_path, capfd, name):
    """Random bytes anywhere: pictures or a DecodeError, nothing else, and no noise."""
    data = write(tmp_path / name, **{**FILES[name], "frames": 30}).read_bytes()
    generator = np.random.default_rng(1)
    damaged = tmp_path / "damaged"
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data[: generator.integers(len(data) // 2, 2 * len(data))])
        for place in generator.integers(0, min(3000, len(broken)), generator.integers(1, 20)):
            broken[place] = generator.integers(256)
        damaged.write_bytes(broken)
        try:
            with open_video(damaged) as reader:
                assert reader.read([0.0, 1.0, 99.0], size=(8, 8)).shape == (3, 8, 8, 3)
                assert len(reader.frame_times()) > 0
                assert reader.info.frame_rate > 0
                assert reader.info.duration >= 0
            outcomes.add("read")
        except DecodeError as error:
            outcomes.add(error.reason)
    assert "read" in outcomes
    assert capfd.readouterr() == ("", "")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DecodeError, match="no such file") as caught:
        open_video(tmp_path / "nothing.mp4")
    assert caught.value.reason == "missing"
    with pytest.raises(DecodeError, match="folder") as caught:
        open_video(tmp_path)
    assert caught.value.reason == "unreadable"
    with pytest.raises(DecodeError) as caught:
        open_video("gs://bucket/video.mp4")
    assert caught.value.reason == "missing"


def test_video_without_a_decodable_frame(counted, tmp_path):
    data = bytearray(counted.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path = tmp_path / "blank.mp4"
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="no frame could be decoded") as caught:
        open_video(path)
    assert caught.value.reason == "no_frames"


# --- other ways to open ---------------------------------------------------------------------------


def test_opener_is_asked_for_remote_paths(counted):
    opened = []

    def opener(path):
        opened.append(open(counted, "rb"))  # noqa: SIM115 - the reader closes it
        return opened[-1]

    with open_video("store://bucket/video", opener=opener) as reader:
        assert [number_in(image) for image in reader.read([2.0, 1.0])] == [50, 25]
    assert [file.closed for file in opened] == [True]
    with open_video(counted, opener=opener) as reader:
        assert len(reader.frame_times()) == 60
    assert len(opened) == 1


def test_opener_that_finds_nothing():
    def opener(path):
        raise FileNotFoundError(2, "nothing there", path)

    with pytest.raises(DecodeError, match="nothing there") as caught:
        open_video("store://bucket/video", opener=opener)
    assert caught.value.reason == "missing"


@pytest.mark.slow
def test_tensorflow_files(counted):
    tf = pytest.importorskip("tensorflow")
    remote = "ram://videos/counted.mp4"
    with tf.io.gfile.GFile(remote, "wb") as file:
        file.write(counted.read_bytes())
    opener = lambda path: tf.io.gfile.GFile(path, "rb")  # noqa: E731
    with open_video(remote, opener=opener) as reader, open_video(counted) as local:
        assert np.array_equal(reader.read([2.0, 0.3]), local.read([2.0, 0.3]))
    with pytest.raises(DecodeError) as caught:
        open_video("ram://videos/absent.mp4", opener=opener)
    assert caught.value.reason == "missing"


def test_import_is_light():
    code = "import sys, kvideo.data.decode; print({'av', 'cv2', 'tensorflow'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "set()\n"


# --- memory ---------------------------------------------------------------------------------------


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.slow
def test_two_thousand_opens_leave_nothing_behind(counted, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(counted.read_bytes()[:6000])

    def open_both(times):
        for index in range(times):
            with open_video(counted) as reader:
                reader.read([0.1 * (index % 20), 2.0], size=(32, 32))
            with pytest.raises(DecodeError):
                open_video(broken)

    open_both(300)
    files, growth = len(os.listdir("/proc/self/fd")), []
    for _ in range(4):
        memory = resident_bytes()
        open_both(500)
        growth.append(resident_bytes() - memory)
    assert len(os.listdir("/proc/self/fd")) == files
    assert min(growth) < 2 << 20  # what leaks, leaks every time; the allocator's arenas do not


def write_long(path, size, group, groups):
    """A long video from one group of pictures, whose packets are written over and over."""
    import av

    source = write(
        path.with_name("group.mp4"),
        frames=group,
        size=size,
        options={"x264-params": f"keyint={group}:bframes=2:scenecut=0", "crf": "45"},
    )
    with av.open(str(source)) as origin, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(origin.streams.video[0])
        packets = [(p, p.pts, p.dts) for p in origin.demux(video=0) if p.size]
        step = group * packets[0][0].duration
        for repeat in range(groups):
            for packet, pts, dts in packets:
                packet.pts, packet.dts = pts + repeat * step, dts + repeat * step
                packet.stream = stream
                output.mux(packet)
                packet.stream = origin.streams.video[0]
    return path


@needs_proc
@pytest.mark.slow
def test_an_hour_of_full_hd(tmp_path, monkeypatch):
    path = write_long(tmp_path / "hour.mp4", (1920, 1080), group=50, groups=1800)
    packets = []
    pull = Run.pull
    monkeypatch.setattr(Run, "pull", lambda run: packets.append(0) or pull(run))
    memory = resident_bytes()
    with open_video(path) as reader:
        assert len(packets) < 20  # opening does not scan
        assert reader.info.duration == pytest.approx(3600)
        clip = reader.read(1801.0 + np.arange(32) / 25, size=(112, 200))
        assert len(packets) < 200
        assert len({zlib.crc32(image) for image in clip}) == 32
        # 32 places over the hour, and an iteration, do not gather frames either.
        reader.read(np.linspace(0, 3600, 8), size=(112, 200))
        for count, (_, _image) in enumerate(reader.frames(size=(112, 200))):
            if count == 100:
                break
        assert resident_bytes() - memory < 200 << 20
