"""Every layer: the generic check, and a reference in NumPy written from the formula."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import run_layer_check

from kvideo.errors import UsageError
from kvideo.layers import (
    BatchNorm,
    Conv3D,
    DepthwiseConv3D,
    Dropout,
    DropPath,
    FoldTime,
    FramesToChannels,
    MiddleFrame,
    Norm,
    PixelNormalization,
    ReLU,
    TakeChannels,
    UnfoldTime,
    ZeroPadding3D,
    conv_unit,
    depthwise_unit_2d,
    max_pool,
)
from kvideo.layers.conv3d import plain_convolutions
from kvideo.layers.conv3d_forms import in_blocks
from kvideo.layers.normalization import exact_statistics

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
    "middle_frame": (MiddleFrame, {}, (2, 4, 3, 5, 6), (2, 1, 3, 5, 6), {}),
    "take_channels": (TakeChannels, {"first": 3, "count": 2}, (2, 3, 4, 5), (2, 3, 4, 2), {}),
    "relu": (ReLU, {}, (2, 3, 4, 5, 6), (2, 3, 4, 5, 6), {}),
    "zero_padding": (ZeroPadding3D, {"padding": (1, 2, 3)}, (2, 3, 4, 5, 6), (2, 5, 8, 11, 6), {}),
    "batch_norm": (
        BatchNorm,
        {"momentum": 0.9},
        (2, 3, 4, 5, 6),
        (2, 3, 4, 5, 6),
        {"trainable": 2, "non_trainable": 2},
    ),
    "batch_norm_wide": (
        BatchNorm,
        {"momentum": 0.9},
        (2, 3, 4, 4, 16),
        (2, 3, 4, 4, 16),
        {"trainable": 2, "non_trainable": 2},
    ),
    "depthwise": (
        DepthwiseConv3D,
        {"kernel_size": 3},
        (2, 4, 5, 6, 8),
        (2, 4, 5, 6, 8),
        {"trainable": 2},
    ),
    "depthwise_over_time": (
        DepthwiseConv3D,
        {"kernel_size": (5, 1, 1), "use_bias": False},
        (2, 6, 4, 5, 8),
        (2, 6, 4, 5, 8),
        {"trainable": 1},
    ),
    "depthwise_strides": (
        DepthwiseConv3D,
        {"kernel_size": 3, "strides": 2, "padding": "valid", "depth_multiplier": 2},
        (2, 7, 8, 9, 4),
        (2, 3, 3, 4, 8),
        {"trainable": 2},
    ),
    "conv3d": (
        Conv3D,
        {"filters": 6, "kernel_size": 1, "strides": (1, 2, 2)},
        (2, 3, 4, 6, 8),
        (2, 3, 2, 3, 6),
        {"trainable": 2},
    ),
    "drop_path": (DropPath, {"rate": 0.25, "seed": 3}, (8, 2, 3, 3, 4), (8, 2, 3, 3, 4), {}),
    "dropout": (Dropout, {"rate": 0.25, "seed": 3}, (8, 2, 3, 3, 4), (8, 2, 3, 3, 4), {}),
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


def test_the_middle_frame_and_some_channels(rng):
    clips = rng.normal(size=(2, 5, 4, 3, 5)).astype("float32")
    np.testing.assert_array_equal(MiddleFrame()(clips), clips[:, 2:3])
    np.testing.assert_array_equal(MiddleFrame()(clips[:, :4]), clips[:, 2:3])
    np.testing.assert_array_equal(TakeChannels(3, 2)(clips), clips[..., 3:])
    with pytest.raises(UsageError, match="channels 4 to 5 cannot be taken from 5"):
        TakeChannels(4, 2)(clips)
    with pytest.raises(UsageError, match="cannot be taken"):
        TakeChannels(0, 0)


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


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5), (2, 6, 6, 5), (2, 4, 6, 6, 5)], ids=len)
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_gives_what_keras_gives(rng, shape, exact, training):
    """Outputs, gradients and moving averages, by the fused kernel and by the exact way."""
    x = tf.constant(rng.normal(2.0, 3.0, shape).astype("float32"))
    upstream = tf.constant(rng.normal(size=shape).astype("float32"))
    found = []
    for layer in (BatchNorm(epsilon=1e-3), keras.layers.BatchNormalization(epsilon=1e-3)):
        layer.build(shape)
        layer.set_weights(
            [0.5 + np.arange(5.0) / 4, np.arange(5.0), np.arange(5.0), 1 + np.arange(5.0)]
        )
        with exact_statistics() if exact else contextlib.nullcontext():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=training)
            sources = [x, layer.gamma.value, layer.beta.value]
            gradients = tape.gradient(y, sources, output_gradients=upstream)
        found.append([y, *gradients, *(weight.numpy() for weight in layer.weights)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("channels", [8, 16])
def test_batch_norm_in_bfloat16_keeps_type_and_statistics(rng, channels):
    x = rng.normal(3.0, 2.0, (2, 4, 8, 8, channels)).astype("float32")
    layer = BatchNorm(dtype="mixed_bfloat16", momentum=0.0)
    y = layer(tf.cast(x, "bfloat16"), training=True)
    assert y.dtype == tf.bfloat16 and layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, x.mean((0, 1, 2, 3)), rtol=2e-3)
    np.testing.assert_allclose(layer.moving_variance, x.var((0, 1, 2, 3)), rtol=5e-3)
    z = layer(tf.cast(x, "bfloat16"), training=False)
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(z, "float32"), atol=0.05)


def test_frozen_batch_norm_keeps_its_statistics(rng):
    layer = BatchNorm(trainable=False)
    x = rng.normal(5.0, 1.0, (2, 3, 4, 4, 3)).astype("float32")
    y = layer(x, training=True)
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-3), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


def test_exact_statistics_hold_six_digits(rng):
    x = rng.normal(10.0, 1.0, (8, 10, 64, 64, 3)).astype("float32")
    layer = BatchNorm(momentum=0.0)
    with exact_statistics():
        layer(x, training=True)
    expected = x.astype("float64").var((0, 1, 2, 3))
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=5e-6)


def depthwise(x, kernel, strides, padding):
    """The sum over the kernel's places, by the definition."""
    sizes = kernel.shape[:3]
    lengths = []
    if padding == "same":
        pads = []
        for size, k, step in zip(x.shape[1:4], sizes, strides, strict=True):
            lengths.append(-(-size // step))
            total = max((lengths[-1] - 1) * step + k - size, 0)
            pads.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
    else:
        lengths = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:4], sizes, strides, strict=True)]
    result = 0.0
    for place in itertools.product(*(range(size) for size in sizes)):
        cut = tuple(
            slice(first, first + (n - 1) * step + 1, step)
            for first, n, step in zip(place, lengths, strides, strict=True)
        )
        part = x[(slice(None), *cut)]
        result = result + part[..., None] * kernel[place]  # (B, T', H', W', C, M)
    return result.reshape(*result.shape[:4], -1)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 1, 1), (2, 3, 3), (1, 3, 3), (4, 1, 1)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 1, 1), (3, 2, 2)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_follows_the_definition(rng, kernel, strides, padding, multiplier):
    x = rng.normal(size=(2, 7, 6, 8, 3)).astype("float32")
    layer = DepthwiseConv3D(kernel, strides, padding, depth_multiplier=multiplier)
    layer.build(x.shape)
    layer.bias.assign(np.arange(3 * multiplier))
    expected = depthwise(x, np.asarray(layer.kernel), strides, padding)
    result = layer(x)
    assert result.shape == expected.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(result, expected + np.arange(3 * multiplier), atol=1e-4)


