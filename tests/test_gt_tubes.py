"""UCF101-24's and JHMDB's pickles of tubes: read, and never run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import write_video

from kvideo import detection
from kvideo.data.gt_tubes import read_gt_tubes
from kvideo.data.keyframes import keyframes, thinned
from kvideo.detection.reading import read_boxes_data
from kvideo.errors import DataError

RATE = 10


def document() -> dict:
    tube = np.array([[n, 8, 6, 24, 18] for n in range(3, 13)], np.float32)
    other = np.array([[n, 40 + n, 6, 60 + n, 30] for n in range(1, 8)], np.float32)
    return {
        "labels": ["Diving", "Fencing"],
        "gttubes": {
            "Diving/v_a": {0: [tube]},
            "Fencing/v_b": {1: [tube, other]},
            "Fencing/v_c": {1: [other]},
        },
        "nframes": {"Diving/v_a": 20, "Fencing/v_b": 20, "Fencing/v_c": 20},
        "resolution": dict.fromkeys(("Diving/v_a", "Fencing/v_b", "Fencing/v_c"), (48, 64)),
        "train_videos": [["Diving/v_a", "Fencing/v_b"]],
        "test_videos": [["Fencing/v_c"]],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8)
    for name in document()["gttubes"]:
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, RATE)
    path = tmp_path / "GT.pkl"
    path.write_bytes(pickle.dumps(document(), protocol=2))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tubes_are_actors_of_frames(data: Path, protocol: int) -> None:
    data.write_bytes(pickle.dumps(document(), protocol=protocol))
    found = read_gt_tubes(data, split="train")
    assert found.class_names == ("Diving", "Fencing") and found.numbers == (1, 2)
    assert len(found.paths) == 2 and not found.missing and found.num_boxes == 10 + 17
    times = [t for (v, t), actors in found.frames.items() if v == "Diving/v_a" and actors]
    assert times == [n / RATE for n in range(2, 12)]
    # Outside of the tubes nobody does anything: what is found there is wrong.
    assert sum(video == "Diving/v_a" for video, _ in found.frames) == 20
    two = found.frames["Fencing/v_b", 0.2]
    assert [(a.labels, a.person) for a in two] == [((1,), "1"), ((1,), "2")]
    assert two[0].box == pytest.approx((8 / 64, 6 / 48, 24 / 64, 18 / 48))
    assert two[1].box == pytest.approx((43 / 64, 6 / 48, 63 / 64, 30 / 48))
    assert list(read_gt_tubes(data, split="test1").paths) == ["Fencing/v_c"]
    assert read_boxes_data(data, split="train").num_boxes == 27


def test_what_is_true_is_found(data: Path) -> None:
    """Scoring the truth itself: tubes that one person makes are whole."""
    from kvideo.detection.scoring import moment_step, true_tubes
    from kvideo.detection.tubes import video_scores

    found = read_gt_tubes(data)
    tubes = true_tubes(found, moment_step(found))
    assert tubes is not None and sorted(len(tube.times) for tube in tubes) == [7, 7, 10, 10]
    np.testing.assert_allclose(video_scores(tubes, tubes, 2, 0.5), 1)
    assert detection.tube_iou(tubes[0], tubes[0]) == pytest.approx(1)


def test_training_takes_moments_that_are_apart(data: Path) -> None:
    videos = thinned(keyframes(read_gt_tubes(data, split="train")), 0.2)
    times = [record.time for record in videos.records if record.group == "Diving/v_a"]
    assert times == pytest.approx(np.arange(10) * 0.2)
    assert [bool(r.actors) for r in videos.records[:8]] == [False, *[True] * 5, False, False]


def test_wrong_tubes(data: Path) -> None:
    """A class that the file lacks, and a corner that is no number, cost what they are of."""
    wrong = document()
    tubes = wrong["gttubes"]["Fencing/v_b"]
    tubes[7] = tubes.pop(1)
    wrong["gttubes"]["Diving/v_a"][0][0][0, 1] = np.nan
    data.write_bytes(pickle.dumps(wrong))
    found = read_gt_tubes(data, split="train")
    assert any("of a class that" in n and "lacks" in n for n in found.notes)
    assert any("no number: left out: Diving/v_a, frame 3" in note for note in found.notes)
    assert {a.labels for a in found.frames["Fencing/v_b", 0.2]} == {()}
    assert ("Diving/v_a", 0.2) not in found.frames  # somebody is there, nobody knows where
    wrong["gttubes"]["Diving/v_a"][0][0] = np.zeros((5, 4))
    data.write_bytes(pickle.dumps(wrong))
    with pytest.raises(DataError, match=r"must be \(frames, 5\), not \(5, 4\)"):
        read_gt_tubes(data, split="train")


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/kvideo-was-here",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"labels": Evil()}), "refused: it names .*system"),
        (pickle.dumps([1]), "no dictionary"),
        (pickle.dumps({"labels": []}), "lacks 'gttubes'"),
        (b"not a pickle", "pickle"),
        (pickle.dumps(document())[:-40], "pickle"),
        (pickle.dumps({**document(), "resolution": {}}), "Diving/v_a"),
    ],
    ids=["evil", "list", "lacking", "text", "cut", "resolution"],
)
def test_other_files_are_refused(data: Path, content: bytes, message: str) -> None:
    data.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_gt_tubes(data, split="train")


def test_parts_and_missing_videos(data: Path) -> None:
    with pytest.raises(DataError, match="no part 'train2'"):
        read_gt_tubes(data, split="train2")
    (data.parent / "videos" / "Diving" / "v_a.mp4").unlink()
    found = read_gt_tubes(data, split="train")
    assert found.missing == ("Diving/v_a",) and "left out" in found.notes[0]
    with pytest.raises(DataError, match="--root"):
        read_gt_tubes(data, root=data.parent / "videos" / "Diving")
    assert read_gt_tubes(data, must_exist=False).num_boxes == 34
