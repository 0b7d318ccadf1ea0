"""Tubes: linking over gaps and crossings, their overlap, and video-mAP."""

import numpy as np
import pytest

from kvideo.detection.results import (
    Moment,
    VideoActors,
    action_spans,
    extent,
    labelled_tubes,
)
from kvideo.detection.tubes import (
    LabelledTube,
    LinkSettings,
    link,
    tube_iou,
    video_scores,
)
from kvideo.errors import UsageError

TIMES = np.arange(10) / 2


def moving(start: float, step: float, frames: int = 10) -> np.ndarray:
    """(K, 4): a box of 0.2 by 0.4 that goes to the right."""
    left = start + step * np.arange(frames)
    return np.stack([left, np.full(frames, 0.3), left + 0.2, np.full(frames, 0.7)], axis=1)


def test_two_actors_and_noise() -> None:
    """Each has a tube of its own, however the boxes are ordered; what comes once is dropped."""
    rng = np.random.default_rng(0)
    ways = moving(0.1, 0.02), moving(0.7, -0.02)
    boxes, scores, actions = [], [], []
    for frame in range(10):
        rows = [(ways[0][frame], 0.9, [1, 0]), (ways[1][frame], 0.8, [0, 1])]
        if frame == 4:
            rows.append((np.array([0.4, 0.0, 0.5, 0.1]), 0.99, [1, 1]))
        order = rng.permutation(len(rows))
        for target, column in zip((boxes, scores, actions), range(3), strict=True):
            target.append(np.array([rows[i][column] for i in order], float))
    tubes = link(TIMES, boxes, scores, actions)
    assert len(tubes) == 2
    for tube, way, score, action in zip(tubes, ways, (0.9, 0.8), ([1, 0], [0, 1]), strict=True):
        np.testing.assert_allclose(tube.boxes, way)
        np.testing.assert_allclose(tube.times, TIMES)
        assert tube.score == pytest.approx(score)
        np.testing.assert_allclose(tube.actions, np.tile(action, (10, 1)))


def test_gaps_are_bridged_up_to_their_length() -> None:
    way = moving(0.1, 0.02)
    seen = [frame not in (3, 4) for frame in range(10)]
    boxes = [way[frame : frame + 1] if seen[frame] else np.zeros((0, 4)) for frame in range(10)]
    scores = [np.full(len(each), 0.6) for each in boxes]
    (tube,) = link(TIMES, boxes, scores, settings=LinkSettings(gap=2))
    np.testing.assert_allclose(tube.boxes, way)
    assert tube.scores.tolist() == [0.6 if each else 0.0 for each in seen]
    assert tube.actions is None
    assert [len(each) for each in link(TIMES, boxes, scores, settings=LinkSettings(gap=1))] == [
        3,
        5,
    ]
    assert link(TIMES, [np.zeros((0, 4))] * 10, [np.zeros(0)] * 10) == []


def test_a_second_tube_of_one_actor_is_dropped() -> None:
    one, near, other = moving(0.1, 0.0), moving(0.18, 0.0), moving(0.6, 0.0)
    boxes = [np.stack(rows) for rows in zip(one, near, other, strict=True)]
    scores = [np.array([0.9, 0.6, 0.5])] * 10
    assert len(link(TIMES, boxes, scores)) == 3
    kept = link(TIMES, boxes, scores, settings=LinkSettings(same=0.3))
    assert [tube.boxes[0, 0] for tube in kept] == pytest.approx([0.1, 0.6])
    # Who passes by is somebody else.
    passing = [np.stack(rows) for rows in zip(one, moving(0.0, 0.09), strict=True)]
    two = link(TIMES, passing, [np.array([0.9, 0.6])] * 10, settings=LinkSettings(same=0.3))
    assert len(two) == 2


def test_gaps_are_measured_in_seconds() -> None:
    """Moments that nobody looked at are a gap, too; one moment by itself is a tube of its own."""
    times = np.array([0.0, 0.5, 1.0, 6.0, 6.5, 7.0])
    boxes, scores = [moving(0.1, 0, 1)] * 6, [np.ones(1)] * 6
    assert [len(tube) for tube in link(times, boxes, scores)] == [3, 3]
    assert [len(tube) for tube in link(times[:1], boxes[:1], scores[:1])] == [1]


