"""Figures of temporal localization: the official evaluation's numbers, and small cases by hand."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvideo.errors import UsageError
from kvideo.localization import (
    ACTIVITYNET_TIOUS,
    Segments,
    average_recall,
    detection_scores,
    temporal_iou,
)

Row = tuple[str, float, float, str, float]


def segments(rows: list[Row]) -> Segments:
    videos, starts, ends, labels, scores = zip(*rows, strict=True)
    columns = (np.array(column) for column in (videos, starts, ends, labels, scores))
    return Segments(*columns)


def read(path: Path) -> Any:
    with gzip.open(path) as file:
        return json.load(file)


def official(folder: Path, subset: str) -> tuple[Segments, Segments]:
    truth = [
        (video, *map(float, one["segment"]), one["label"], 0.0)
        for video, entry in read(folder / "gt.json.gz")["database"].items()
        if entry["subset"] == subset
        for one in entry["annotations"]
    ]
    said = [
        (video, *map(float, one["segment"]), one["label"], one["score"])
        for video, entries in read(folder / "pred.json.gz")["results"].items()
        for one in entries
    ]
    return segments(truth), segments(said)


@pytest.mark.parametrize("name", ["activitynet13", "thumos14"])
def test_the_official_numbers(shared: Path, name: str) -> None:
    folder = shared / "oracles" / "eval"
    if not (folder / name).is_dir():
        pytest.skip(f"no official evaluations at {folder}")
    expected = json.loads((folder / "expected.json").read_text())[name]
    truth, said = official(folder / name, expected["subset"])
    assert (len(truth), len(said)) == (expected["n_gt"], expected["n_pred"])
    found = detection_scores(truth, said, expected["tiou"])
    np.testing.assert_allclose(found.mean, expected["mAP"], rtol=0, atol=1e-12)
    assert found.average == pytest.approx(expected["average_mAP"], abs=1e-12)
    assert set(found.classes) == set(expected["per_class"])
    for column, label in enumerate(found.classes):
        np.testing.assert_allclose(
            found.average_precisions[:, column], expected["per_class"][label], rtol=0, atol=1e-12
        )


def test_overlaps() -> None:
    one = [[0, 10], [5, 5], [2, 4]]
    two = [[0, 10], [5, 15], [5, 5], [20, 30]]
    expected = [[1, 1 / 3, 0, 0], [0, 0, 0, 0], [0.2, 0, 0, 0]]
    np.testing.assert_allclose(temporal_iou(one, two), expected)
    assert temporal_iou(np.zeros((0, 2)), two).shape == (0, 4)


def test_each_true_segment_is_found_once_and_the_next_best_serves() -> None:
    truth = segments([("v", 0, 10, "a", 0), ("v", 4, 14, "a", 0), ("w", 0, 10, "a", 0)])
    said = segments(
        [
            ("v", 0, 10, "a", 0.9),
            ("v", 1, 11, "a", 0.8),  # the first one is taken: it finds the second one at 0.5
            ("v", 0, 10, "a", 0.7),  # twice
            ("w", 0, 10, "b", 0.6),  # a class that the truth does not have
            ("x", 0, 10, "a", 0.5),  # a video without truth
            ("w", 0, 9, "a", 0.4),
        ]
    )
    low, high = detection_scores(truth, said, [0.5, 0.95]).average_precisions[:, 0]
    assert low == pytest.approx((1 + 1 + 3 / 5) / 3)
    assert high == pytest.approx(1 / 3)
    nothing = detection_scores(truth, segments([("v", 0, 1, "b", 1.0)]))
    assert nothing.average == 0 and nothing.classes == ("a",)


def by_hand(truth: Segments, said: Segments, tiou: float, most: float) -> list[float]:
    """Recall at each point of the curve, counted one by one, by the rules of the official code."""
    videos = list(dict.fromkeys(truth.videos.tolist()))
    ratio = most * len(videos) / len(said)
    kept = {}
    for video in videos:
        rows = [i for i, name in enumerate(said.videos.tolist()) if name == video]
        rows.sort(key=lambda i: -said.scores[i])
        kept[video] = rows[: min(int(len(rows) * ratio), len(rows))]
    total = sum(map(len, kept.values()))
    recalls = []
    for point in range(1, 101):
        share, found = point / 100 * (most * len(videos) / total), 0
        for i, video in enumerate(truth.videos.tolist()):
            rows = kept[video][: min(int(len(kept[video]) * share), len(kept[video]))]
            for row in rows:
                begin = max(truth.starts[i], said.starts[row])
                end = min(truth.ends[i], said.ends[row])
                shared = max(end - begin, 0)
                union = truth.ends[i] - truth.starts[i] + said.ends[row] - said.starts[row] - shared
                if shared / union >= tiou:
                    found += 1
                    break
        recalls.append(found / len(truth))
    return recalls


@pytest.mark.parametrize("most", [3.0, 8.0, 40.0])
def test_recall_against_the_number_of_proposals(most: float) -> None:
    rng = np.random.default_rng(3)

    def some(count: int, videos: int) -> Segments:
        starts = rng.uniform(0, 20, count)
        names = np.array([f"v{number}" for number in rng.integers(0, videos, count)])
        scores = rng.permutation(count) / count
        return Segments(names, starts, starts + rng.uniform(1, 10, count), None, scores)

    truth, said = some(12, 5), some(60, 7)
    curve = average_recall(truth, said, [0.3, 0.5], most=most)
    for row, tiou in enumerate((0.3, 0.5)):
        np.testing.assert_allclose(curve.recalls[row], by_hand(truth, said, tiou, most))
    assert curve.proposals[-1] == pytest.approx(most)
    assert 0 < curve.area <= curve.average[-1] and (np.diff(curve.average) >= 0).all()
    assert curve.at(most) == curve.average[-1] and curve.at(0) == 0


def test_all_proposals_by_default() -> None:
    truth = segments([("v", 0, 10, "a", 0), ("v", 20, 30, "a", 0), ("w", 0, 1, "a", 0)])
    said = segments([("v", 0, 10, "", 0.2), ("v", 21, 31, "", 0.9)])
    curve = average_recall(truth, said)
    assert curve.proposals[-1] == pytest.approx(1.0) and len(curve.proposals) == 100
    assert curve.tious == ACTIVITYNET_TIOUS
    # At half of them the better one, of tIoU 9/11: seven of ten overlaps.
    assert curve.average[50] == pytest.approx(7 / 10 / 3)
    assert curve.average[-1] == pytest.approx((7 / 10 + 1) / 3)


@pytest.mark.parametrize("change", [{"scores": None}, {"labels": None}])
def test_what_is_missing_is_told(change: dict) -> None:
    truth = segments([("v", 0, 10, "a", 0.5)])
    columns = {
        "videos": truth.videos, "starts": truth.starts, "ends": truth.ends,
        "labels": truth.labels, "scores": truth.scores,
    }  # fmt: skip
    with pytest.raises(UsageError, match="mAP needs labels on both sides"):
        detection_scores(truth, Segments(**{**columns, **change}))


def test_wrong_values_are_told() -> None:
    one = segments([("v", 0, 10, "a", 0.5)])
    none = Segments(np.array([], str), np.array([]), np.array([]), np.array([], str), np.array([]))
    with pytest.raises(UsageError, match="at least one true segment"):
        detection_scores(none, one)
    assert detection_scores(one, none).average == 0
    for truth, said in ((none, one), (one, none)):
        with pytest.raises(UsageError, match="one true segment and one proposal"):
            average_recall(truth, said)
    for tious in ([], [0.0], [0.5, 1.5]):
        with pytest.raises(UsageError, match="tious must be"):
            detection_scores(one, one, tious)
    with pytest.raises(UsageError, match="no proposals for the videos of the truth"):
        average_recall(one, segments([("w", 0, 10, "a", 0.5)]))
    with pytest.raises(UsageError, match="columns of one length"):
        Segments(np.array(["v"]), np.zeros(2), np.zeros(2))
    with pytest.raises(UsageError, match="finite"):
        Segments(np.array(["v"]), np.array([np.nan]), np.zeros(1))
