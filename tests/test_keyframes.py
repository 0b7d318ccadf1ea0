"""Clips around moments: frames at the right times, boxes where the pixels are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import write_video

from kvideo.clip_spec import ClipSpec
from kvideo.data.actors import Actor, ActorSet
from kvideo.data.between import Between
from kvideo.data.decode import open_video
from kvideo.data.keyframes import (
    ACTOR,
    BOX,
    HIDDEN,
    NOBODY,
    SHOWN,
    Keyframe,
    KeyframeClips,
    KeyframeSet,
    keyframe_blocks,
    keyframes,
    mirror_clip,
    moments_of,
)
from kvideo.data.pipeline import VideoSource, clip_reader
from kvideo.data.records import VideoRecord, fingerprint
from kvideo.data.sampling import Augmentation, view_windows
from kvideo.errors import DecodeError

RATE, FRAMES = 10, 40
HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> Path:
    """A video whose grey level is four times the number of the frame."""
    pictures = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    pictures += np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] * 4 + 20
    return write_video(tmp_path_factory.mktemp("counting") / "count.mp4", pictures, RATE)


def numbers(clip: np.ndarray, path: Path) -> list[int]:
    """The numbers of the frames of a clip of `counting`."""
    with open_video(str(path)) as video:
        known = np.array([frame.mean() for _, frame in video.frames()])
    return [int(np.abs(known - value).argmin()) for value in clip.mean(axis=(1, 2, 3))]


def reader_of(**changes):
    spec = ClipSpec(**{"num_frames": 4, "frame_rate": 5.0, "size": (24, 32), **changes})
    return clip_reader(spec)


def whole(reader):
    return lambda picture: view_windows(picture, reader.spec, 1)[0]


def test_the_keyframe_is_number_half_of_the_clip(counting: Path) -> None:
    reader = reader_of()
    clips, _ = reader.clips_with_keyframes(
        VideoRecord(str(counting)), np.array([0.0, 1.0, 2.5, 3.9]), whole(reader)
    )
    assert [numbers(clip, counting) for clip in clips] == [
        [0, 0, 0, 2],  # held before the beginning
        [6, 8, 10, 12],
        [21, 23, 25, 27],
        [35, 37, 39, 39],  # and behind the end
    ]


def test_a_moment_beyond_the_end(counting: Path) -> None:
    reader = reader_of()
    with pytest.raises(DecodeError, match=r"9 s is asked for, but it lasts 4\.00 s"):
        reader.clips_with_keyframes(VideoRecord(str(counting)), np.array([1.0, 9.0]), whole(reader))


def test_blocks_come_in_order_and_errors_with_them(counting: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    reader = reader_of()
    times = np.arange(20) * 0.2
    wanted = [
        (VideoRecord(str(counting)), times),
        (VideoRecord(str(tmp_path / "bad.mp4")), [1.0]),
        (VideoRecord(str(counting)), []),
        (VideoRecord(str(counting)), [1.0]),
    ]
    blocks = list(keyframe_blocks(wanted, reader, workers=2))
    assert [block.index for block in blocks] == [0, 0, 0, 1, 3]
    assert np.concatenate([b.times for b in blocks[:3]]).tolist() == times.tolist()
    assert blocks[3].error is not None and blocks[3].clips is None
    assert numbers(blocks[4].clips[0], counting) == [6, 8, 10, 12]


def test_moments_beyond_the_end_cost_themselves_only(counting: Path) -> None:
    reader = reader_of()
    wanted = [
        (VideoRecord(str(counting)), [1.0, 2.0, 9.0]),
        (VideoRecord(str(counting)), [7.0, 8.0]),
    ]
    one, two = keyframe_blocks(wanted, reader, workers=1)
    assert one.times.tolist() == [1, 2] and one.clips.shape[0] == 2 and one.error is not None
    assert two.clips is None and "7 s is asked for" in str(two.error)


def test_moments() -> None:
    assert moments_of(2.0, 0.5).tolist() == [0, 0.5, 1, 1.5]
    assert moments_of(2.1, 0.5).tolist() == [0, 0.5, 1, 1.5, 2]
    assert moments_of(0.1, 0.5).tolist() == [0]


def boxed(path: Path, box, count: int = 12) -> Path:
    """A black video with a white box (fractions)."""
    pictures = np.zeros((count, HEIGHT, WIDTH, 3), np.uint8)
    x1, y1, x2, y2 = np.rint(np.array(box) * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(int)
    pictures[:, y1:y2, x1:x2] = 255
    return write_video(path, pictures, RATE)


def annotated(path: Path, actors, classes=("a", "b", "c")) -> ActorSet:
    return ActorSet({("v", 0.5): tuple(actors)}, {"v": str(path)}, classes, (1, 2, 3))


@pytest.mark.parametrize("framing", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("mirror", [False, True])
def test_boxes_are_where_the_pixels_are(tmp_path: Path, framing: str, mirror: bool) -> None:
    box = (0.25, 0.25, 0.75, 0.625)
    path = boxed(tmp_path / "box.mp4", box)
    videos = keyframes(annotated(path, [Actor(box, (0, 2), "p")]))
    reader = reader_of(size=(48, 48), framing=framing)
    clips = KeyframeClips(videos, reader, Augmentation(flip=False), seed=3, mirror=mirror)
    seen = 0
    for epoch in range(8):
        ((clip, labels, _),) = clips.epoch(epoch)
        assert labels.shape == (1, 12) and labels.dtype == np.float32
        if labels[0, 0] == HIDDEN:
            continue
        assert labels[0, 0] == ACTOR and labels[0, 9:].tolist() == [1, 0, 1]
        rows, columns = np.nonzero(clip[2, :, :, 0] > 190)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(labels[0, BOX] * 48, found, atol=1.6)
        moved = labels[0, SHOWN] - labels[0, BOX]
        sizes = np.tile(labels[0, 3:5] - labels[0, 1:3], 2)
        assert 0 < np.abs(moved / sizes).max() <= 0.1001
        seen += 1
    assert seen >= 4


def test_what_is_cut_off_is_hidden(tmp_path: Path) -> None:
    box = (0.0, 0.0, 0.15, 1.0)  # a square crop of a 4:3 picture leaves little of it
    path = boxed(tmp_path / "box.mp4", box)
    videos = keyframes(annotated(path, [Actor(box, (1,)), Actor((0.3, 0.3, 0.6, 0.6), (0,))]))
    reader = reader_of(size=(48, 48), framing="crop")
    clips = KeyframeClips(videos, reader, Augmentation(crop="center", flip=False))
    ((_, labels, _),) = clips.epoch(0)
    assert labels[:, 0].tolist() == [HIDDEN, ACTOR]


def test_moments_without_actors_and_fillings(tmp_path: Path) -> None:
    path = boxed(tmp_path / "box.mp4", (0.2, 0.2, 0.5, 0.5))
    frames = {("v", 0.2): (), ("v", 0.4): (Actor((0.2, 0.2, 0.5, 0.5), (1,)),)}
    actors = ActorSet(frames, {"v": str(path)}, ("a", "b"), (1, 2))
    clips = KeyframeClips(keyframes(actors), reader_of(), Augmentation(flip=False), workers=1)
    batches = list(VideoSource(clips).batches(4, epoch=0))
    ((given, labels),) = batches
    assert given.shape == (4, 4, 24, 32, 3)
    kinds = labels.numpy()[:, 0, 0]
    assert sorted(kinds[:2].tolist()) == [NOBODY, ACTOR]
    assert (labels.numpy()[2:] == -1).all()  # what fills the batch up does not count


def test_a_set_of_moments(tmp_path: Path) -> None:
    path = boxed(tmp_path / "box.mp4", (0.2, 0.2, 0.5, 0.5))
    one, two = Actor((0.2, 0.2, 0.5, 0.5), (1,)), Actor((0.1, 0.2, 0.5, 0.5), (1,))
    frames = {("v", 0.2): (one,), ("v", 0.4): (one,), ("gone", 0.4): (one,)}
    actors = ActorSet(frames, {"v": str(path)}, ("a", "b"), (7, 9), frozenset({("v", 0.2)}))
    videos = keyframes(actors)
    assert [record.time for record in videos.records] == [0.4]
    assert videos.numbers == (7, 9) and videos.multi_label
    other = keyframes(ActorSet({("v", 0.4): (two,)}, {"v": str(path)}, ("a", "b"), (7, 9)))
    assert fingerprint(videos) != fingerprint(other)
    assert isinstance(videos.records[0], Keyframe)


def walking(path: Path, *times: float) -> list[Keyframe]:
    """Somebody who goes to the right, at moments of a video, and somebody who stands."""
    return [
        Keyframe(
            str(path), (0, 1), group="a", time=time,
            actors=(
                Actor((0.1 * time, 0.2, 0.1 * time + 0.2, 0.8), (0,), "1"),
                Actor((0.7, 0.1, 0.9, 0.9), (1,), "2"),
            ),
        )
        for time in times
    ]  # fmt: skip


def test_it_is_known_who_is_where_between_moments(counting: Path) -> None:
    moments = walking(counting, 1, 2, 3, 5)  # one is missing
    between = Between(moments)
    time, actors = between.moved(moments[0], 0.4)
    assert time == pytest.approx(1.4) and actors[0].box == pytest.approx((0.14, 0.2, 0.34, 0.8))
    assert between.moved(moments[1], -0.4)[0] == pytest.approx(1.6)
    for moment, seconds in ((moments[0], -0.4), (moments[2], 0.4), (moments[3], 0.2)):
        assert between.moved(moment, seconds) == (moment.time, moment.actors)
    person = moments[1].actors[0]
    for other in (
        (person,),  # the second one has left
        (dataclasses.replace(person, labels=(1,)), moments[1].actors[1]),
        (dataclasses.replace(person, person="3"), moments[1].actors[1]),
        (dataclasses.replace(person, person=None), moments[1].actors[1]),
    ):
        changed = dataclasses.replace(moments[1], actors=other)
        assert Between([moments[0], changed]).moved(moments[0], 0.4)[0] == 1


def test_training_moments_are_moved(counting: Path) -> None:
    """What is seen and where it is belong together: frame and box are of the same time."""
    videos = KeyframeSet(tuple(walking(counting, 1, 2, 3)), ("goes", "stands"), multi_label=True)
    augmentation = Augmentation(flip=False, crop="center", brightness=0, contrast=0, saturation=0)
    clips = KeyframeClips(
        videos, reader_of(num_frames=1, framing="stretch"), augmentation, shift=0.5
    )
    seen = set()
    for epoch in range(4):
        for clip, rows, _ in clips.epoch(epoch):
            time = numbers(clip, counting)[0] / RATE
            assert rows[0][BOX][0] == pytest.approx(0.1 * time, abs=0.001)
            seen.add(time)
    assert len(seen) > 5 and all(0.5 <= time <= 3.5 for time in seen)


def test_mirrored_flow_changes_its_sign() -> None:
    clip = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    mirrored = mirror_clip(clip, has_flow=True)
    np.testing.assert_array_equal(mirrored[..., :3], clip[:, :, ::-1, :3])
    np.testing.assert_array_equal(mirrored[..., 3], -clip[:, :, ::-1, 3])
    np.testing.assert_array_equal(mirrored[..., 4], clip[:, :, ::-1, 4])
