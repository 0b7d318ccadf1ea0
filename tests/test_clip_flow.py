"""Clips of optical flow: the same whether kept or computed, vectors that follow the pictures."""

import dataclasses
import itertools
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import write_video

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec, Views, modality_of
from kvideo.data.annotations import VideoRecord
from kvideo.data.decode import Pictures, open_video
from kvideo.data.flow_cache import FlowCache
from kvideo.data.pipeline import clip_dataset, clip_reader
from kvideo.data.sampling import Augmentation
from kvideo.data.transforms import augment_clip
from kvideo.errors import DecodeError, UsageError
from kvideo.flow import FlowSettings, flip_flow, is_cut, resize_flow
from kvideo.flow.coding import FlowCoder

STEP, RATE = 2, 10  # pixels per frame, frames per second
HEIGHT, WIDTH = 48, 64
SPEC = ClipSpec(6, 10.0, (32, 32), modality="flow", short_side=48)
PLAIN = Augmentation(crop="center", flip=False)


def texture(seed: int, height: int = 120, width: int = 200) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return ((smooth / np.abs(smooth).max() + 1) * 127).astype(np.uint8)


def moving(frames: int = 20, seed: int = 0, step: tuple[int, int] = (STEP, 0)) -> np.ndarray:
    """A texture of which (dx, dy) more pixels go by in each frame: it moves right and down."""
    picture = texture(seed)
    starts = [(60 - step[1] * n, 100 - step[0] * n) for n in range(frames)]
    return np.stack([picture[y:, x:][:HEIGHT, :WIDTH] for y, x in starts])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "flow"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    return str(write_video(tmp_path_factory.mktemp("flow") / "right.mp4", moving(), RATE))


def middle(clip: np.ndarray) -> np.ndarray:
    """The median vector away from the borders, (..., 2)."""
    return np.median(clip[..., 8:-8, 8:-8, -2:], axis=(-3, -2))


# -- what a clip is ------------------------------------------------------------------------------


def test_clip_specs_of_flow() -> None:
    assert SPEC.shape == (6, 32, 32, 2) and SPEC.dtype == "float32" and SPEC.has_flow
    assert SPEC.span == pytest.approx(0.7)  # six flows lie between seven frames
    assert SPEC.flow == FlowSettings(frame_rate=10.0)
    assert SPEC.replace(frame_rate=5.0).flow.frame_rate == 5.0
    both = SPEC.replace(modality="rgb+flow", flow=FlowSettings(method="farneback"))
    assert both.shape == (6, 32, 32, 5) and both.flow.method == "farneback"
    rgb = both.replace(modality="rgb")
    assert rgb.flow is None and rgb.dtype == "uint8" and rgb.span == pytest.approx(0.6)
    for spec in (SPEC, both, rgb):
        assert ClipSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert "flow" not in rgb.to_json()
    assert [modality_of(n) for n in (3, 2, 5)] == ["rgb", "flow", "rgb+flow"]
    with pytest.raises(UsageError, match="3 channels .RGB., 2 .optical flow. or 5 .both., not 4"):
        modality_of(4)
    with pytest.raises(UsageError, match="modality must be one of"):
        SPEC.replace(modality="depth")


# -- vectors follow the pictures -----------------------------------------------------------------


def test_the_flow_of_a_moving_texture(video: str) -> None:
    clips = clip_reader(SPEC).views(VideoRecord(video), Views(2))
    assert clips.shape == (2, *SPEC.shape) and clips.dtype == np.float32
    np.testing.assert_allclose(middle(clips), np.broadcast_to([STEP, 0], (2, 6, 2)), atol=0.2)


@pytest.mark.parametrize("side", [24, 96])
def test_vectors_grow_and_shrink_with_the_picture(video: str, side: int) -> None:
    spec = SPEC.replace(size=(side, side), short_side=side)
    clip = clip_reader(spec).views(VideoRecord(video), Views(1))[0]
    np.testing.assert_allclose(middle(clip), [[STEP * side / HEIGHT, 0]] * 6, atol=0.3)


def test_stretching_scales_each_direction_by_itself(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "down.mp4", moving(step=(2, 1)), RATE))
    spec = ClipSpec(4, 10.0, (96, 32), modality="flow", framing="stretch")
    clip = clip_reader(spec).views(VideoRecord(path), Views(1))[0]
    np.testing.assert_allclose(middle(clip), [[2 * 32 / WIDTH, 96 / HEIGHT]] * 4, atol=0.25)


