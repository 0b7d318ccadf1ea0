"""A localizer: trained on features with planted segments, saved, and used on long videos."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import kvideo
from kvideo import localization
from kvideo.data.tracks import Segment
from kvideo.data.untrimmed import UntrimmedSet, UntrimmedVideo
from kvideo.errors import DataError, ModelFileError, UnknownNameError, UsageError
from kvideo.localization.anchors import IGNORED, choose_scales
from kvideo.localization.detection import DetectionSettings, detect, windows
from kvideo.localization.grouping import contrast, group, watershed
from kvideo.localization.localizer import Localizer, Stream, load_localizer
from kvideo.localization.proposals import Stages
from kvideo.localization.results import FoundSegment, Localization, summarize_localizations
from kvideo.localization.training import (
    Example,
    HeadSettings,
    _ignore,
    _window,
    adapt_normalization,
    train_head,
)
from kvideo.saving import ModelInfo
from kvideo.segmentation.results import FrameResult

USUAL = DetectionSettings()
CLASSES, CHANNELS, STRIDE = ("run", "swim", "dive"), 10, 0.25


def planted(seed: int, steps: int, count: int) -> Example:
    """Noise, and in each segment a constant on its class's channel."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.5, (steps, CHANNELS)).astype("float32")
    segments, labels = [], []
    for place in range(count):
        first = place * steps / count + rng.uniform(2, 5)
        last = first + rng.uniform(6, steps / count - 8)
        label = int(rng.integers(len(CLASSES)))
        features[round(first) : round(last), label] += 2.0
        segments.append((round(first), round(last)))
        labels.append(label)
    spans = np.array(segments, float).reshape(-1, 2)
    return Example(features, spans, np.array(labels, int))


TRAIN = [planted(seed, 90 + 5 * (seed % 4), 3) for seed in range(27)] + [planted(99, 70, 0)]
TEST = [planted(100 + seed, 120, 4) for seed in range(6)]
SCALES = choose_scales([b - a for example in TRAIN for a, b in example.segments])


