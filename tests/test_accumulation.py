"""Gradient accumulation: the step of the whole batch, from parts of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.errors import UsageError
from kvideo.training.step import compile_step

SHAPE = (4, 16, 16, 3)


def clips(frames: int = 4) -> tf.Tensor:
    shape = (8, frames, *SHAPE[1:])
    return tf.constant(np.random.default_rng(0).integers(0, 256, shape, dtype="uint8"))


def trained(build, labels, clips, **options) -> tuple[list[np.ndarray], np.ndarray]:
    keras.utils.set_random_seed(0)
    model = build()
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    step = compile_step(model, optimizer, tf.distribute.get_strategy(), batch_size=8, **options)
    for _ in range(3):
        figures = step(clips, labels).numpy()
    return model.get_weights(), figures


@pytest.mark.parametrize(
    "options", [{}, {"remat": True}, {"clip_norm": 0.1}], ids=["plain", "remat", "clipped"]
)
def test_parts_give_the_step_of_the_whole(options: dict) -> None:
    def build() -> keras.Model:
        return kvideo.models.slow_fusion(4, input_shape=SHAPE, widths=(4, 6), batch_norm=False)

    labels = tf.range(8) % 4
    whole, figures = trained(build, labels, clips(), **options)
    parts, same = trained(build, labels, clips(), accumulate=4, **options)
    np.testing.assert_allclose(figures, same, rtol=1e-5)
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bptt", [None, 2])
def test_frames_without_a_label_count_over_the_whole_batch(bptt: int | None) -> None:
    """A mean of the parts' means would weigh the few labelled frames of one part too much."""

    def build() -> keras.Model:
        return kvideo.models.recurrent_conv(3, input_shape=SHAPE, output="frames", widths=(4,))

    labels = np.random.default_rng(1).integers(0, 3, (8, 4)).astype("int32")
    labels[:4, 1:] = -1
    whole, figures = trained(build, tf.constant(labels), clips(), bptt=bptt)
    parts, same = trained(build, tf.constant(labels), clips(), bptt=bptt, accumulate=2)
    assert figures[2] == 20
    np.testing.assert_allclose(figures, same, rtol=1e-5)
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_batch_norms_see_one_part_at_a_time() -> None:
    def build() -> keras.Model:
        return kvideo.models.slow_fusion(4, input_shape=SHAPE, widths=(4,))

    data = clips()
    labels = tf.range(8) % 4
    keras.utils.set_random_seed(0)
    model = build()
    norm = model.get_layer("conv1_bn")
    for part in (data[:4], data[4:]):  # what the two parts of the first step do
        model(part, training=True)
    expected = norm.moving_mean.numpy()
    keras.utils.set_random_seed(0)
    model = build()
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    strategy = tf.distribute.get_strategy()
    compile_step(model, optimizer, strategy, batch_size=8, accumulate=2)(data, labels)
    got = model.get_layer("conv1_bn").moving_mean.numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_parts_must_divide_the_batch() -> None:
    model = kvideo.models.slow_fusion(4, input_shape=SHAPE, widths=(4,))
    optimizer = keras.optimizers.SGD(0.1)
    with pytest.raises(UsageError, match=r"accumulate \(3\) must divide the clips of a step"):
        compile_step(model, optimizer, tf.distribute.get_strategy(), batch_size=8, accumulate=3)