def test_depthwise_takes_clips_of_unknown_size(rng):
    layer = DepthwiseConv3D(3, 2)
    model = keras.Sequential([keras.Input((None, None, None, 4)), layer])
    x = rng.normal(size=(1, 7, 6, 9, 4)).astype("float32")
    expected = depthwise(x, np.asarray(layer.kernel), (2, 2, 2), "same")
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kernel_size": 0}, "kernel_size"),
        ({"kernel_size": (3, 3)}, "kernel_size"),
        ({"kernel_size": 3, "strides": (1, 2, 1)}, "height and width"),
        ({"kernel_size": 3, "padding": "half"}, "padding"),
    ],
)
def test_depthwise_refuses(arguments, named):
    with pytest.raises(UsageError, match=named):
        DepthwiseConv3D(**arguments)


def test_dropout_drops_single_values_and_keeps_the_mean():
    layer = Dropout(0.25, seed=0)
    x = np.ones((200, 10, 10), "float32")
    np.testing.assert_array_equal(layer(x, training=False), x)
    first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
    np.testing.assert_allclose(np.unique(first), [0, 4 / 3], rtol=1e-6)
    assert abs((first == 0).mean() - 0.25) < 0.02 and (first != second).any()
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.4
    # One draw for the values of an axis, where the noise has size 1 there.
    shared = np.asarray(Dropout(0.5, noise_shape=(None, 1, 10), seed=1)(x, training=True))
    assert (shared == shared[:, :1]).all() and 0.4 < (shared == 0).mean() < 0.6


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    layer = DropPath(0.25, seed=0)
    x = np.ones((4000, 2, 2), "float32")
    np.testing.assert_array_equal(layer(x, training=False), x)
    y = np.asarray(layer(x, training=True))
    values = y.reshape(4000, -1)
    assert (values.min(axis=1) == values.max(axis=1)).all()
    np.testing.assert_allclose(np.unique(values), [0, 4 / 3], rtol=1e-6)
    assert abs(values.mean() - 1.0) < 0.05
    with pytest.raises(UsageError, match="rate"):
        DropPath(1.0)