def head(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return kvideo.models.tal_net(
        len(CLASSES), input_shape=(None, CHANNELS), scales=SCALES, filters=48, dropout=0.2
    )


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = head()
    adapt_normalization(model, TRAIN)
    rows: list[dict[str, float]] = []
    train_head(model, TRAIN, SCALES, HeadSettings(epochs=25), on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == list(range(1, 26))
    assert rows[-1]["loss"] < 0.4 * rows[0]["loss"]
    return model


def truth_of(examples) -> UntrimmedSet:
    videos = (
        UntrimmedVideo(
            f"v{number}",
            None,
            tuple(
                Segment(a * STRIDE, b * STRIDE, int(label))
                for (a, b), label in zip(example.segments, example.labels, strict=True)
            ),
        )
        for number, example in enumerate(examples)
    )
    return UntrimmedSet(tuple(videos), CLASSES, source="planted")


def found_by(streams, examples, settings=USUAL) -> list[Localization]:
    found = []
    for number, example in enumerate(examples):
        duration = len(example.features) * STRIDE
        features = [example.features] * len(streams)
        said = detect(streams, features, SCALES, STRIDE, duration, settings)
        segments = (
            FoundSegment(*span, CLASSES[label], score)
            for span, label, score in zip(said.spans, said.labels, said.scores, strict=True)
        )
        rows = said.proposal_rows
        found.append(Localization("", f"v{number}", duration, tuple(segments), rows))
    return found


def test_it_learns_what_was_planted(trained) -> None:
    """Nearly all segments of videos it has not seen, and their ends."""
    truth = truth_of(TEST)
    result = summarize_localizations(truth, found_by([Stages(trained)], TEST), (0.5, 0.7))
    assert result.metrics["map@0.50"] > 0.75 and result.metrics["map@0.70"] > 0.25
    assert result.metrics["ar@10"] > 0.4
    before = summarize_localizations(truth, found_by([Stages(head())], TEST), (0.5,))
    assert before.metrics["map@0.50"] < 0.3
    assert all(
        0 <= s.start < s.end <= each.duration + 1e-9
        for each in result.localizations
        for s in each.segments
    )


def test_both_stages_learn() -> None:
    """No weight but those that anchors' and segments' offsets need stays as it was."""
    model = head()
    before = [weight.numpy() for weight in model.trainable_weights]
    train_head(model, TRAIN[:2], SCALES, HeadSettings(epochs=2))
    pairs = zip(model.trainable_weights, before, strict=True)
    assert all(not np.array_equal(weight.numpy(), old) for weight, old in pairs)


def test_the_same_seed_gives_the_same_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        model = head()
        train_head(model, TRAIN[:3], SCALES, HeadSettings(epochs=2, seed=seed))
        weights.append(np.concatenate([w.numpy().ravel() for w in model.trainable_weights]))
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    assert np.abs(weights[0] - weights[2]).max() > 1e-4


def test_a_video_without_segments_alone() -> None:
    """No positive anchor: the losses are finite, and nothing is made of it."""
    model = head()
    with pytest.raises(DataError, match="none of the training videos has a segment"):
        train_head(model, [planted(1, 60, 0)], SCALES, HeadSettings(epochs=1))
    rows: list[dict[str, float]] = []
    examples = [planted(1, 60, 0)] * 5 + [planted(2, 60, 1)]
    train_head(model, examples, SCALES, HeadSettings(epochs=1), on_epoch=rows.append)
    assert all(np.isfinite(value) for value in rows[0].values())


def test_a_window_of_a_long_video() -> None:
    """A segment that it cuts is an example if three quarters are left, and otherwise hidden."""
    spans = np.array([[10.0, 30], [38, 48], [45, 85], [200, 210]])
    example = Example(np.zeros((300, 2), np.float32), spans, np.arange(4))
    seen = set()
    for seed in range(200):
        cut = _window(example, 60, np.random.default_rng(seed))
        assert len(cut.features) == 60
        for (a, b), label in zip(cut.segments, cut.labels, strict=True):
            first, last = spans[label]
            assert 0 <= a < b <= 60 and b - a >= 0.75 * (last - first)
        assert all(0 <= a < b <= 60 for a, b in cut.hidden)
        seen.add((len(cut.segments), len(cut.hidden)))
    assert len(seen) > 4
    state = np.array([0, 0, 1])
    _ignore(state, np.array([[0.0, 9], [0, 40], [0, 10]]), np.array([[0.0, 10]]))
    assert state.tolist() == [IGNORED, 0, 1]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_videos_shorter_than_any_anchor(trained, steps: int) -> None:
    example = Example(TEST[0].features[:steps], np.array([[0.0, steps]]), np.array([0]))
    (found,) = found_by([Stages(trained)], [example])
    assert all(0 <= s.start < s.end <= steps * STRIDE for s in found.segments)
    train_head(head(), [example, TRAIN[0]], SCALES, HeadSettings(epochs=1))


def test_windows_cover_a_long_video_once() -> None:
    parts = list(windows(1000, 200, 10))
    own = [step for _, _, (first, last) in parts for step in range(first, last)]
    assert own == list(range(1000))
    assert all(last - first <= 200 for first, last, _ in parts)
    assert all(
        first == max(0, core[0] - 20) and last == min(1000, core[1] + 20)
        for first, last, core in parts
    )
    assert list(windows(200, 200, 10)) == [(0, 200, (0, 200))]


def test_windows_change_nothing_that_is_sure(trained) -> None:
    """A video of fifteen minutes, whole and in parts: the same segments."""
    joined = [planted(300 + seed, 120, 4) for seed in range(30)]
    long = Example(
        np.concatenate([each.features for each in joined]),
        np.concatenate([each.segments + 120 * i for i, each in enumerate(joined)]),
        np.concatenate([each.labels for each in joined]),
    )
    stages = [Stages(trained)]
    whole = DetectionSettings(window=10_000)
    parts = DetectionSettings(window=300)
    sure = []
    for settings in (whole, parts):
        (found,) = found_by(stages, [long], settings)
        sure.append([s for s in found.above(0.5)])
        result = summarize_localizations(truth_of([long]), [found], (0.5,))
        assert result.metrics["map@0.50"] > 0.75
    # At the seams proposals are suppressed by others; what they become hardly differs.
    assert abs(len(sure[0]) - len(sure[1])) <= 6
    near = [
        min(abs(a.start - b.start) + abs(a.end - b.end) for b in sure[1] if a.label == b.label)
        for a in sure[0]
    ]
    assert np.mean(np.array(near) < 0.5) > 0.9


def test_late_fusion_is_the_mean(trained) -> None:
    """Twice the same stream is that stream; with an untrained one it is less sure, not lost."""
    one, two = (found_by([Stages(trained)] * n, TEST[:1])[0] for n in (1, 2))
    assert [s.label for s in one.segments] == [s.label for s in two.segments]
    np.testing.assert_allclose(
        [(s.start, s.end, s.score) for s in one.segments],
        [(s.start, s.end, s.score) for s in two.segments], atol=1e-4,
    )  # fmt: skip
    (mixed,) = found_by([Stages(trained), Stages(head(5))], TEST[:1])
    assert mixed.segments[0].score < one.segments[0].score


def test_suppression(trained) -> None:
    stages = [Stages(trained)]
    (hard,) = found_by(stages, TEST[:1], DetectionSettings(tiou=0.3))
    (soft,) = found_by(stages, TEST[:1], DetectionSettings(suppression="soft-nms"))
    (few,) = found_by(stages, TEST[:1], DetectionSettings(most=2))
    assert len(soft.segments) > len(hard.segments) and len(few.segments) == 2
    assert soft.segments[0] == hard.segments[0]
    for label in CLASSES:
        own = np.array([(s.start, s.end) for s in hard.segments if s.label == label])
        if len(own) > 1:
            overlaps = localization.temporal_iou(own, own) - np.eye(len(own))
            assert overlaps.max() <= 0.3 + 1e-9


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (DetectionSettings, {"suppression": "none"}, "suppression must be one of"),
        (DetectionSettings, {"tiou": 0}, "tiou must be above 0"),
        (DetectionSettings, {"most": 0}, "must be above 0"),
        (HeadSettings, {"epochs": 0}, "epochs and window must be at least 1"),
        (HeadSettings, {"learning_rate": float("nan")}, "learning rate must be above 0"),
    ],
)
def test_settings_out_of_range(kind, values, words) -> None:
    with pytest.raises(UsageError, match=words):
        kind(**values)