def test_random_crops_resize_vectors_as_pictures(video: str) -> None:
    """Of a random window the flow is the whole picture's, resized and cut."""
    reader = clip_reader(SPEC, keep_flow=True)
    with FlowCache(SPEC.flow).of(video) as track:
        kept = [track[n] for n in range(len(track))]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        augmentation = Augmentation(crop="random_resized", min_area=0.3)
        clip = reader.training_clip(VideoRecord(video), augmentation, rng)
        scale = middle(clip)[:, 0].mean() / STEP
        assert 0.6 < scale < 1.6 and np.abs(middle(clip)[:, 1]).max() < 0.2
        sizes = {(h, w) for h in range(32, 140) for w in [round(scale * WIDTH)]}
        assert any(
            np.abs(resize_flow(flow, size)[..., 0].mean() - clip[0, ..., 0].mean()) < 0.3
            for flow in kept[:3]
            for size in list(sizes)[:1]
        )


def test_letterboxed_bars_do_not_move(video: str) -> None:
    spec = SPEC.replace(framing="letterbox", modality="rgb+flow")
    clip = clip_reader(spec).views(VideoRecord(video), Views(1))[0]
    assert (clip[:, :4, :, 3:] == 0).all() and (clip[:, :4, :, :3] == 127).all()
    np.testing.assert_allclose(middle(clip), [[STEP / 2, 0]] * 6, atol=0.15)


def test_mirroring_changes_the_sign_of_dx_and_nothing_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(6, 8, 10, 2)).astype(np.float32)
    rgb = rng.integers(0, 256, (6, 8, 10, 3)).astype(np.float32)
    both = np.concatenate([rgb, flow], axis=-1)
    augmentation = Augmentation(brightness=0, contrast=0, saturation=0)
    mirrored = 0
    for seed in range(20):
        number = tf.constant([seed, 1], tf.int32)
        got = augment_clip(tf.constant(flow), number, augmentation, "flow").numpy()
        joint = augment_clip(tf.constant(both), number, augmentation, "rgb+flow").numpy()
        turned = not np.array_equal(got, flow)
        mirrored += turned
        np.testing.assert_array_equal(got, flip_flow(flow) if turned else flow)
        np.testing.assert_array_equal(joint[..., 3:], got)
        np.testing.assert_array_equal(joint[..., :3], rgb[:, :, ::-1] if turned else rgb)
    assert 4 < mirrored < 16


def test_colours_change_in_pictures_only() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(4, 8, 8, 2)).astype(np.float32)
    rgb = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    strong = Augmentation(flip=False, brightness=0.5, contrast=0.5, saturation=0.5)
    seed = tf.constant([3, 4], tf.int32)
    np.testing.assert_array_equal(augment_clip(tf.constant(flow), seed, strong, "flow"), flow)
    both = tf.concat([tf.cast(rgb, tf.float32), flow], axis=-1)
    got = augment_clip(both, seed, strong, "rgb+flow").numpy()
    np.testing.assert_array_equal(got[..., 3:], flow)
    np.testing.assert_allclose(got[..., :3], augment_clip(tf.constant(rgb), seed, strong), atol=1)
    assert np.abs(got[..., :3] - rgb).max() > 10


# -- kept or computed ----------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["flow", "rgb+flow"])
def test_kept_and_computed_flow_are_the_same_to_the_bit(video, cache, modality) -> None:
    spec, record = SPEC.replace(modality=modality), VideoRecord(video, start=0.23, end=1.71)
    for views in (Views(1), Views(3), Views(2, 3)):
        computed = clip_reader(spec).views(record, views)
        assert not cache.exists()
        kept = clip_reader(spec, keep_flow=True).views(record, views)
        assert len(list(cache.glob("*.zip"))) == 1
        np.testing.assert_array_equal(clip_reader(spec).views(record, views), kept)
        np.testing.assert_array_equal(computed, kept)
        for file in cache.glob("*"):
            file.unlink()
        cache.rmdir()


def test_pictures_beside_flow_are_those_without(video: str) -> None:
    """At the same times, which for flow are multiples of the clip's step."""
    both = clip_reader(SPEC.replace(modality="rgb+flow")).views(VideoRecord(video), Views(1))[0]
    alone = clip_reader(SPEC.replace(modality="flow")).views(VideoRecord(video), Views(1))[0]
    np.testing.assert_array_equal(both[..., 3:], alone)
    first = round((2.0 - 0.7) / 2 * RATE)
    with open_video(video) as reader:
        times = (first + np.arange(6)) / RATE
        frames = reader.read(times, size=(48, 64), crop=(8, 16, 32, 32))
    np.testing.assert_array_equal(both[..., :3], frames)


def test_one_pass_over_the_file_for_both(video: str, monkeypatch) -> None:
    passes = []
    with open_video(video) as reader:
        original = type(reader._source).at

        def counted(self, limits):
            passes.append(len(limits))
            return original(self, limits)

        monkeypatch.setattr(type(reader._source), "at", counted)
    clip_reader(SPEC.replace(modality="rgb+flow")).views(VideoRecord(video), Views(4))
    assert len(passes) == 1


