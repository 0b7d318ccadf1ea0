"""Every layer: the generic check, and a reference in NumPy written from the formula."""

import itertools

import keras
import numpy as np
import pytest
from layer_checks import run_layer_check

from kvideo.errors import UsageError
from kvideo.layers import (
    BatchNorm,
    FoldTime,
    FramesToChannels,
    Norm,
    PixelNormalization,
    UnfoldTime,
    conv_unit,
    depthwise_unit_2d,
)

CASES = {
    "pixels": (PixelNormalization, {}, (2, 3, 4, 5, 3), (2, 3, 4, 5, 3), {}),
    "pixels_bgr": (
        PixelNormalization,
        {"mean": (1.0, 2.0, 3.0), "std": (1.0, 2.0, 4.0), "channel_order": "bgr"},
        (2, 4, 5, 3),
        (2, 4, 5, 3),
        {},
    ),
    "fold": (FoldTime, {}, (2, 3, 4, 5, 6), (6, 4, 5, 6), {}),
    "fold_vectors": (FoldTime, {}, (2, 3, 4), (6, 4), {}),
    "unfold": (UnfoldTime, {"num_frames": 3}, (6, 4, 5, 2), (2, 3, 4, 5, 2), {}),
    "frames_to_channels": (FramesToChannels, {}, (2, 3, 4, 5, 6), (2, 4, 5, 18), {}),
    "batch_norm": (
        BatchNorm,
        {"momentum": 0.9},
        (2, 3, 4, 5, 6),
        (2, 3, 4, 5, 6),
        {"trainable": 2, "non_trainable": 2},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_generic_check(case, tmp_path):
    layer_class, init_kwargs, input_shape, output_shape, counts = case
    run_layer_check(layer_class, init_kwargs, input_shape, output_shape, tmp_path, **counts)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_pixels_follow_the_formula(rng, dtype):
    pixels = rng.integers(0, 256, (2, 3, 4, 5, 3)).astype(dtype)
    mean, std = (10.0, 20.0, 30.5), (2.0, 4.0, 8.0)
    rgb = PixelNormalization(mean, std)(pixels)
    bgr = PixelNormalization(mean, std, channel_order="bgr")(pixels)
    for channel in range(3):
        expected = (pixels[..., channel].astype(float) - mean[channel]) / std[channel]
        np.testing.assert_allclose(rgb[..., channel], expected, atol=1e-5)
        mirrored = (pixels[..., 2 - channel].astype(float) - mean[channel]) / std[channel]
        np.testing.assert_allclose(bgr[..., channel], mirrored, atol=1e-5)


def test_pixels_are_normalized_in_float32_under_bfloat16():
    layer = PixelNormalization(200.0, 1.0, dtype="mixed_bfloat16")
    pixel = np.full((1, 1, 1, 3), 200.4, "float32")  # bfloat16 would make 200 of it
    np.testing.assert_allclose(keras.ops.cast(layer(pixel), "float32"), 0.4, atol=0.002)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"std": 0.0}, "std"),
        ({"std": (1.0, -1.0, 1.0)}, "std"),
        ({"channel_order": "grb"}, "channel_order"),
    ],
)
def test_pixels_refuse(arguments, named):
    with pytest.raises(UsageError, match=named):
        PixelNormalization(**arguments)


def test_pixels_refuse_another_number_of_channels():
    with pytest.raises(UsageError, match=r"mean has 3 values.*2\s+channels"):
        PixelNormalization((1.0, 2.0, 3.0))(np.zeros((1, 4, 4, 2)))


def test_fold_and_unfold_keep_the_frames_of_a_clip_together(rng):
    clips = rng.normal(size=(2, 3, 4, 5, 6)).astype("float32")
    frames = np.asarray(FoldTime()(clips))
    for clip, frame in itertools.product(range(2), range(3)):
        np.testing.assert_array_equal(frames[clip * 3 + frame], clips[clip, frame])
    np.testing.assert_array_equal(UnfoldTime(3)(frames), clips)