# ----------------------------------------------------------------------------- the folder


@pytest.fixture(scope="module")
def localizer(trained) -> Localizer:
    clip = keras.Input((4, 16, 16, 3), name="clip")
    x = keras.layers.GlobalAveragePooling3D(name="mean")(clip)
    x = keras.layers.Dense(CHANNELS, name="features")(x)
    extractor = keras.Model(clip, keras.layers.Dense(2, name="logits")(x), name="tiny")
    extractor.kvideo_info = ModelInfo(kvideo.ClipSpec(4, 8.0, (16, 16)), ("a", "b"))
    stream = Stream("rgb", extractor, "features", trained)
    return Localizer(CLASSES, STRIDE, SCALES, (stream,), details={"why": "test"})


def test_saved_and_loaded(localizer, tmp_path) -> None:
    localizer.save(tmp_path)
    names = ["localizer.json", "rgb-tal_net.keras", "rgb.keras"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    again = load_localizer(tmp_path)
    assert dataclasses.replace(again.settings) == localizer.settings
    assert (again.class_names, again.stride, again.scales) == (CLASSES, STRIDE, SCALES)
    one, two = (each.detect([TEST[0].features], 30.0) for each in (localizer, again))
    np.testing.assert_allclose(one.spans, two.spans, atol=1e-5)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
    with pytest.raises(UnknownNameError, match="no stream 'flow'; it has rgb"):
        again.only("flow")


def test_folders_that_are_none(localizer, tmp_path) -> None:
    with pytest.raises(ModelFileError, match="is no localizer: it has no localizer.json"):
        load_localizer(tmp_path)
    localizer.save(tmp_path)
    index = tmp_path / "localizer.json"
    document = json.loads(index.read_text())
    index.write_text(json.dumps(document | {"format": 99}))
    with pytest.raises(ModelFileError, match="later than this one"):
        load_localizer(tmp_path)
    index.write_text(json.dumps({k: v for k, v in document.items() if k != "streams"}))
    with pytest.raises(ModelFileError, match="is damaged"):
        load_localizer(tmp_path)
    index.write_text("{")
    with pytest.raises(ModelFileError, match="is damaged"):
        load_localizer(tmp_path)
    index.write_text(json.dumps(document))
    weights = tmp_path / "rgb-tal_net.keras"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="could not be loaded"):
        load_localizer(tmp_path)
    weights.unlink()
    with pytest.raises(ModelFileError, match="there is no model file"):
        load_localizer(tmp_path)


