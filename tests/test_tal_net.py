"""`tal_net`: what it is made of, what its towers see, and the arithmetic of anchors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.errors import DataError, UsageError
from kvideo.layers import SegmentPool
from kvideo.localization import temporal_iou
from kvideo.localization.anchors import (
    IGNORED,
    choose_scales,
    decode,
    encode,
    make_anchors,
    match,
    sample,
)


def pooled(features: np.ndarray, segments: np.ndarray, bins: int, context: float) -> np.ndarray:
    """The maxima of each part, written from the definition."""
    result = np.zeros((*segments.shape[:2], bins, features.shape[-1]), features.dtype)
    for b, n in np.ndindex(segments.shape[:2]):
        start, end = segments[b, n].astype(np.float64)
        longer = context * (end - start)
        edges = np.linspace(start - longer, end + longer, bins + 1)
        for k in range(bins):
            touched = [
                t for t in range(features.shape[1])
                if t < edges[k + 1] - 1e-4 and t + 1 > edges[k] + 1e-4
            ]  # fmt: skip
            if touched:
                result[b, n, k] = features[b, touched].max(axis=0)
    return result


@pytest.mark.parametrize("context", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 5, 40, 300])
def test_segment_pool_is_the_maximum_of_each_part(steps: int, context: float) -> None:
    """Of segments inside, across either end, outside, shorter than a step, and of the whole."""
    rng = np.random.default_rng(steps)
    features = rng.normal(size=(2, steps, 3)).astype("float32")
    starts = rng.uniform(-5, steps + 3, (2, 40))
    lengths = np.exp(rng.uniform(-3, np.log(2 * steps + 1), (2, 40)))
    segments = np.stack([starts, starts + lengths], axis=-1).astype("float32")
    segments[:, 0] = [0, steps]
    layer = SegmentPool(7, context=context)
    said = layer([features, segments])
    assert said.shape == (2, 40, 7, 3)
    np.testing.assert_array_equal(said, pooled(features, segments, 7, context))


def test_segment_pool_as_a_layer(tmp_path) -> None:
    """Configuration, symbolic shape, saving, gradient to the largest alone, bfloat16."""
    layer = SegmentPool(2, context=0.25)
    assert SegmentPool.from_config(layer.get_config()).get_config() == layer.get_config()
    inputs = [keras.Input((None, 4)), keras.Input((None, 2))]
    assert layer(inputs).shape == (None, None, 2, 4)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    x = np.arange(12, dtype="float32").reshape(1, 12, 1).repeat(4, axis=2)
    spans = np.array([[[4.0, 8.0]]], "float32")
    np.testing.assert_array_equal(again([x, spans]), model([x, spans]))
    np.testing.assert_array_equal(model([x, spans])[0, 0, :, 0], [5, 8])  # steps 3 to 5, 6 to 8
    value = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(layer([value, spans]))
    assert np.flatnonzero(tape.gradient(total, value)[0, :, 0]).tolist() == [5, 8]
    half = SegmentPool(2, context=0.25, dtype="bfloat16")([x, spans])
    assert half.dtype == tf.bfloat16
    with pytest.raises(UsageError, match="bins must be at least 1"):
        SegmentPool(0)


def test_shapes_and_names() -> None:
    model = kvideo.models.tal_net(3, input_shape=(None, 8), scales=(4, 9.5), filters=16)
    out = model({"features": np.zeros((2, 30, 8)), "segments": np.array([[[3, 9.0]] * 5] * 2)})
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "objectness": (2, 30, 2),
        "anchor_offsets": (2, 30, 2, 2),
        "logits": (2, 5, 4),
        "segment_offsets": (2, 5, 3, 2),
    }
    tower = 2 * (3 * 16 * 16 + 16) + 3 * 17
    second = (7 * 16 * 32 + 32) + 33 * 4 + 33 * 6
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == 9 * 16 + 2 * tower + second
    assert "tal_net" in dir(kvideo.models)
    assert not any(line.startswith("tal_net") for line in kvideo.registry.entries("kvideo.models"))


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("scale", [6.0, 12.0, 24.0])
def test_a_tower_sees_its_anchor(scale: float, context: bool) -> None:
    """Its receptive field is the anchor, or twice that with context, and what the pool adds."""
    model = kvideo.models.tal_net(
        1, input_shape=(None, 2), scales=(scale,), filters=4, context=context, dropout=0
    )
    for weight in model.trainable_weights:  # all positive, so that nothing cancels out
        weight.assign(np.full(weight.shape, 0.1))
    middle, steps = 200, 401
    x = tf.Variable(np.ones((1, steps, 2), "float32"))
    x.assign_add(np.random.default_rng(0).uniform(0, 0.1, x.shape).astype("float32"))
    spans = tf.zeros((1, 1, 2))
    with tf.GradientTape() as tape:
        out = model({"features": x, "segments": spans})["objectness"][0, middle, 0]
    seen = np.flatnonzero(np.abs(tape.gradient(out, x)[0]).sum(axis=1))
    hole = round(scale / 6)
    exact = (scale * (2 if context else 1)) / 2
    assert exact - hole <= middle - seen.min() <= exact + hole
    assert exact - hole <= seen.max() - middle <= exact + hole


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"scales": ()}, "scales must be lengths above 0"),
        ({"scales": (3, float("nan"))}, "scales must be lengths above 0"),
        ({"input_shape": (None, None)}, "input_shape must be"),
        ({"filters": 0}, "filters must be at least 1"),
    ],
)
def test_wrong_arguments(changes, words) -> None:
    options = {"num_classes": 2, "input_shape": (None, 4), "scales": (3,)} | changes
    with pytest.raises(UsageError, match=words):
        kvideo.models.tal_net(options.pop("num_classes"), **options)


def test_offsets_there_and_back() -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 50, (2, 30))
    one, two = (np.stack([s, s + rng.uniform(0.5, 20, 30)], axis=1) for s in starts)
    np.testing.assert_allclose(decode(one, encode(one, two)), two, atol=1e-9)
    np.testing.assert_allclose(encode(one, one), 0, atol=1e-12)
    assert np.isfinite(decode(one, np.full((30, 2), 1e6))).all()
    # The middle half an anchor to the right, twice as long.
    np.testing.assert_allclose(
        decode(np.array([[2.0, 6]]), np.array([[0.5, np.log(2)]])), [[2, 10]]
    )


def test_anchors_have_their_middle_in_their_step() -> None:
    grid = make_anchors(3, (2, 4))
    np.testing.assert_allclose(grid[:2], [[-0.5, 1.5], [-1.5, 2.5]])
    np.testing.assert_allclose(grid.mean(axis=1), [0.5, 0.5, 1.5, 1.5, 2.5, 2.5])


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_each_training_segment_has_an_anchor_of_its_length(spread: float) -> None:
    lengths = np.exp(np.random.default_rng(1).normal(2, spread, 500))
    scales = np.array(choose_scales(lengths))
    ratios = lengths[:, None] / scales
    overlap = np.minimum(ratios, 1 / ratios).max(axis=1)
    inner = (lengths >= np.quantile(lengths, 0.01)) & (lengths <= np.quantile(lengths, 0.99))
    assert (overlap[inner] >= 0.81).all() and len(scales) <= 12
    assert list(scales) == sorted(scales)


def test_scales_that_nothing_needs_are_left_out() -> None:
    assert len(choose_scales([1.0] * 50 + [100.0] * 50)) == 2
    assert choose_scales([3.0]) == (3.0,)
    with pytest.raises(DataError, match="no segment"):
        choose_scales([0.0])


def test_matching() -> None:
    """By overlap; the best one of each true segment in any case; without truth all negative."""
    truth = np.array([[0.0, 10], [20, 24], [90, 91]])
    segments = np.array([[0.0, 9], [0, 5], [0, 2], [19, 28], [50, 60]])
    nearest, state = match(segments, truth, positive=0.7, negative=0.3, best=False)
    assert state.tolist() == [1, IGNORED, 0, IGNORED, 0] and nearest[0] == 0
    nearest, state = match(segments, truth, positive=0.7, negative=0.3, best=True)
    assert state.tolist() == [1, IGNORED, 0, 1, 0] and nearest[3] == 1
    nearest, state = match(segments, np.zeros((0, 2)), positive=0.7, negative=0.3, best=True)
    assert state.tolist() == [0] * 5
    best = temporal_iou(segments, truth).max(axis=1)
    assert best[0] == 0.9


def test_examples_are_drawn_in_shares() -> None:
    rng = np.random.default_rng(0)
    state = np.array([1] * 30 + [0] * 100 + [IGNORED] * 20)
    drawn = sample(state, 40, 0.5, rng)
    assert len(drawn) == len(set(drawn.tolist())) == 40
    assert (state[drawn] == 1).sum() == 20 and (state[drawn] == 0).sum() == 20
    few = sample(np.array([1, 0, 0, IGNORED]), 40, 0.25, rng)
    assert sorted(few.tolist()) == [0, 1, 2]
    assert (sample(np.zeros(50, int), 16, 0.25, rng) >= 0).sum() == 16
    assert len(sample(np.full(5, IGNORED), 16, 0.25, rng)) == 0