def test_a_tube_reaches_to_the_ends_that_were_looked_at() -> None:
    times = [0.0, 0.5, 1.0, 1.5]
    one = (moving(0.1, 0, 1), np.ones(1), np.array([[0.9, 0.1]]))
    nobody = (np.zeros((0, 4)), np.zeros(0), np.zeros((0, 2)))

    def seen(*there: bool) -> tuple[float, float]:
        rows = zip(times, there, strict=True)
        moments = tuple(Moment(time, *(one if yes else nobody)) for time, yes in rows)
        video = VideoActors("a.mp4", "a", 2.0, moments)
        (tube,) = video.tubes()
        found = extent(video, tube, 0.5)
        spans = action_spans(tube, 0.3, 0.5, until=found[1])
        assert [(span.start, span.end) for span in spans] == [found]
        assert spans[0].probability == pytest.approx(0.9)
        # Of an action that is nowhere likely, too, video-mAP has a tube.
        assert [t.label for t in labelled_tubes("a", [tube], 0.3, 0.5)] == [0, 1]
        return found

    assert seen(True, True, True, True) == (0.0, 2.0)
    assert seen(False, True, True, False) == (0.25, 1.25)


def test_actions_are_smoothed() -> None:
    way = [box[None] for box in moving(0.1, 0.0)]
    raw = np.zeros((10, 1))
    raw[[2, 6, 7, 8]] = 1
    (tube,) = link(TIMES, way, [np.ones(1)] * 10, [row[None] for row in raw])
    expected = [0, 1 / 3, 1 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 2]
    np.testing.assert_allclose(tube.actions[:, 0], expected)


def tube(video, first, last, label=0, score=1.0, shift=0.0) -> LabelledTube:
    times = np.arange(first, last, dtype=float)
    return LabelledTube(video, times, moving(0.1 + shift, 0.0, len(times)), label, score)


def test_overlap_is_that_in_time_times_that_of_the_boxes() -> None:
    assert tube_iou(tube("v", 0, 10), tube("v", 0, 10)) == 1.0
    assert tube_iou(tube("v", 0, 10), tube("v", 5, 15)) == pytest.approx(5 / 15)
    assert tube_iou(tube("v", 0, 10), tube("v", 0, 10, shift=0.1)) == pytest.approx(1 / 3)
    assert tube_iou(tube("v", 0, 10), tube("v", 5, 15, shift=0.1)) == pytest.approx(1 / 9)
    assert tube_iou(tube("v", 0, 3), tube("v", 3, 6)) == 0.0


def test_video_map() -> None:
    """A tube is found once; the second choice counts; classes without truth have none."""
    truth = [tube("a", 0, 10), tube("a", 20, 30), tube("b", 0, 10), tube("b", 0, 10, label=1)]
    said = [
        tube("a", 0, 10, score=0.9), tube("a", 0, 9, score=0.8), tube("a", 21, 30, score=0.7),
        tube("b", 0, 4, score=0.6), tube("c", 0, 10, score=0.95), tube("b", 0, 10, 1, 0.5),
    ]  # fmt: skip
    found = video_scores(truth, said, 3, 0.5)
    # Ranked: wrong (video c), right, wrong (found already), right, wrong (0.4).
    np.testing.assert_allclose(found, [(1 / 2 + 1 / 2) / 3, 1.0, np.nan])
    np.testing.assert_allclose(video_scores(truth, said, 3, 0.2)[0], (3 * 0.6) / 3)
    several = video_scores(truth, said, 3, (0.2, 0.5))
    np.testing.assert_allclose(several[0], (0.6 + 1 / 3) / 2)
    assert video_scores(truth, [], 3, 0.5)[0] == 0.0
    with pytest.raises(UsageError, match="iou must be above 0"):
        video_scores(truth, said, 3, 0.0)


@pytest.mark.parametrize(
    "values", [{"iou": 0}, {"gap": -1}, {"shortest": 0}, {"smoothing": 2}, {"same": 0}]
)
def test_settings_out_of_range(values) -> None:
    with pytest.raises(UsageError):
        LinkSettings(**values)
