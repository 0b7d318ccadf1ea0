"""RoI align, against its definition in NumPy and where both agree against crop_and_resize."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.layers.roi import RoIAlign


def value_at(picture: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear, values standing for the middles of cells; 0 further than half a cell outside."""
    height, width = picture.shape[:2]
    y, x = y - 0.5, x - 0.5
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(picture.shape[-1])
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = (
        min(int(y), height - 2) if height > 1 else 0,
        min(int(x), width - 2) if width > 1 else 0,
    )
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    return (
        (1 - v) * (1 - u) * picture[top, left]
        + (1 - v) * u * picture[top, right]
        + v * (1 - u) * picture[below, left]
        + v * u * picture[below, right]
    )


def reference(features, boxes, size, samples):
    result = np.zeros((*boxes.shape[:2], *size, features.shape[-1]))
    _, height, width, _ = features.shape
    for b, n in np.ndindex(boxes.shape[:2]):
        x1, y1, x2, y2 = boxes[b, n] * [width, height, width, height]
        for i, j in np.ndindex(size):
            points = [
                value_at(
                    features[b],
                    y1 + (i + (k + 0.5) / samples) * (y2 - y1) / size[0],
                    x1 + (j + (m + 0.5) / samples) * (x2 - x1) / size[1],
                )
                for k in range(samples)
                for m in range(samples)
            ]
            result[b, n, i, j] = np.mean(points, axis=0)
    return result


@pytest.mark.parametrize(("shape", "size", "samples"), [
    ((2, 14, 14, 5), (7, 7), 2), ((1, 9, 16, 3), (3, 5), 1), ((2, 1, 4, 2), (2, 2), 3),
])  # fmt: skip
def test_as_defined(shape, size, samples) -> None:
    """Boxes inside, across the borders, outside, tiny, and the whole picture."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=shape).astype("float32")
    corner = rng.uniform(-0.2, 0.9, (shape[0], 12, 2))
    extent = np.exp(rng.uniform(-4, 0, (shape[0], 12, 2)))
    boxes = np.concatenate([corner, corner + extent], axis=-1).astype("float32")
    boxes[:, 0] = [0, 0, 1, 1]
    boxes[:, 1] = [1.5, 1.5, 2, 2]
    said = RoIAlign(size, samples)([features, boxes])
    assert said.shape == (shape[0], 12, *size, shape[-1])
    expected = reference(features.astype(float), boxes.astype(float), size, samples)
    # A point that lies within rounding of half a cell outside may fall on either side.
    differs = np.abs(said - expected).max(axis=(2, 3, 4)) > 2e-4
    assert differs.mean() < 0.05
    assert np.abs(said[:, 1]).max() == 0


def test_as_crop_and_resize_where_they_agree() -> None:
    """One sample a bin, boxes whose points are those of crop_and_resize."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1, 10, 12, 4)).astype("float32")
    corners = np.array([[0.1, 0.2, 0.7, 0.9], [0.3, 0.1, 0.5, 0.6]], "float32")  # y1 x1 y2 x2
    crop = tf.image.crop_and_resize(features, corners, [0, 0], (5, 6))
    first, last = corners[:, :2] * [9, 11], corners[:, 2:] * [9, 11]  # middles of cells
    step = (last - first) / [4, 5]
    begin, end = first - step / 2 + 0.5, last + step / 2 + 0.5
    boxes = np.concatenate([begin / [10, 12], end / [10, 12]], axis=1)[:, [1, 0, 3, 2]]
    said = RoIAlign((5, 6), 1)([features, boxes[None].astype("float32")])
    np.testing.assert_allclose(said[0], crop, atol=1e-5)


def test_gradient_and_layer(tmp_path) -> None:
    """A map of ones has the box's area as gradient; configuration, shape, saving, bfloat16."""
    layer = RoIAlign((2, 3), 2)
    assert RoIAlign.from_config(layer.get_config()).get_config() == layer.get_config()
    inputs = [keras.Input((None, None, 4)), keras.Input((None, 4))]
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, None, 2, 3, 4)
    model.save(tmp_path / "m.keras")
    x = tf.Variable(np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32"))
    boxes = tf.constant([[[0.1, 0.1, 0.6, 0.9]]] * 2)
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "m.keras")([x, boxes]), model([x, boxes])
    )
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer([x, boxes]))
    gradient = tape.gradient(total, x)
    np.testing.assert_allclose(tf.reduce_sum(gradient, axis=(1, 2)), 6.0, rtol=1e-5)
    half = RoIAlign((2, 3), 2, dtype="bfloat16")([tf.cast(x, "bfloat16"), boxes])
    assert half.dtype == tf.bfloat16
    with pytest.raises(UsageError, match="from 1 on"):
        RoIAlign((0, 2))