@pytest.mark.parametrize("size", [7, 8])
def test_half_padding_is_the_same_on_both_sides(rng, size):
    """At stride 2 on an even size it differs from TensorFlow's "same"."""
    x = rng.normal(size=(1, 3, size, size, 2)).astype("float32")
    clip = keras.Input(x.shape[1:])
    unit = conv_unit(
        clip, 4, (1, 3, 3), strides=(1, 2, 2), padding="half", norm=None, activation=None, name="a"
    )
    model = keras.Model(clip, unit)
    kernel = np.asarray(model.get_layer("a").kernel)
    full = convolve(x, kernel)
    np.testing.assert_allclose(model(x), full[:, :, ::2, ::2], atol=1e-5)
    pool = keras.Model(clip, max_pool(clip, (1, 3, 3), strides=(1, 2, 2), name="b"))
    positive = np.abs(x)
    padded = np.pad(positive, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [padded[:, :, i : i + size, j : j + size] for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(pool(positive), np.max(windows, axis=0)[:, :, ::2, ::2])


def test_half_padding_copies_nothing_where_same_does():
    clip = keras.Input((4, 8, 8, 3))
    model = keras.Model(clip, conv_unit(clip, 4, 3, padding="half", name="a"))
    assert [layer.name for layer in model.layers[1:]] == ["a", "a_bn", "a_relu"]


def test_a_residual_branch_can_begin_at_zero():
    clip = keras.Input((2, 4, 4, 3))
    unit = conv_unit(clip, 4, 3, zero_scale=True, activation=None, name="a")
    assert not np.asarray(keras.Model(clip, unit)(np.ones((1, 2, 4, 4, 3)))).any()


@pytest.mark.parametrize("size", [(4, 6, 8), (5, 7, 5), (1, 4, 4)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "strides": (1, 2, 2), "padding": "valid"},
        {"kernel_size": 1, "strides": (1, 3, 2), "padding": "same"},
        {"kernel_size": 1, "strides": 2},
        {"kernel_size": (3, 1, 1), "padding": "same"},
        {"kernel_size": (4, 1, 1), "padding": "same"},
        {"kernel_size": (7, 1, 1), "padding": "same"},
        {"kernel_size": (3, 1, 1), "padding": "same", "strides": (1, 2, 2)},
        {"kernel_size": (3, 1, 1), "padding": "same", "dilation_rate": (2, 1, 1)},
        {"kernel_size": 1, "groups": 1, "use_bias": False},
        {"kernel_size": (1, 3, 3), "padding": "same"},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": (4, 3, 3), "padding": "same", "strides": 2},
        {"kernel_size": (3, 3, 3), "padding": "same", "dilation_rate": (2, 1, 1)},
    ],
    ids=str,
)
def test_conv3d_gives_what_keras_gives(rng, size, options):
    """Outputs and gradients, whatever form these take."""
    x = tf.constant(rng.normal(size=(2, *size, 5)).astype("float32"))
    found, weights = [], None
    for kind in (Conv3D, keras.layers.Conv3D):
        layer = kind(4, **options)
        layer.build(x.shape)
        if weights is None:
            weights = [rng.normal(size=weight.shape) for weight in layer.weights]
        layer.set_weights(weights)

        @tf.function
        def run(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
                loss = tf.reduce_sum(y * y * y)
            return [y, *tape.gradient(loss, [x, *(w.value for w in layer.weights)])]

        found.append(run(x))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_conv3d_of_one_frame_in_bfloat16(rng):
    """oneDNN reads memory that nobody has written here, if all of a 3×3×3 kernel is given to it."""
    layer = Conv3D(24, 3, padding="same", dtype="mixed_bfloat16")
    x = tf.constant(rng.normal(size=(1, 1, 8, 12, 12)), tf.bfloat16)
    for _ in range(4):
        junk = tf.fill(x.shape, tf.constant(float("nan"), tf.bfloat16))
        del junk
        assert np.isfinite(np.asarray(layer(x), np.float32)).all()


def test_conv3d_learns_from_clips_of_unknown_size(rng):
    layer = Conv3D(4, 1, strides=(1, 2, 2))
    model = keras.Sequential([keras.Input((None, None, None, 3)), layer])
    x = tf.constant(rng.normal(size=(2, 3, 7, 8, 3)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, None, 3))])
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x) * 2.0)
        return tape.gradient(loss, layer.kernel.value)

    seen = x[:, :, ::2, ::2].numpy().sum((0, 1, 2, 3))
    expected = np.broadcast_to(2 * seen[:, None], (3, 4))
    np.testing.assert_allclose(gradient(x)[0, 0, 0], expected, rtol=1e-4, atol=1e-4)


