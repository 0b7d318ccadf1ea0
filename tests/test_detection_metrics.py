"""Frame-mAP: the official evaluation's numbers, its rules one by one, and a plain reference."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from kvideo.detection import Boxes, box_iou, frame_scores
from kvideo.errors import UsageError


def boxes(rows) -> Boxes:
    """Of (video, time, x1, y1, x2, y2, label[, score])."""
    rows = list(rows)
    scores = np.array([row[7] for row in rows]) if rows and len(rows[0]) > 7 else None
    return Boxes(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2:6] for row in rows]).reshape(-1, 4),
        np.array([row[6] for row in rows]),
        scores,
    )


def test_the_official_numbers(shared: Path) -> None:
    top = shared / "oracles" / "eval"
    expected = json.loads((top / "expected.json").read_text())["ava"]
    sides = []
    for name in ("gt", "pred"):
        with open(top / "ava" / f"{name}.csv", newline="") as file:
            lines = list(csv.reader(file))
        keep = slice(7, 8) if name == "pred" else slice(0, 0)
        sides.append(
            boxes(
                (r[0], float(r[1]), *map(float, r[2:6]), int(r[6]) - 1, *map(float, r[keep]))
                for r in lines
            )
        )
    result = frame_scores(*sides, 3, iou=expected["iou"])
    assert result.mean == pytest.approx(expected["mAP"], abs=1e-12)
    for place, name in enumerate(("action1", "action2", "action3")):
        assert result.average_precisions[place] == pytest.approx(
            expected["per_class"][name], abs=1e-12
        )


def reference(truth, said, num_classes, iou, most, empty, excluded):
    """The rules in plain loops."""
    frames = ({(v, t) for v, t, *_ in truth} | set(empty)) - set(excluded)
    hits = {label: [] for label in range(num_classes)}
    for frame in frames:
        own = sorted((row for row in said if row[:2] == frame), key=lambda row: -row[7])[:most]
        own = [row for row in own if row[4] > row[2] and row[5] > row[3]]
        for label in range(num_classes):
            there = [row for row in truth if row[:2] == frame and row[6] == label]
            taken = set()
            for row in (row for row in own if row[6] == label):
                overlaps = [float(box_iou([row[2:6]], [t[2:6]])[0, 0]) for t in there]
                best = int(np.argmax(overlaps)) if overlaps else -1
                good = best >= 0 and overlaps[best] >= iou and best not in taken
                if good:
                    taken.add(best)
                hits[label].append((row[7], good))
    values = []
    for label in range(num_classes):
        total = sum(row[6] == label and row[:2] in frames for row in truth)
        if not total:
            values.append(math.nan)
            continue
        ranked = [good for _, good in sorted(hits[label], key=lambda pair: -pair[0])]
        precision = [sum(ranked[: n + 1]) / (n + 1) for n in range(len(ranked))]
        values.append(sum(max(precision[n:]) for n, good in enumerate(ranked) if good) / total)
    return values


@pytest.mark.parametrize("seed", range(4))
def test_as_the_rules_say(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def row(score: bool):
        corner = rng.uniform(0, 0.5, 2)
        size = rng.choice([0.3, 0.32, 0.35, -0.1, 0.0], p=[0.3, 0.3, 0.3, 0.05, 0.05], size=2)
        if not score:
            size = np.abs(size) + 0.01
        where = rng.choice(["a", "b"]), float(rng.integers(3))
        values = (*np.round(corner, 1), *np.round(corner + size, 2), int(rng.integers(3)))
        return (*where, *values, float(rng.random())) if score else (*where, *values)

    truth = [row(False) for _ in range(14)]
    said = [row(True) for _ in range(90)]
    empty, excluded = [("c", 0.0)], [("a", 1.0)]
    said += [("c", 0.0, 0.1, 0.1, 0.4, 0.4, 0, 0.99), ("never", 5.0, 0.1, 0.1, 0.4, 0.4, 0, 1.0)]
    for most in (5, 50):
        found = frame_scores(
            boxes(truth), boxes(said), 4, most=most, empty=empty, excluded=excluded
        )
        expected = reference(truth, said, 4, 0.5, most, empty, excluded)
        np.testing.assert_allclose(found.average_precisions, expected, atol=1e-12)
        assert np.isnan(found.average_precisions[3])


def test_small_cases() -> None:
    one = [("v", 1.0, 0.0, 0.0, 0.5, 0.5, 0)]
    right = ("v", 1.0, 0.0, 0.0, 0.5, 0.5, 0, 0.5)
    double = (*right[:7], 0.4)
    assert frame_scores(boxes(one), boxes([right]), 1).mean == 1.0
    assert frame_scores(boxes(one), boxes([right, double]), 1).mean == 1.0
    assert (
        frame_scores(
            boxes(one), boxes([(*right[:7], 0.3), ("v", 1.0, 0.6, 0.6, 1, 1, 0, 0.9)]), 1
        ).mean
        == 0.5
    )
    nothing = Boxes([], [], np.zeros((0, 4)), [], [])
    assert frame_scores(boxes(one), nothing, 1).mean == 0.0
    assert math.isnan(frame_scores(boxes(one), boxes([right]), 1, excluded=[("v", 1)]).mean)
    with pytest.raises(UsageError, match="needs the scores"):
        frame_scores(boxes(one), boxes(one), 1)
    with pytest.raises(UsageError, match="must be from 0 to 0"):
        frame_scores(boxes([(*one[0][:6], 1)]), boxes([right]), 1)
    with pytest.raises(UsageError, match="finite"):
        boxes([("v", 1.0, 0.0, 0.0, math.nan, 0.5, 0)])
    with pytest.raises(UsageError, match="came for 1 boxes"):
        Boxes(["v"], [1.0], np.zeros((2, 4)), [0])


def test_overlaps() -> None:
    a = [[0, 0, 2, 2], [1, 1, 1, 1]]
    b = [[1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 2, 2]]
    np.testing.assert_allclose(box_iou(a, b), [[1 / 3, 0, 1], [0, 0, 0]])