def test_several_requests_in_one_pass_are_those_one_by_one(video: str) -> None:
    requests = [
        Pictures([0.0, 1.2, 0.4], (24, 32)),
        Pictures(np.array([1.2, 1.3]), None, (3, 5, 20, 30)),
        Pictures([], (10, 10)),
    ]
    with open_video(video) as reader:
        together = reader.read_all(requests)
        for request, got in zip(requests, together, strict=True):
            alone = reader.read(request.times, size=request.size, crop=request.crop)
            np.testing.assert_array_equal(got, alone)


def test_a_decoder_that_reads_one_request_at_a_time(video: str) -> None:
    """What a plugin may be: an object with `info` and `read`."""

    class Plain:
        def __init__(self, path, *, opener=None):
            self._reader = open_video(path, opener=opener)
            self.info, self.read = self._reader.info, self._reader.read

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._reader.close()

    reader = clip_reader(SPEC.replace(modality="rgb+flow"))
    plain = dataclasses.replace(reader, open_video=Plain)
    np.testing.assert_array_equal(
        plain.views(VideoRecord(video), Views(2)), reader.views(VideoRecord(video), Views(2))
    )


def test_a_timeline_computes_each_flow_once(video: str, cache: Path, monkeypatch) -> None:
    calls = _count_estimates(monkeypatch)
    reader = clip_reader(SPEC)
    times = reader.timeline(VideoRecord(video), 0.1)
    blocks = list(reader.clips_around(VideoRecord(video), times))
    assert sum(map(len, blocks)) == len(times) == 14 and len(calls) == 19
    np.testing.assert_allclose(middle(np.concatenate(blocks))[..., 0], STEP, atol=0.2)


def _count_estimates(monkeypatch) -> list[int]:
    calls: list[int] = []
    original = FlowCoder.estimate

    def counted(self, first, second):
        calls.append(1)
        return original(self, first, second)

    monkeypatch.setattr(FlowCoder, "estimate", counted)
    return calls


def test_a_run_computes_each_flow_once(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    calls = _count_estimates(monkeypatch)
    options = {"model_options": {"stream": "temporal", "widths": [4, 6]}, "num_frames": 4}
    common = {"size": (16, 16), "epochs": 3, "batch_size": 4, "verbose": False}
    result = kvideo.fit(tiny_videos, "two_stream", out=tmp_path / "run", **options, **common)
    assert len(calls) == 12 * 11 and len(result.history) == 3
    evaluation = kvideo.evaluate(result.folder, tiny_videos, verbose=False)
    assert len(calls) == 12 * 11 and evaluation.metrics["num_videos"] == 12


# -- odd and bad input ---------------------------------------------------------------------------


def test_clips_longer_than_the_video_stand_still_at_its_end(video: str) -> None:
    spec = SPEC.replace(num_frames=30)
    clip = clip_reader(spec).views(VideoRecord(video), Views(1))[0]
    np.testing.assert_allclose(middle(clip[:19])[:, 0], STEP, atol=0.2)
    assert (clip[19:] == 0).all()


def test_flow_stays_inside_of_a_part_of_a_video(video: str) -> None:
    clip = clip_reader(SPEC).views(VideoRecord(video, start=0.5, end=0.9), Views(1))[0]
    np.testing.assert_allclose(middle(clip[:3])[:, 0], STEP, atol=0.2)
    assert (clip[3:] == 0).all()


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "one.mp4", moving(1), RATE))
    for keep in (False, True):
        with pytest.raises(DecodeError, match="optical flow needs two"):
            clip_reader(SPEC, keep_flow=keep).views(VideoRecord(path), Views(1))


def test_a_video_that_stands_still(tmp_path: Path) -> None:
    still = np.repeat(moving(1), 12, axis=0)
    path = str(write_video(tmp_path / "still.mp4", still, RATE))
    clip = clip_reader(SPEC).views(VideoRecord(path), Views(1))[0]
    assert np.abs(clip).max() < 0.2


def test_there_is_no_flow_across_a_cut(tmp_path: Path) -> None:
    frames = np.concatenate([moving(8, 0), moving(8, 5)])
    path = str(write_video(tmp_path / "cut.mp4", frames, RATE))
    with FlowCache(FlowSettings(frame_rate=10.0)).of(path) as track:
        assert track.cuts == [7] and (track[7] == 0).all()
        np.testing.assert_allclose(middle(track[6]), [STEP, 0], atol=0.2)
    result = CliRunner().invoke(cli, ["flow", path, "--frame-rate", "10"])
    assert "1 cut, where the flow is zero." in result.output
    shaken = moving(8, 0)[::3]  # six pixels a frame are no cut
    grey = [FlowCoder(FlowSettings()).prepare(frame) for frame in shaken]
    flow = FlowCoder(FlowSettings()).between(grey[0], grey[1])
    assert not is_cut(grey[0], grey[1], flow)