def test_unfold_needs_a_frame():
    with pytest.raises(UsageError, match="num_frames"):
        UnfoldTime(0)


def test_frames_become_channels_in_order(rng):
    clips = rng.normal(size=(2, 3, 4, 5, 6)).astype("float32")
    merged = np.asarray(FramesToChannels()(clips))
    for frame, channel in itertools.product(range(3), range(6)):
        np.testing.assert_array_equal(
            merged[..., frame * 6 + channel], clips[:, frame, ..., channel]
        )


def convolve(x, kernel):
    """(B, T, H, W, C) with zeros around, by the definition."""
    *sizes, _, filters = kernel.shape
    padded = np.pad(x, [(0, 0), *((size // 2, size // 2) for size in sizes), (0, 0)])
    result = np.zeros((*x.shape[:-1], filters))
    for offset in itertools.product(*(range(size) for size in sizes)):
        window = tuple(slice(o, o + n) for o, n in zip(offset, x.shape[1:-1], strict=True))
        result += padded[(slice(None), *window)] @ kernel[offset]
    return result


@pytest.mark.parametrize("shape", [(2, 4, 5, 6, 3), (2, 5, 6, 3)], ids=["3d", "2d"])
def test_conv_unit_follows_the_formula(rng, shape):
    inputs = keras.Input(shape[1:])
    norm = Norm(momentum=0.9, epsilon=1e-3)
    model = keras.Model(inputs, conv_unit(inputs, 4, 3, name="conv1", norm=norm))
    assert [layer.name for layer in model.layers[1:]] == ["conv1", "conv1_bn", "conv1_relu"]
    assert not model.get_layer("conv1").use_bias
    gamma, beta, mean = (rng.normal(size=4) for _ in range(3))
    variance = rng.uniform(0.1, 2, 4)
    model.get_layer("conv1_bn").set_weights([gamma, beta, mean, variance])

    x = rng.normal(size=shape).astype("float32")
    convolved = convolve(x, np.asarray(model.get_layer("conv1").kernel))
    expected = np.maximum((convolved - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    np.testing.assert_allclose(model(x, training=False), expected, atol=1e-4)

    model(x, training=True)
    axes = tuple(range(len(shape) - 1))
    moved = model.get_layer("conv1_bn")
    np.testing.assert_allclose(
        moved.moving_mean, 0.9 * mean + 0.1 * convolved.mean(axes), atol=1e-4
    )
    np.testing.assert_allclose(
        moved.moving_variance, 0.9 * variance + 0.1 * convolved.var(axes), atol=1e-3
    )


def test_conv_unit_without_norm_has_a_bias(rng):
    inputs = keras.Input((4, 4, 4, 2))
    model = keras.Model(inputs, conv_unit(inputs, 3, 1, name="c", norm=None, activation=None))
    assert [layer.name for layer in model.layers[1:]] == ["c"]
    kernel, bias = rng.normal(size=(1, 1, 1, 2, 3)), rng.normal(size=3)
    model.get_layer("c").set_weights([kernel, bias])
    x = rng.normal(size=(2, 4, 4, 4, 2)).astype("float32")
    np.testing.assert_allclose(model(x), x @ kernel[0, 0, 0] + bias, atol=1e-5)


def test_depthwise_unit_sees_each_channel_alone(rng):
    inputs = keras.Input((5, 6, 3))
    unit = depthwise_unit_2d(inputs, 3, name="d", norm=None, activation=None)
    model = keras.Model(inputs, unit)
    x = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    kernel = np.asarray(model.get_layer("d").kernel)  # (3, 3, C, 1)
    expected = np.concatenate(
        [convolve(x[..., c : c + 1], kernel[:, :, c : c + 1]) for c in range(3)], axis=-1
    )
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