def _outputs_and_gradients(function, *inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = function(*inputs)
        loss = tf.reduce_sum(tf.sin(y))
    return [y, *tape.gradient(loss, inputs)]


@pytest.mark.parametrize("taps", [2, 3, 5])
@pytest.mark.parametrize("frames", [1, 4])
def test_a_convolution_over_time_of_many_channels_is_products(rng, taps, frames):
    x = tf.constant(rng.normal(size=(2, frames, 2, 3, 1024)).astype("float32"))
    layer = Conv3D(3, (taps, 1, 1), padding="same", use_bias=False)
    layer.build(x.shape)
    operations = tf.function(layer).get_concrete_function(x).graph.get_operations()
    names = {operation.type for operation in operations}
    assert "MatMul" in names and "Conv3D" not in names
    with plain_convolutions():
        names = {
            operation.type
            for operation in tf.function(layer).get_concrete_function(x).graph.get_operations()
        }
    assert "Conv3D" in names and "MatMul" not in names
    kernel = layer.kernel.value
    found = _outputs_and_gradients(lambda x: layer(x), x)
    expected = _outputs_and_gradients(lambda x: tf.nn.conv3d(x, kernel, [1] * 5, "SAME"), x)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "kernel"),
    [
        ((9, 16, 14), (5, 7, 7)),
        ((6, 15, 12), (2, 3, 5)),
        ((3, 7, 8), (3, 7, 4)),
        ((4, 9, 9), (1, 2, 1)),
    ],
    ids=str,
)
def test_a_convolution_in_blocks_gives_what_a_plain_one_gives(rng, size, kernel, frames):
    x = tf.constant(rng.normal(size=(2, *size, 3)).astype("float32"))
    kernel = tf.constant(rng.normal(size=(*kernel, 3, 4)).astype("float32"))
    found = _outputs_and_gradients(lambda x, k: in_blocks(x, k, frames), x, kernel)
    expected = _outputs_and_gradients(
        lambda x, k: tf.nn.conv3d(x, k, [1, 1, 2, 2, 1], "VALID"), x, kernel
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_thin_convolutions_in_bfloat16_work_in_blocks_where_amx_is(rng, monkeypatch):
    x = tf.constant(rng.normal(size=(1, 6, 16, 16, 3)), "bfloat16")
    layer = Conv3D(8, (5, 7, 7), (1, 2, 2), dtype="mixed_bfloat16")
    layer.build(x.shape)
    found = {}
    for flags in (frozenset(), frozenset({"amx_bf16"})):
        monkeypatch.setattr("kvideo.layers.conv3d.cpu_flags", lambda flags=flags: flags)
        operations = tf.function(layer).get_concrete_function(x).graph.get_operations()
        found[bool(flags)] = (layer(x), "Transpose" in {o.type for o in operations})
    assert not found[False][1] and found[True][1]
    ours, plain = (np.asarray(found[kind][0], "float32") for kind in (True, False))
    np.testing.assert_allclose(ours, plain, atol=0.02 * np.abs(plain).max())


def test_relu_behind_a_batch_norm_is_one_operation_in_training(rng):
    """TensorFlow fuses them if nothing stands between, and if it may fuse at all in this graph."""
    x = tf.constant(rng.normal(size=(1, 4, 8, 8, 16)).astype("float32"))
    inputs = keras.Input(x.shape[1:])
    y = conv_unit(inputs, 16, (1, 3, 3), strides=(1, 2, 2), padding="half", name="a")
    model = keras.Model(inputs, conv_unit(y, 16, 1, name="b"))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    operations = step.get_concrete_function(x).graph.get_operations()
    relus = [operation for operation in operations if operation.type == "Relu"]
    assert [relu.inputs[0].op.type for relu in relus] == ["FusedBatchNormV3"] * 2
    # One that TensorFlow's optimizer would merge with the convolution, and then merge nothing.
    assert "Pad" not in {operation.type for operation in operations}
    reference = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    convolved = model.get_layer("b")(model.get_layer("a_relu").output)
    inner = keras.Model(inputs, convolved)(x, training=True)
    np.testing.assert_allclose(
        model(x, training=True), tf.nn.relu(reference(inner, training=True)), atol=2e-2
    )
