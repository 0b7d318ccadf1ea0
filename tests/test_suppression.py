"""Non-maximum suppression in time, plain and soft."""

import numpy as np
import pytest

from kvideo.errors import UsageError
from kvideo.localization.metrics import temporal_iou
from kvideo.localization.suppression import nms, soft_nms

SPANS = [[0, 10], [1, 11], [20, 30], [0, 10], [9, 19]]
SCORES = [0.8, 0.9, 0.3, 0.7, 0.5]


def test_the_best_of_those_that_overlap_is_kept() -> None:
    assert nms(SPANS, SCORES, 0.5).tolist() == [1, 4, 2]
    assert nms(SPANS, SCORES, 0.9).tolist() == [1, 0, 4, 2]  # 3 is the same as 0
    assert nms(SPANS, SCORES, 1.0).tolist() == [1, 0, 3, 4, 2]
    assert nms(SPANS, SCORES, 0.05).tolist() == [1, 2]
    assert nms(SPANS, SCORES, 0.5, most=2).tolist() == [1, 4]
    assert nms([], [], 0.5).tolist() == []


def test_nothing_that_is_kept_overlaps_and_all_else_does() -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 50, 200)
    spans = np.stack([starts, starts + rng.uniform(1, 10, 200)], axis=1)
    scores = rng.uniform(size=200)
    kept = nms(spans, scores, 0.4)
    among = temporal_iou(spans[kept], spans[kept]) - np.eye(len(kept))
    assert (among <= 0.4).all() and (np.diff(scores[kept]) <= 0).all()
    for other in np.setdiff1d(np.arange(200), kept):
        better = kept[scores[kept] >= scores[other]]
        assert temporal_iou(spans[other], spans[better]).max() > 0.4


def test_scores_fall_with_the_overlap() -> None:
    spans, scores = SPANS[:4], SCORES[:4]
    kept, found = soft_nms(spans, scores)
    assert sorted(kept.tolist()) == [0, 1, 2, 3] and kept[0] == 1 and found[0] == 0.9
    assert (np.diff(found) <= 0).all()
    overlap = 9 / 11
    assert found[kept == 0] == pytest.approx(0.8 * np.exp(-(overlap**2) / 0.5))
    # The third of the same is reduced by both others.
    assert found[kept == 3] == pytest.approx(0.7 * np.exp(-(overlap**2 + 1) / 0.5))
    assert found[kept == 2] == 0.3
    kept, found = soft_nms(spans, scores, decay="linear", tiou=0.3)
    assert found[kept == 0] == pytest.approx(0.8 * (1 - overlap))
    assert 3 not in kept  # 1 - 1 = 0
    assert len(soft_nms(spans, scores, most=2)[0]) == 2
    assert soft_nms(spans, scores, lowest=0.85)[0].tolist() == [1]


def test_the_arguments_are_not_changed() -> None:
    scores = np.array(SCORES)
    soft_nms(np.array(SPANS), scores)
    np.testing.assert_array_equal(scores, SCORES)


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(UsageError, match="5 segments need as many scores"):
        nms(SPANS, SCORES[:3], 0.5)
    with pytest.raises(UsageError, match="must be finite"):
        nms(SPANS, [np.nan] * 5, 0.5)
    with pytest.raises(UsageError, match="decay must be one of gaussian, linear"):
        soft_nms(SPANS, SCORES, decay="cubic")
