"""The cache of optical flow, and `kvideo flow`."""

import json
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_video

from kvideo.cli import cli
from kvideo.data.decode import open_video
from kvideo.data.flow_cache import FlowCache, FlowTrack
from kvideo.errors import DataError, DecodeError, UsageError
from kvideo.flow import FlowEstimator, FlowSettings, end_point_error
from kvideo.flow.coding import FlowCoder

STEP = 2.0  # pixels per frame


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> Path:
    """Twelve frames of a texture that moves to the right, 10 a second, 64×48."""
    noise = np.random.default_rng(0).normal(size=(120, 160, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = ((texture / np.abs(texture).max() + 1) * 127).astype(np.uint8)
    frames = [texture[20:68, 60 - int(STEP * i) :][:, :64] for i in range(12)]
    return write_video(tmp_path_factory.mktemp("moving") / "right.mp4", np.stack(frames))


def run(*arguments: object):
    return CliRunner().invoke(cli, ["flow", *map(str, arguments)])


def expected(path: Path, size: tuple[int, int]) -> list[np.ndarray]:
    with open_video(path) as reader:
        pictures = [frame for _, frame in reader.frames(size=size)]
    return list(FlowEstimator().sequence(pictures))


# -- the cache -------------------------------------------------------------------------------------


def test_what_is_kept_is_what_is_estimated(moving: Path, tmp_path: Path) -> None:
    with FlowCache(FlowSettings(store="float16"), tmp_path).of(moving) as track:
        assert track.computed and track.size == (48, 64) and len(track) == 11
        np.testing.assert_allclose(track.times, np.arange(11) / 10, atol=1e-6)
        for index, flow in enumerate(expected(moving, track.size)):
            np.testing.assert_allclose(track[index], flow, atol=0.01)
        np.testing.assert_array_equal(track[-1], track[10])
        with pytest.raises(IndexError):
            track[11]
    middle = np.median(track_of(moving, tmp_path)[5][10:-10, 10:-10], axis=(0, 1))
    np.testing.assert_allclose(middle, [STEP, 0], atol=0.1)


def track_of(path: Path, folder: Path) -> FlowTrack:
    return FlowCache(FlowSettings(store="float16"), folder).of(path)


@pytest.mark.parametrize("quality", [90, 100])
def test_eight_bits_lose_little(moving: Path, tmp_path: Path, quality: int) -> None:
    with FlowCache(FlowSettings(quality=quality), tmp_path).of(moving) as track:
        for index, flow in enumerate(expected(moving, track.size)):
            assert end_point_error(track[index], flow) < 0.15


def test_eight_bits_by_hand() -> None:
    """No motion stays exactly none; what is beyond the limit is the limit."""
    coder = FlowCoder(FlowSettings(quality=100, limit=10.0))
    flow = np.zeros((16, 16, 2), np.float32)
    np.testing.assert_array_equal(coder.decode(coder.encode(flow), (16, 16)), flow)
    flow[..., 0], flow[..., 1] = 50, -3
    found = coder.decode(coder.encode(flow), (16, 16))
    np.testing.assert_allclose(found[..., 0], 10, atol=1e-5)
    np.testing.assert_allclose(found[..., 1], -3, atol=10 / 127)


def test_what_is_damaged_inside_is_made_anew(moving: Path, tmp_path: Path) -> None:
    assert run(moving, "--out", tmp_path).exit_code == 0
    (file,) = tmp_path.glob("*.zip")
    whole = FlowTrack(file)[5]
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("000005").header_offset + 80
    content[place : place + 40] = bytes(40)
    file.write_bytes(content)
    assert not FlowTrack(file).is_whole()
    again = run(moving, "--out", tmp_path)
    assert again.exit_code == 0 and "There already" not in again.output
    np.testing.assert_array_equal(FlowTrack(file)[5], whole)
    assert "There already: 1 video." in run(moving, "--out", tmp_path).output


def test_the_video_itself_is_not_overwritten(moving: Path, tmp_path: Path) -> None:
    video = tmp_path / "my.mp4"
    video.write_bytes(moving.read_bytes())
    (tmp_path / "link.mp4").symlink_to(video)
    for show in ("my.mp4", "link.mp4"):
        result = run(video, "--show", tmp_path / show)
        assert result.exit_code == 2 and "is the video itself" in result.output
    assert video.read_bytes() == moving.read_bytes()


def test_workers_change_nothing(moving: Path, tmp_path: Path) -> None:
    tracks = [FlowCache(None, tmp_path / str(n), workers=n).of(moving) for n in (1, 3)]
    for index in range(11):
        np.testing.assert_array_equal(tracks[0][index], tracks[1][index])


def test_a_rate_of_its_own(moving: Path, tmp_path: Path) -> None:
    """Frames on display at the rate's times: two steps apart at half the rate."""
    with FlowCache(FlowSettings(frame_rate=5.0, store="float16"), tmp_path).of(moving) as track:
        np.testing.assert_allclose(track.times, [0, 0.2, 0.4, 0.6, 0.8])
        middle = np.median(track[2][10:-10, 12:-12], axis=(0, 1))
        np.testing.assert_allclose(middle, [2 * STEP, 0], atol=0.2)
    with FlowCache(FlowSettings(frame_rate=20.0, store="float16"), tmp_path).of(moving) as track:
        assert np.abs(track[0]).max() < 1e-2 < np.abs(track[1]).max()  # a frame is shown twice


def test_a_smaller_size_scales_the_vectors(moving: Path, tmp_path: Path) -> None:
    settings = FlowSettings(short_side=24, store="float16")
    with FlowCache(settings, tmp_path).of(moving) as track:
        assert track.size == (24, 32)
        middle = np.median(track[3][6:-6, 6:-6], axis=(0, 1))
        np.testing.assert_allclose(middle, [STEP / 2, 0], atol=0.15)


def test_found_by_content_and_settings(moving: Path, tmp_path: Path) -> None:
    cache = FlowCache(None, tmp_path / "flow")
    assert cache.of(moving).computed and not cache.of(moving).computed
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(moving.read_bytes())
    assert not FlowCache(None, tmp_path / "flow").of(copy).computed, "the same content"
    for settings in (
        FlowSettings(method="farneback"),
        FlowSettings(preset="fast"),
        FlowSettings(short_side=20),
        FlowSettings(compensate=True),
        FlowSettings(frame_rate=5),
        FlowSettings(limit=5),
    ):
        assert FlowCache(settings, tmp_path / "flow").of(moving).computed, settings
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert cache.of(copy).computed, "another content"


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "other"])
def test_what_is_half_written_is_made_anew(moving: Path, tmp_path: Path, how: str) -> None:
    cache = FlowCache(None, tmp_path)
    path = cache.of(moving).path
    whole = path.read_bytes()
    if how == "other":  # of a version that noted other settings
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("flow.json", json.dumps({"settings": {"warp": 2}, "times": []}))
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "noise": b"x" * 99}[how])
    track = FlowCache(None, tmp_path).of(moving)
    assert track.computed and len(track) == 11 and len(track[3]) == 48
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_damaged_picture_is_told(moving: Path, tmp_path: Path) -> None:
    path = FlowCache(None, tmp_path).of(moving).path
    content = bytearray(path.read_bytes())
    content[200] ^= 255  # in the first picture
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged; remove it"):
        FlowCache(None, tmp_path).of(moving)[0]


