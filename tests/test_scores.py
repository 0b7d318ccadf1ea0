"""From views to figures: averages, results, evaluation.json."""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import DataError, DecodeError, UsageError
from kvideo.metrics import wilson_interval
from kvideo.scores import VideoResult, average_views, describe_run, summarize

NAMES = ("hug", "kick", "point")


def video(path, labels, *probabilities, **more):
    return VideoResult(path, tuple(np.atleast_1d(labels).tolist()), np.array(probabilities), **more)


@pytest.fixture
def videos():
    return [
        video("a.mp4", 0, 0.7, 0.2, 0.1),
        video("b.mp4", 0, 0.05, 0.9, 0.05),  # sure and wrong
        video("c.mp4", 1, 0.1, 0.5, 0.4),
        video("d.mp4", 1, 0.5, 0.3, 0.2),  # unsure and wrong
        video("e.mp4", 1, 0.5, 0.1, 0.4),  # as unsure, but further from the truth
        VideoResult.failed("f.mp4", [2], DecodeError("f.mp4", "empty", "the file is empty")),
    ]


@pytest.fixture
def result(videos):
    return summarize(videos, NAMES, views=Views(10, 3))


def test_average_of_views():
    views = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    averaged = average_views(views)
    np.testing.assert_array_equal(averaged, [[4, 5, 6, 7], [16, 17, 18, 19]])
    ragged = average_views([views[0], views[1, :2], views[1, 2:]])
    np.testing.assert_array_equal(ragged, [[4, 5, 6, 7], [14, 15, 16, 17], [20, 21, 22, 23]])
    assert np.isnan(average_views(np.array([[[0.5, np.nan], [0.5, 0.5]]]))[0, 1])


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (np.zeros((2, 3)), r"\(videos, views, classes\), not \(2, 3\)"),
        (np.zeros((2, 0, 3)), "no views"),
        ([], "no videos"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "video 1 has the shape"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], "video 1 has no views"),
        ([np.zeros(3)], "video 0 has the shape"),
    ],
)
def test_views_that_do_not_fit(views, words):
    with pytest.raises(UsageError, match=words):
        average_views(views)


def test_figures(result):
    assert result.metrics == {
        "top1": 2 / 5,
        "mean_class_accuracy": pytest.approx((1 / 2 + 1 / 3) / 2),
        "num_videos": 5,
        "num_failed": 1,
        "views": 30,
    }
    assert result.intervals == {"top1": wilson_interval(2, 5)}
    assert result.confusion.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]
    assert result.headline == "top-1 0.400 (0.118–0.769, 5 videos)"
    assert result.baseline == 3 / 5
    hug, kick, point = result.classes
    assert (hug.support, hug.predicted, hug.right, hug.taken_for) == (2, 3, 1, ((1, 1),))
    assert (kick.precision, kick.recall) == (0.5, pytest.approx(1 / 3))
    assert point.support == 0 and math.isnan(point.recall) and math.isnan(point.precision)
    assert [c.name for c in result.worst_classes()] == ["kick", "hug"]
    assert [c.name for c in result.worst_classes(1)] == ["kick"]
    assert result.confusions(5) == ((1, 0, 2), (0, 1, 1))


def test_top_5_is_given_where_it_says_something():
    for num_classes, given in [(5, False), (6, True)]:
        names = [str(c) for c in range(num_classes)]
        p = np.full(num_classes, 1 / num_classes)
        result = summarize([VideoResult("a", (num_classes - 1,), p)], names)
        assert ("top5" in result.metrics) == given
    assert result.metrics["top5"] == 0 and "views" not in result.metrics


def test_worst_mistakes_are_those_of_which_the_model_was_surest(result):
    worst = result.worst(10)
    assert [m.video.path for m in worst] == ["b.mp4", "e.mp4", "d.mp4"]
    assert (worst[0].predicted, worst[0].truth) == (1, 0)
    assert (worst[0].probability, worst[0].truth_probability) == (0.9, 0.05)
    assert [m.video.path for m in result.worst(1)] == ["b.mp4"]


def test_failures_are_counted_and_named(videos):
    videos += [
        video("g.mp4", 0, np.nan, 0.5, 0.5),
        video("h.mp4", 0, np.inf, 0.5, 0.5),
        VideoResult.failed("i.mp4", (0,), OSError("the wire is cut"), start=2.0),
    ]
    result = summarize(videos, NAMES)
    assert {reason: [v.path for v in group] for reason, group in result.failures.items()} == {
        "not_finite": ["g.mp4", "h.mp4"],
        "empty": ["f.mp4"],
        "OSError": ["i.mp4"],
    }
    assert result.metrics["num_failed"] == 4 and result.metrics["num_videos"] == 5
    assert result.failures["OSError"][0].name == "i.mp4 [2– s]"
    assert result.failures["OSError"][0].error == "the wire is cut"