# ----------------------------------------------------------------------------- the baseline


def test_watershed_joins_over_gaps() -> None:
    probability = np.array([0, 0.9, 0.9, 0.2, 0.9, 0.9, 0, 0, 0, 0, 0, 0.6, 0])
    runs = {tuple(run) for run in watershed(probability).tolist()}
    assert {(1, 3), (4, 6), (1, 6), (11, 12)} <= runs
    assert (1, 12) not in runs  # five of eleven are not above any threshold
    assert watershed(np.zeros(5)).shape == (0, 2)
    inside = contrast(probability, np.array([[1, 6], [4, 6], [11, 12]]))
    np.testing.assert_allclose(inside, [3.8 / 5 - 0, 0.9 - 0.1, 0.6])


def test_grouping_finds_segments() -> None:
    """A long and a short one of two classes; the background is none."""
    times = np.arange(80) / 4
    truth = np.zeros(80, int)
    truth[8:30], truth[50:58] = 1, 2
    rng = np.random.default_rng(0)
    logits = 3.0 * np.eye(3)[truth] + rng.normal(0, 0.7, (80, 3))
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    result = FrameResult("v", times, 20.0, rows, truth)
    found = group(result, (0,), DetectionSettings())
    assert set(found.labels.tolist()) <= {1, 2}
    for label, span in ((1, (2.0, 7.5)), (2, (12.5, 14.5))):
        best = found.spans[found.labels == label][0]
        np.testing.assert_allclose(best, span, atol=0.6)
    assert len(found.proposal_rows) == 0
    assert len(group(FrameResult("v", error="x"), (), DetectionSettings()).spans) == 0


def test_results_count_what_is_missing(tmp_path: Path) -> None:
    """A video that failed counts as one with nothing found; a wrong class as false."""
    truth = truth_of(TEST[:2])
    whole = [FoundSegment(s.start, s.end, CLASSES[s.label], 0.9) for s in truth.videos[0].segments]
    found = [Localization("", "v0", 30.0, tuple(whole)), Localization("x", "v1", error="gone")]
    result = summarize_localizations(truth, found, (0.5,))
    counts = {name: [0, 0] for name in CLASSES}
    for place, video in enumerate(truth.videos):
        for segment in video.segments:
            counts[CLASSES[segment.label]][place] += 1
    expected = {name: a / (a + b) for name, (a, b) in counts.items() if a + b}
    assert result.class_names == tuple(sorted(expected))
    np.testing.assert_allclose(
        result.scores.average_precisions[0], [expected[name] for name in result.class_names]
    )
    assert [each.name for each in result.failures] == ["v1"] and result.recall is None
    assert "mAP@0.5" in result.headline
    document = json.loads(json.dumps(result.to_json()))
    assert document["failures"] == [{"path": "x", "error": "gone"}]
    nothing = UntrimmedSet((UntrimmedVideo("v", None),), CLASSES, source="s")
    with pytest.raises(DataError, match="s has no segment to compare with"):
        summarize_localizations(nothing, [], (0.5,))