def test_real_cuts_are_found_and_real_motion_is_none(shared: Path) -> None:
    """Composed films, whose cuts are known."""
    folder = shared / "data" / "ut_untrimmed"
    pieces = json.loads((folder / "composition.json").read_text())["test_04"]["pieces"]
    pairs = itertools.pairwise(pieces)
    cuts = {after["first"] - 1 for before, after in pairs if before["source"] != after["source"]}
    path = next((folder / "videos").glob("test_04.*"))
    with FlowCache(FlowSettings(short_side=180)).of(path) as track:
        found = set(track.cuts)
    assert found <= cuts and len(found) >= 0.6 * len(cuts)


def test_a_picture_size_that_changes_in_the_stream(tmp_path: Path) -> None:
    """The flow is that of pictures of the first one's size."""
    files = []
    for name, frames in (("a", moving(10)), ("b", moving(10)[:, ::2, ::2])):
        files.append(write_video(tmp_path / f"{name}.h264", frames, RATE))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(file.read_bytes() for file in files))
    spec = SPEC.replace(num_frames=18, frame_rate=25.0)
    clip = clip_reader(spec).views(VideoRecord(str(joined)), Views(1))[0]
    moved = middle(clip)
    np.testing.assert_allclose(moved[:8, 0], STEP, atol=0.3)
    np.testing.assert_allclose(moved[11:, 0], STEP, atol=0.6)


@pytest.mark.parametrize("keep", [False, True])
def test_a_damaged_file_is_made_anew(video: str, cache: Path, keep: bool) -> None:
    fresh = clip_reader(SPEC, keep_flow=True).views(VideoRecord(video), Views(2))
    (file,) = cache.glob("*.zip")
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo("000007").header_offset + 60
    content = bytearray(file.read_bytes())
    content[place : place + 40] = bytes(40)
    file.write_bytes(content)
    again = clip_reader(SPEC, keep_flow=keep).views(VideoRecord(video), Views(2))
    np.testing.assert_array_equal(again, fresh)
    file.write_bytes(bytes(content[:1000])) if file.exists() else None  # half written
    again = clip_reader(SPEC, keep_flow=keep).views(VideoRecord(video), Views(2))
    np.testing.assert_array_equal(again, fresh)


def test_a_timeline_where_nothing_can_be_kept(video: str, tmp_path: Path, monkeypatch) -> None:
    reader = clip_reader(SPEC)
    times = reader.timeline(VideoRecord(video), 0.3)
    (kept,) = reader.clips_around(VideoRecord(video), times)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "file"))
    (computed,) = clip_reader(SPEC).clips_around(VideoRecord(video), times)
    np.testing.assert_array_equal(computed, kept)


def test_files_of_another_version_are_not_read(video: str, cache: Path, monkeypatch) -> None:
    clip_reader(SPEC, keep_flow=True).views(VideoRecord(video), Views(1))
    monkeypatch.setattr("kvideo.data.flow_cache._VERSION", 99)
    assert FlowCache(SPEC.flow).find(video) is None
    clip_reader(SPEC, keep_flow=True).views(VideoRecord(video), Views(1))
    assert len(list(cache.glob("*.zip"))) == 2


def test_a_dataset_of_flow(tiny_videos: Path) -> None:
    spec = ClipSpec(4, 10.0, (16, 16), modality="rgb+flow")
    (clips, labels), *_ = clip_dataset(tiny_videos, spec, batch_size=4, augmentation=PLAIN)
    assert clips.shape == (4, 4, 16, 16, 5) and clips.dtype == tf.float32
    assert labels.shape == (4,) and float(tf.reduce_max(clips[..., :3])) > 100
    assert float(tf.reduce_max(tf.abs(clips[..., 3:]))) < 20


def test_settings_of_flow_for_a_run(tiny_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["fit", str(tiny_videos), "-m", "slow_fusion", "--out", str(out), "--epochs", "1"]
    arguments += ["--frames", "4", "--size", "16", "--set", "widths=[4,6]"]
    given = [*arguments, "--modality", "flow", "--flow-method", "farneback", "--compensate"]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == 0, result.output
    assert "clips of 4 flows at 10/s" in result.output and "kept in" in result.output
    spec = kvideo.model_info(out).clip_spec
    assert spec.modality == "flow" and spec.flow.method == "farneback" and spec.flow.compensate
    refused = CliRunner().invoke(cli, [*arguments, "--overwrite", "--compensate"])
    assert refused.exit_code == 2
    assert "flow_method and compensate are for clips of flow; these are of rgb." in refused.output
