"""The figures, against scikit-learn and against sums done by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest

from kvideo.errors import UsageError
from kvideo.metrics import (
    average_precision,
    average_precisions,
    calibration,
    confusion_matrix,
    hit_at_k,
    mean_average_precision,
    mean_class_accuracy,
    multi_label_precision_recall,
    precision_recall_support,
    top_k_accuracy,
    wilson_interval,
)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_top_k_by_hand():
    probabilities = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    labels = [0, 1, 0, 2]
    assert top_k_accuracy(probabilities, labels) == 0.25
    assert top_k_accuracy(probabilities, labels, 2) == 0.5
    assert top_k_accuracy(probabilities, labels, 3) == 1
    assert top_k_accuracy(probabilities, labels, 50) == 1


def test_top_k_is_scikit_learn_s(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities = rng.dirichlet(np.ones(17), 300).astype(np.float32)
    labels = rng.integers(0, 17, 300)
    for k in (1, 2, 5, 16):
        expected = metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(17))
        assert top_k_accuracy(probabilities, labels, k) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_cannot_tell_scores_chance():
    probabilities = np.full((40, 4), 0.25)
    labels = np.repeat(np.arange(4), 10)
    for k in (1, 2, 3):
        assert top_k_accuracy(probabilities, labels, k) == k / 4
        assert hit_at_k(probabilities, np.eye(4)[labels], k) == k / 4
    assert mean_class_accuracy(probabilities, labels) == 0.25


def test_top_1_agrees_with_the_confusion_matrix_in_ties(rng):
    probabilities = rng.integers(0, 3, (500, 6)) / 2  # many ties
    labels = rng.integers(0, 6, 500)
    matrix = confusion_matrix(probabilities.argmax(1), labels, 6)
    assert top_k_accuracy(probabilities, labels) == np.trace(matrix) / 500


def test_confusion_precision_recall_are_scikit_learn_s(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, said = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    matrix = confusion_matrix(said, labels, 5)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(labels, said))
    expected = metrics.precision_recall_fscore_support(labels, said)
    precision, recall, support = precision_recall_support(matrix)
    np.testing.assert_allclose(precision, expected[0], atol=1e-12)
    np.testing.assert_allclose(recall, expected[1], atol=1e-12)
    np.testing.assert_array_equal(support, expected[3])
    balanced = metrics.balanced_accuracy_score(labels, said)
    assert mean_class_accuracy(np.eye(5)[said], labels) == pytest.approx(balanced, abs=1e-12)


def test_classes_without_videos_are_left_out():
    matrix = confusion_matrix([0, 1, 1], [0, 0, 1], 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]
    precision, recall, support = precision_recall_support(matrix)
    np.testing.assert_array_equal(precision, [1, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(recall, [0.5, 1, np.nan, np.nan])
    assert support.tolist() == [2, 1, 0, 0]
    assert mean_class_accuracy(np.eye(4)[[0, 1, 1]], [0, 0, 1]) == 0.75
    assert confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learn_s(rng, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    scores = rng.random((200, 7)).astype(np.float32)
    if ties:
        scores = np.round(scores * 8) / 8
    targets = rng.random((200, 7)) < [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.4]
    targets[0] = True
    expected = [metrics.average_precision_score(targets[:, c], scores[:, c]) for c in range(7)]
    np.testing.assert_allclose(average_precisions(scores, targets), expected, atol=1e-12)
    assert average_precision(scores[:, 2], targets[:, 2]) == pytest.approx(expected[2], abs=1e-12)
    macro = metrics.average_precision_score(targets, scores, average="macro")
    assert mean_average_precision(scores, targets) == pytest.approx(macro, abs=1e-12)


def voc_2010(scores, targets, num_positives):
    """The loop of the development kit, written from its description, for scores without ties."""
    order = np.argsort(-np.asarray(scores))
    tp = np.cumsum(np.asarray(targets)[order])
    recall = np.concatenate([[0], tp / num_positives, [1]])
    precision = np.concatenate([[0], tp / (np.arange(len(tp)) + 1), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def test_interpolated_average_precision_is_voc_s(rng):
    for positives in (0.05, 0.3, 0.8):
        scores = rng.permutation(150) / 150
        targets = rng.random(150) < positives
        missed = 4
        found = int(targets.sum())
        assert average_precision(scores, targets, interpolated=True) == pytest.approx(
            voc_2010(scores, targets, found), abs=1e-12
        )
        assert average_precision(
            scores, targets, interpolated=True, num_positives=found + missed
        ) == pytest.approx(voc_2010(scores, targets, found + missed), abs=1e-12)


def test_average_precision_by_hand():
    # Ranked: right, wrong, right: precision 1 at recall 1/2, then 2/3 at recall 1.
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)
    # Ranked: wrong, right, right: the envelope lifts 1/2 to 2/3.
    assert average_precision([0.9, 0.8, 0.7], [0, 1, 1]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision([0.9, 0.8, 0.7], [0, 1, 1], interpolated=True) == pytest.approx(2 / 3)
    assert math.isnan(average_precision([0.1, 0.2], [0, 0]))
    assert average_precision([], [], num_positives=3) == 0
    assert average_precision([0.3], [1], num_positives=4) == 0.25


def test_classes_without_positives_do_not_count():
    scores = np.array([[0.9, 0.1], [0.2, 0.3]])
    targets = np.array([[1, 0], [0, 0]])
    np.testing.assert_array_equal(average_precisions(scores, targets), [1, np.nan])
    assert mean_average_precision(scores, targets) == 1


def test_hit_at_k():
    scores = np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])
    targets = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0]])  # the last has no label
    assert hit_at_k(scores, targets, 1) == 0.5
    assert hit_at_k(scores, targets, 2) == 1
    assert hit_at_k(scores, targets, 9) == 1
    labels = np.array([2, 0, 0])
    for k in (1, 2, 3):
        assert hit_at_k(scores, np.eye(3)[labels], k) == top_k_accuracy(scores, labels, k)


def test_multi_label_precision_and_recall_are_scikit_learn_s(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = rng.random((100, 4)), rng.random((100, 4)) < 0.4
    precision, recall, support = multi_label_precision_recall(scores, targets)
    expected = metrics.precision_recall_fscore_support(targets, scores >= 0.5)
    np.testing.assert_allclose(precision, expected[0], atol=1e-12)
    np.testing.assert_allclose(recall, expected[1], atol=1e-12)
    np.testing.assert_array_equal(support, expected[3])
    precision, _, _ = multi_label_precision_recall(scores, targets, threshold=2)
    assert np.isnan(precision).all()


def test_wilson_interval():
    # Wilson's own form solved as a quadratic: |p - share| = z sqrt(p (1 - p) / n).
    low, high = wilson_interval(24, 31)
    z = 1.959963984540054
    for bound in (low, high):
        assert abs(bound - 24 / 31) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 31))
    assert low < 24 / 31 < high
    assert wilson_interval(0, 10)[0] == 0 and wilson_interval(10, 10)[1] == 1
    assert wilson_interval(10, 10)[0] == pytest.approx(1 / (1 + z * z / 10))
    narrow, wide = wilson_interval(5, 10, 0.5), wilson_interval(5, 10, 0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


GOOD = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: top_k_accuracy(np.zeros((0, 4)), []), "no videos"),
        (lambda: top_k_accuracy([0.1, 0.9], [1]), r"\(videos, classes\), not \(2,\)"),
        (lambda: top_k_accuracy(GOOD, [0, 1]), "3 rows of probabilities do not fit 2 labels"),
        (lambda: top_k_accuracy(GOOD, [0, 1, 2]), "labels: 2 is no index of one of 2 classes"),
        (lambda: top_k_accuracy(GOOD, [0, 1, -1]), "labels: -1 is no index"),
        (lambda: top_k_accuracy(GOOD, [0.0, 1.0, 1.0]), "whole numbers"),
        (lambda: top_k_accuracy(GOOD, [[0], [1], [1]]), r"labels must have the shape \(videos,\)"),
        (lambda: top_k_accuracy(GOOD, [0, 1, 1], 0), "k must be at least 1, not 0"),
        (lambda: top_k_accuracy([[0.5, 0.5], [np.nan, 1]], [0, 1]), "row 1 is not a number"),
        (lambda: mean_class_accuracy(np.zeros((0, 4)), []), "no videos"),
        (lambda: confusion_matrix([0], [0, 1], 2), "1 predictions do not fit 2 labels"),
        (lambda: confusion_matrix([5], [0], 2), "predictions: 5 is no index"),
        (lambda: precision_recall_support(np.ones((2, 3))), r"\(C, C\)"),
        (lambda: average_precision([0.1], [1, 0]), "one length"),
        (lambda: average_precision([np.nan], [1]), "row 0 is not a number"),
        (lambda: average_precision([0.1, 0.2], [1, 1], num_positives=1), "num_positives is 1"),
        (lambda: average_precision([0.1, 0.2], [1, 2]), "0 or 1"),
        (lambda: mean_average_precision(GOOD, np.zeros((3, 2))), "at least one video"),
        (lambda: mean_average_precision(GOOD, np.zeros((3, 4))), "must have one shape"),
        (lambda: hit_at_k(GOOD, np.zeros((3, 2))), "at least one video"),
        (lambda: wilson_interval(1, 0), "1 of 0"),
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: wilson_interval(1, 2, 95), "between 0 and 1"),
    ],
)
def test_what_cannot_be_computed_is_said(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_many_videos_at_once(rng):
    probabilities = rng.random((20_000, 400), dtype=np.float32)
    labels = rng.integers(0, 400, 20_000)
    matrix = confusion_matrix(probabilities.argmax(1), labels, 400)
    assert top_k_accuracy(probabilities, labels, 1) == np.trace(matrix) / 20_000
    assert top_k_accuracy(probabilities, labels, 5) == pytest.approx(5 / 400, abs=0.005)


def test_numpy_is_all_it_needs():
    code = (
        "import sys; import kvideo.metrics\n"
        "print([m for m in ('tensorflow', 'keras', 'cv2', 'sklearn', 'matplotlib', 'av')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_calibration() -> None:
    """Two ranges: sure of 0.9 and half right; sure of 0.6 and all right."""
    probabilities = [[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2
    found = calibration(probabilities, [0, 0, 1, 1, 1, 1], bins=5)
    assert found.counts.tolist() == [0, 0, 0, 2, 4]
    np.testing.assert_allclose(found.accuracy[3:], [1, 0.5])
    np.testing.assert_allclose(found.confidence[3:], [0.6, 0.9])
    assert found.error == pytest.approx((2 * 0.4 + 4 * 0.4) / 6)
    assert calibration([[1.0, 0.0]], [0], bins=1).error == 0
    with pytest.raises(UsageError, match="bins"):
        calibration(probabilities, [0] * 6, bins=0)