def test_two_threads_compute_it_once(moving: Path, tmp_path: Path) -> None:
    cache, tracks = FlowCache(None, tmp_path), []
    threads = [threading.Thread(target=lambda: tracks.append(cache.of(moving))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [track.computed for track in tracks].count(True) == 1


def test_bad_videos(moving: Path, tmp_path: Path) -> None:
    cache = FlowCache(None, tmp_path / "flow")
    one = write_video(tmp_path / "one.mp4", np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(DecodeError, match="one frame at this rate, and optical flow needs two"):
        cache.of(one)
    with pytest.raises(DecodeError, match="no such file"):
        cache.of(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DecodeError):
        cache.of(tmp_path / "text.mp4")
    assert not list((tmp_path / "flow").iterdir()), "nothing half made is left"
    still = write_video(tmp_path / "still.mp4", np.full((4, 32, 32, 3), 90, np.uint8))
    assert max(np.abs(flow).max() for flow in map(cache.of(still).__getitem__, range(3))) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "raft"}, "method must be one of"),
        ({"preset": "best"}, "preset must be one of"),
        ({"store": "png"}, "store must be one of jpeg, float16"),
        ({"frame_rate": 0}, "frame_rate must be"),
        ({"limit": 0}, "limit must be"),
        ({"quality": 0}, "quality must be"),
        ({"short_side": 0}, "short_side must be"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FlowSettings(**options)


# -- the command -----------------------------------------------------------------------------------


def test_the_command(moving: Path, tmp_path: Path) -> None:
    result = run(moving, "--out", tmp_path / "flow")
    assert result.exit_code == 0, result.stderr
    assert "1 video, 11 flows, " in result.stdout and "flows a second" in result.stdout
    again = run(moving.parent, "--out", tmp_path / "flow", "--json")
    document = json.loads(again.stdout)
    (video,) = document["videos"]
    assert video["computed"] is False and video["num_flows"] == 11
    assert document["num_bytes"] == Path(video["file"]).stat().st_size
    assert document["settings"]["method"] == "dis"


def test_bad_files_do_not_stop_it(moving: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(moving.read_bytes())
    (folder / "b.mp4").write_bytes(moving.read_bytes()[:300])
    result = run(folder, "--out", tmp_path / "flow")
    assert result.exit_code == 1 and "1 video, 11 flows" in result.stdout
    assert "1 video could not be used" in result.stderr and "b.mp4" in result.stderr
    assert "Traceback" not in result.output


def test_flow_to_look_at(moving: Path, tmp_path: Path) -> None:
    result = run(moving, "-o", tmp_path / "flow", "--show", tmp_path / "a.mp4")
    assert result.exit_code == 0, result.stderr
    with open_video(tmp_path / "a.mp4") as film:
        assert (film.info.width, film.info.height) == (128, 48)
        frames = np.stack([frame for _, frame in film.frames()])
    assert len(frames) == 11
    red, green, blue = frames[5, 10:-10, 76:-12].reshape(-1, 3).mean(axis=0)
    assert red > green + 30 and red > blue + 30, "to the right is red"
    assert run(moving, "-o", tmp_path / "flow", "--show", tmp_path / "a.png").exit_code == 0
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (3 * 96, 4 * 64, 3)


def test_wrong_usage(moving: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([moving, "--show", "a.gif"], "as .mp4 or .png, not as a.gif"),
        ([moving, "--show", tmp_path / "no" / "a.png"], "no folder"),
        ([moving, "--method", "raft"], "method must be one of"),
        ([moving, "--frame-rate", "-1"], "frame_rate must be"),
    ):
        result = run(*arguments, "--out", tmp_path / "flow")
        assert result.exit_code == 2 and message in result.stderr, result.stderr
    (tmp_path / "two").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / f"{name}.mp4").write_bytes(moving.read_bytes())
    result = run(tmp_path / "two", "--show", tmp_path / "x.mp4", "--out", tmp_path / "flow")
    assert result.exit_code == 2 and "--show is for a single video" in result.stderr