def test_multi_label():
    videos = [
        video("a", [0, 1], 0.9, 0.6, 0.1),
        video("b", [1], 0.8, 0.7, 0.1),
        video("c", [], 0.1, 0.2, 0.3),
    ]
    result = summarize(videos, NAMES, multi_label=True)
    # Class 0 is ranked a b c (1, 1 of 1); class 1 b a c (1, 1); class 2 has no positive.
    assert result.metrics == {"mAP": 1.0, "hit1": 0.5, "num_videos": 3, "num_failed": 0}
    assert result.confusion is None and result.intervals == {} and result.confusions(3) == ()
    assert [c.average_precision for c in result.classes[:2]] == [1, 1]
    assert math.isnan(result.classes[2].average_precision)
    assert (result.classes[0].precision, result.classes[0].recall) == (0.5, 1)
    assert result.headline == "mAP 1.000 (3 videos)"
    (mistake,) = result.worst(5)
    assert (mistake.video.path, mistake.predicted, mistake.truth) == ("b", 0, 1)


@pytest.mark.parametrize(
    ("videos", "error", "words"),
    [
        ([], DataError, "no videos"),
        ([video("a", [], 1, 0, 0)], DataError, "a has 0 labels"),
        ([video("a", [0, 1], 1, 0, 0)], DataError, "a has 2 labels"),
        ([video("a", 3, 1, 0, 0)], DataError, "a has the label 3, beyond 3 classes"),
        ([video("a", 0, 1, 0)], UsageError, r"a has probabilities of the shape \(2,\) for 3"),
        (
            [video("a", 0, np.nan, 0, 0), VideoResult("b", (0,), None, "gone", "missing")],
            DataError,
            "none of 2 videos gave a result: 1 not finite and 1 missing. The first is a: the model",
        ),
    ],
)
def test_what_cannot_be_evaluated(videos, error, words):
    with pytest.raises(error, match=words):
        summarize(videos, NAMES)


def test_multi_label_without_any_label():
    with pytest.raises(DataError, match="none of the videos has a label"):
        summarize([video("a", [], 1, 0, 0)], NAMES, multi_label=True)


def test_the_json_document(tmp_path, videos):
    odd = os.fsdecode(b"caf\xe9 \"'\n.mp4")
    videos.append(video(odd, 0, 0.6, 0.3, 0.1, start=1.5, end=4.0))
    details = describe_run(
        model=Path("model.keras"), clip_spec=ClipSpec(16), decoder=None, rate=np.float32(0.5)
    )
    result = summarize(videos, NAMES, views=Views(10, 3), details=details)
    path = tmp_path / "evaluation.json"
    result.save(path)
    document = json.loads(path.read_text("utf-8"))
    assert document == result.to_json()
    assert document["format"] == 1
    assert document["metrics"]["num_failed"] == 1 and document["metrics"]["views"] == 30
    assert document["details"]["clip_spec"]["num_frames"] == 16
    assert document["details"]["views"] == {"num_clips": 10, "num_crops": 3}
    assert document["details"]["model"] == "model.keras" and document["details"]["rate"] == 0.5
    assert "decoder" not in document["details"]
    assert document["details"]["versions"]["numpy"] == np.__version__
    assert document["classes"][2]["recall"] is None  # not defined: not NaN, which JSON lacks
    assert document["classes"][1]["taken_for"] == [["hug", 2]]
    assert document["confusion"] == [[2, 1, 0], [2, 1, 0], [0, 0, 0]]
    assert document["failures"] == [
        {"path": "f.mp4", "reason": "empty", "error": "the file is empty"}
    ]
    assert document["videos"][1] == {
        "path": "b.mp4",
        "labels": ["hug"],
        "predicted": "kick",
        "top": [["kick", 0.9], ["hug", 0.05], ["point", 0.05]],
        "label_probabilities": [0.05],
    }
    assert document["videos"][6]["path"] == odd and document["videos"][6]["end"] == 4
    # Readable and greppable: one video per line.
    assert sum("b.mp4" in line for line in path.read_text("utf-8").splitlines()) == 1


def test_multi_label_json():
    result = summarize([video("a", [0, 1], 0.9, 0.6, 0.1)], NAMES, multi_label=True)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["confusion"] is None and "taken_for" not in document["classes"][0]
    assert document["classes"][2]["average_precision"] is None
    assert document["videos"][0]["label_probabilities"] == [0.9, 0.6]


def test_results_cannot_be_changed(result):
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.multi_label = True


def test_many_videos():
    rng = np.random.default_rng(0)
    probabilities = rng.random((5_000, 400), dtype=np.float32)
    names = [f"class {c}" for c in range(400)]
    results = [VideoResult(f"{i}.mp4", (i % 400,), p) for i, p in enumerate(probabilities)]
    result = summarize(results, names)
    assert result.metrics["num_videos"] == 5_000
    worst = result.worst(24)
    assert worst[0].probability == max(m.probability for m in result.worst(5_000))
