"""Figures of labels over time: worked by hand, and against references written from the papers."""

import math

import numpy as np
import pytest

from kvideo.errors import UsageError
from kvideo.segmentation import (
    edit_score,
    f1_score,
    find_runs,
    frame_accuracy,
    segment_counts,
    segmentation_metrics,
)

# -- references: plain loops ----------------------------------------------------------------------


def reference_runs(labels):
    """[(label, first, last + 1)], from left to right."""
    runs = []
    for place, label in enumerate(labels):
        if runs and runs[-1][0] == label:
            runs[-1][2] = place + 1
        else:
            runs.append([label, place, place + 1])
    return [tuple(run) for run in runs]


def reference_levenshtein(one, two):
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) + 1):
        for j in range(len(two) + 1):
            if not i or not j:
                table[i][j] = i + j
                continue
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (one[i - 1] != two[j - 1]),
            )
    return table[-1][-1]


def reference_edit(truth, said, exclude):
    one, two = ([r[0] for r in reference_runs(x) if r[0] not in exclude] for x in (truth, said))
    if not one and not two:
        return math.nan
    return (1 - reference_levenshtein(one, two) / max(len(one), len(two))) * 100


def reference_counts(truth, said, overlap, exclude):
    """As the evaluation published with MS-TCN (Farha & Gall 2019) goes about it."""
    true, found = ([r for r in reference_runs(x) if r[0] not in exclude] for x in (truth, said))
    taken = [False] * len(true)
    right = wrong = 0
    for label, start, end in found:
        best, place = -1.0, None
        for index, (other, first, last) in enumerate(true):
            union = max(end, last) - min(start, first)
            shared = max(min(end, last) - max(start, first), 0)
            iou = shared / union if other == label else 0.0
            if iou > best:
                best, place = iou, index
        if place is not None and best >= overlap and not taken[place]:
            taken[place] = True
            right += 1
        else:
            wrong += 1
    return right, wrong, len(true) - sum(taken)


def random_labels(rng, frames, classes):
    runs = [np.full(rng.integers(1, 12), rng.integers(classes)) for _ in range(frames)]
    return np.concatenate(runs)[:frames]


@pytest.mark.parametrize("seed", range(40))
def test_against_the_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, classes = int(rng.integers(1, 90)), int(rng.integers(1, 5))
    truth, said = random_labels(rng, frames, classes), random_labels(rng, frames, classes)
    said = np.where(rng.random(frames) < 0.6, truth, said)
    for exclude in ((), (0,), (0, 2)):
        np.testing.assert_allclose(
            edit_score(truth, said, exclude=exclude), reference_edit(truth, said, exclude)
        )
        for overlap in (0.1, 0.25, 0.5, 0.9):
            expected = reference_counts(truth, said, overlap, exclude)
            assert segment_counts(truth, said, overlap, exclude=exclude) == expected
    runs = find_runs(truth)
    listed = list(zip(runs.labels, runs.starts, runs.ends, strict=True))
    assert listed == reference_runs(truth)


def test_several_videos_are_summed_as_the_literature_does() -> None:
    rng = np.random.default_rng(7)
    pairs = [(random_labels(rng, 60, 3), random_labels(rng, 60, 3)) for _ in range(5)]
    figures = segmentation_metrics(pairs, exclude=(0,))
    assert figures["frame_accuracy"] == pytest.approx(np.mean([np.mean(t == p) for t, p in pairs]))
    assert figures["edit"] == pytest.approx(np.mean([reference_edit(*p, (0,)) for p in pairs]))
    for percent in (10, 25, 50):
        counts = np.sum([reference_counts(*p, percent / 100, (0,)) for p in pairs], axis=0)
        right, wrong, missed = counts.tolist()
        precision, recall = right / (right + wrong), right / (right + missed)
        expected = 100 * 2 * precision * recall / (precision + recall)
        assert figures[f"f1@{percent}"] == pytest.approx(expected)


# -- by hand --------------------------------------------------------------------------------------


def test_a_worked_example() -> None:
    truth = np.repeat([0, 1, 2], [4, 4, 2])
    said = np.repeat([0, 1, 0, 2], [5, 2, 1, 2])
    assert frame_accuracy(truth, said) == pytest.approx(8 / 10)
    # 0 1 2 against 0 1 0 2: one insertion over four.
    assert edit_score(truth, said) == pytest.approx(75)
    # IoU: 0 with 0: 4/5; 1 with 1: 2/4; the second 0 with 0: none; 2 with 2: 1.
    assert segment_counts(truth, said, 0.5) == (3, 1, 0)
    assert segment_counts(truth, said, 0.6) == (2, 2, 1)
    assert f1_score(3, 1, 0) == pytest.approx(100 * 6 / 7)


def test_over_segmentation_costs_segments_but_hardly_frames() -> None:
    truth = np.zeros(100, int)
    said = truth.copy()
    said[[20, 40, 60, 80]] = 1
    assert frame_accuracy(truth, said) == pytest.approx(0.96)
    assert edit_score(truth, said) == pytest.approx(100 / 9)
    # The best of the five parts covers 19 of 100 frames, or 20.
    assert segment_counts(truth, said, 0.1) == (1, 8, 0)
    assert segment_counts(truth, said, 0.25) == (0, 9, 1)


def test_frames_without_a_label_are_left_out() -> None:
    truth = np.array([-1, 0, 0, -1, 1, 1, -1, -1])
    said = np.array([1, 0, 0, 2, 1, 0, 1, 0])
    assert frame_accuracy(truth, said) == pytest.approx(3 / 4)
    assert edit_score(truth, said) == pytest.approx(100 * (1 - 1 / 3))  # 0 1 0 against 0 1
    assert segment_counts(truth, said, 0.5) == (2, 1, 0)


def test_classes_that_do_not_count() -> None:
    truth = np.repeat([0, 1, 0, 2, 0], 4)
    said = np.repeat([1, 2], [8, 12])
    assert edit_score(truth, said, exclude=(0,)) == 100
    assert segment_counts(truth, said, 0.3, exclude=(0,)) == (2, 0, 0)
    assert frame_accuracy(truth, said, exclude=(0,)) == 1.0
    assert frame_accuracy(truth, said) == pytest.approx(8 / 20)


def test_what_cannot_be_defined_is_nan() -> None:
    nothing = np.full(5, -1)
    figures = segmentation_metrics([(nothing, np.zeros(5, int))])
    assert set(figures) == {"frame_accuracy", "edit", "f1@10", "f1@25", "f1@50"}
    assert all(math.isnan(value) for value in figures.values())
    background = segmentation_metrics([(np.zeros(5, int), np.zeros(5, int))], exclude=(0,))
    assert background["frame_accuracy"] == 1.0 and math.isnan(background["edit"])
    empty = np.zeros(0, int)
    assert len(find_runs(empty)) == 0 and math.isnan(frame_accuracy(empty, empty))
    assert segment_counts(np.zeros(3, int), np.ones(3, int), 0.1) == (0, 1, 1)


def test_rows_must_fit() -> None:
    with pytest.raises(UsageError, match=r"came \(3,\) and \(4,\)"):
        frame_accuracy([0, 0, 0], [0, 0, 0, 0])
    with pytest.raises(UsageError, match=r"not \(2, 2\)"):
        find_runs(np.zeros((2, 2)))
