"""Recurrent layers on maps: NumPy references from the equations, and Keras's conventions."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import run_layer_check

from kvideo.analysis import layer_macs
from kvideo.errors import UsageError
from kvideo.layers import (
    ConvGRU2D,
    ConvGRU2DCell,
    ConvRNN,
    ConvRNN2D,
    ConvRNN2DCell,
    ConvRNNCell,
)

SHAPE = (2, 4, 5, 6, 3)  # (B, T, H, W, C)
LAYERS = [ConvRNN2D, ConvGRU2D]


def randomize(layer, rng):
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    return layer


def built(kind, rng, *, filters=4, kernel=3, shape=SHAPE, **options):
    layer = kind(filters, kernel, **options)
    layer.build(shape)
    return randomize(layer, rng)


# ------------------------------------------------------------------------------ references


def convolve(x, kernel, stride=1, dilation=1, padding="same"):
    """(H, W, C) with (k, k, C, F), from the definition."""
    size, channels, filters = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    reach = dilation * (size - 1) + 1
    lengths = []
    if padding == "same":
        spare = []
        for length in x.shape[:2]:
            out = -(-length // stride)
            total = max(0, (out - 1) * stride + reach - length)
            spare.append((total // 2, total - total // 2))
            lengths.append(out)
        x = np.pad(x, [*spare, (0, 0)])
    else:
        lengths = [(length - reach) // stride + 1 for length in x.shape[:2]]
    y = np.zeros((*lengths, filters))
    for row, column in itertools.product(*map(range, lengths)):
        for i, j in itertools.product(range(size), repeat=2):
            pixel = x[row * stride + i * dilation, column * stride + j * dilation]
            y[row, column] += pixel @ kernel[i, j]
    assert channels == x.shape[2]
    return y


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalize(x, scale):
    """Each gate's channels to mean 0 and variance 1, then scaled."""
    if scale is None:
        return x
    y = x.reshape(*x.shape[:-1], *scale.shape)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-3)
    return (y * scale).reshape(x.shape)


def part(state, kernel, scale, first, last):
    """The state's part of the gates `first` to `last`."""
    f = state.shape[-1]
    convolved = convolve(state, kernel[..., first * f : last * f])
    return normalize(convolved, None if scale is None else scale[first:last])


def reference(layer, clip):
    """All outputs (T, H', W', F) of one clip (T, H, W, C), from the layer's equations."""
    cell = layer.cell
    named = {weight.name: weight.numpy().astype(float) for weight in layer.weights}
    kernel, recurrent = named["kernel"], named["recurrent_kernel"]
    bias, scales = named["bias"], (named.get("input_scale"), named.get("recurrent_scale"))
    stride, dilation = cell.strides[0], cell.dilation_rate[0]
    state, outputs, f = 0.0, [], cell.filters
    for frame in clip:
        x = normalize(convolve(frame, kernel, stride, dilation, cell.padding), scales[0]) + bias
        state = state + np.zeros((*x.shape[:2], f))
        if isinstance(layer, ConvRNN2D):
            state = np.tanh(x + normalize(convolve(state, recurrent), scales[1]))
        else:
            if cell.reset_after:
                c = part(state, recurrent, scales[1], 0, 3) + named["recurrent_bias"]
                z, r = sigmoid(x[..., :f] + c[..., :f]), sigmoid((x + c)[..., f : 2 * f])
                g = np.tanh(x[..., 2 * f :] + r * c[..., 2 * f :])
            else:
                zr = sigmoid(x[..., : 2 * f] + part(state, recurrent, scales[1], 0, 2))
                z, r = zr[..., :f], zr[..., f:]
                g = np.tanh(x[..., 2 * f :] + part(r * state, recurrent, scales[1], 2, 3))
            state = z * state + (1 - z) * g
        outputs.append(state)
    return np.stack(outputs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"dilation_rate": 2},
        {"padding": "valid"},
        {"layer_norm": True},
        {"padding": "valid", "strides": 2, "layer_norm": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["rnn", "gru", "gru_after"])
def test_the_equations(rng, kind, options):
    if kind == "gru_after":
        options = {**options, "reset_after": True}
    layer = built(ConvRNN2D if kind == "rnn" else ConvGRU2D, rng, return_sequences=True, **options)
    clips = rng.normal(size=SHAPE).astype("float32")
    found = layer(clips).numpy()
    assert found.shape == layer.compute_output_shape(SHAPE)
    expected = np.stack([reference(layer, clip.astype(float)) for clip in clips])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    cell, states = layer.cell, layer.get_initial_state(2)
    for step, frames in enumerate(clips.transpose(1, 0, 2, 3, 4)):  # inputs not precomputed
        output, states = cell(frames, states)
        np.testing.assert_allclose(output, expected[:, step], atol=2e-5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("reset_after", [False, True])
def test_with_one_pixel_it_is_keras_gru(rng, reset_after):
    theirs = keras.layers.GRU(
        5, reset_after=reset_after, return_sequences=True, return_state=True, go_backwards=True
    )
    theirs.build((2, 7, 3))
    kernel, recurrent, bias = (rng.normal(size=w.shape) for w in theirs.weights)
    theirs.set_weights([kernel, recurrent, bias])
    x, mask = rng.normal(size=(2, 7, 3)).astype("float32"), rng.random((2, 7)) > 0.4
    start = rng.normal(size=(2, 5)).astype("float32")
    expected = theirs(x, mask=mask, initial_state=start)
    for unroll in (False, True):
        ours = ConvGRU2D(
            5,
            1,
            reset_after=reset_after,
            return_sequences=True,
            return_state=True,
            go_backwards=True,
            unroll=unroll,
        )
        ours.build((2, 7, 1, 1, 3))
        pixel = [kernel[None, None], recurrent[None, None]]
        ours.set_weights([*pixel, *(bias if reset_after else [bias])])
        maps = ours(x[:, :, None, None], mask=mask, initial_state=start[:, None, None])
        for one, two in zip(maps, expected, strict=True):
            np.testing.assert_allclose(np.squeeze(one, (-3, -2)), two, atol=1e-6)


# ----------------------------------------------------------------------------- conventions


@pytest.mark.parametrize(
    ("kind", "options", "outputs", "weights"),
    [
        (ConvRNN2D, {}, (2, 5, 6, 4), 3),
        (ConvRNN2D, {"return_sequences": True, "use_bias": False}, (2, 4, 5, 6, 4), 2),
        (ConvRNN2D, {"layer_norm": True, "strides": 2}, (2, 3, 3, 4), 5),
        (ConvGRU2D, {"return_sequences": True, "padding": "valid"}, (2, 4, 3, 4, 4), 3),
        (ConvGRU2D, {"reset_after": True, "unroll": True, "return_sequences": True},
         (2, 4, 5, 6, 4), 4),
        (ConvGRU2D, {"kernel_regularizer": "l2", "bias_constraint": "non_neg", "seed": 3,
                     "go_backwards": True, "dilation_rate": (1, 2)}, (2, 5, 6, 4), 3),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_the_generic_check(kind, options, outputs, weights, tmp_path):
    arguments = {"filters": 4, "kernel_size": 3, **options}
    run_layer_check(kind, arguments, SHAPE, outputs, tmp_path, trainable=weights)


def test_a_layer_of_a_given_cell(rng, tmp_path):
    clip = keras.Input(SHAPE[1:])
    layer = ConvRNN(ConvRNN2DCell(4, 3), return_sequences=True)
    model = keras.Model(clip, layer(clip))
    randomize(layer, rng)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    clips = rng.normal(size=SHAPE).astype("float32")
    np.testing.assert_array_equal(again(clips), model(clips))
    same = ConvRNN2D(4, 3, return_sequences=True)
    same.build(SHAPE)
    same.set_weights(layer.get_weights())
    np.testing.assert_allclose(same(clips), model(clips), atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_masked_steps_change_nothing(rng, kind):
    layer = built(kind, rng, return_sequences=True, return_state=True)
    clips = rng.normal(size=SHAPE).astype("float32")
    mask = np.array([[True, False, True, False], [False, False, True, True]])
    outputs, state = layer(clips, mask=mask)
    alone, _ = layer(clips[:1, [0, 2]])
    for step, seen in enumerate([0, 0, 1, 1]):
        np.testing.assert_allclose(outputs[0, step], alone[0, seen], atol=1e-6)
    np.testing.assert_allclose(state[0], alone[0, 1], atol=1e-6)
    assert np.abs(outputs[1, :2]).max() == 0
    nothing, state = layer(clips, mask=np.zeros((2, 4), bool))
    assert np.abs(nothing).max() == np.abs(state).max() == 0
    zero = kind(4, 3, return_sequences=True, zero_output_for_mask=True)
    zero.build(SHAPE)
    zero.set_weights(layer.get_weights())
    shown = zero(clips, mask=mask)
    assert (
        np.abs(
            shown[0, [1, 3]] if isinstance(shown, np.ndarray) else shown.numpy()[0, [1, 3]]
        ).max()
        == 0
    )
    np.testing.assert_allclose(shown.numpy()[0, 2], outputs.numpy()[0, 2], atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_states_carry_on(rng, kind):
    layer = built(kind, rng, return_sequences=True, return_state=True)
    clips = rng.normal(size=SHAPE).astype("float32")
    whole, last = layer(clips)
    first, state = layer(clips[:, :3])
    second, end = layer(clips[:, 3:], initial_state=state)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=1e-6)
    np.testing.assert_allclose(end, last, atol=1e-6)
    stateful = kind(4, 3, stateful=True, return_sequences=True)
    stateful.build((2, None, *SHAPE[2:]))
    stateful.set_weights(layer.get_weights())
    parts = [stateful(clips[:, :1]), stateful(clips[:, 1:])]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-6)
    stateful.reset_state()
    np.testing.assert_allclose(stateful(clips), whole, atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_bidirectional(rng, kind):
    layer = keras.layers.Bidirectional(kind(4, 3, return_sequences=True))
    clips = rng.normal(size=SHAPE).astype("float32")
    found = layer(clips)
    assert found.shape == (2, 4, 5, 6, 8)
    backward = layer.backward_layer
    np.testing.assert_allclose(
        found[..., 4:], np.asarray(backward(clips))[:, ::-1], atol=1e-6
    )  # in the clip's order again


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("unroll", [False, True])
def test_dropout_drops_the_same_at_all_steps(rng, kind, unroll):
    clips = np.repeat(rng.normal(size=(2, 1, 5, 6, 3)), 6, axis=1).astype("float32")
    plain = built(kind, rng, return_sequences=True)
    layer = kind(4, 3, return_sequences=True, dropout=0.5, unroll=unroll, seed=1)
    layer.build(clips.shape)
    layer.set_weights(plain.get_weights())
    np.testing.assert_allclose(layer(clips), plain(clips), atol=1e-6)  # not in training
    one, two = layer(clips, training=True).numpy(), layer(clips, training=True).numpy()
    assert np.abs(one - two).max() > 1e-3  # other values for other clips
    recurrent = kind(4, 3, return_sequences=True, recurrent_dropout=0.5, unroll=unroll, seed=1)
    recurrent.build(clips.shape)
    recurrent.set_weights(plain.get_weights())
    dropped = recurrent(clips, training=True).numpy()
    np.testing.assert_allclose(dropped[:, 0], plain(clips).numpy()[:, 0], atol=1e-6)
    assert np.abs(dropped - plain(clips).numpy())[:, 1:].max() > 1e-3


def test_dropout_of_the_input_is_one_mask_for_the_clip(rng):
    layer = built(ConvRNN2D, rng, kernel=1, filters=3, return_sequences=True, dropout=0.5)
    eye, zero = np.eye(3)[None, None], np.zeros((1, 1, 3, 3))
    layer.set_weights([eye, zero, np.zeros(3)])  # the output is tanh of the input, as dropped
    dropped = layer(np.ones(SHAPE, "float32"), training=True).numpy()
    np.testing.assert_allclose(np.unique(np.round(dropped, 5)), [0, np.tanh(2)], atol=1e-4)
    for step in range(1, SHAPE[1]):
        np.testing.assert_array_equal(dropped[:, step], dropped[:, 0])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("all_steps", [False, True])
def test_gradients_with_and_without_xla(rng, kind, xla, all_steps):
    layer = built(kind, rng, return_sequences=all_steps)
    unrolled = built(kind, rng, return_sequences=all_steps, unroll=True)
    unrolled.set_weights(layer.get_weights())
    clips = tf.constant(rng.normal(size=SHAPE).astype("float32"))

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(clips)
            loss = tf.reduce_sum(tf.sin(layer(clips)))
        return tape.gradient(loss, [clips, *(w.value for w in layer.trainable_weights)])

    looped = tf.function(lambda: gradients(layer), jit_compile=xla)()
    for one, two in zip(looped, gradients(unrolled), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


def test_states_that_do_not_fit(rng):
    clips = rng.normal(size=(4, 3, 5, 6, 2)).astype("float32")
    layer = ConvGRU2D(4, 3, padding="same", stateful=True)
    assert layer(clips).shape == (4, 5, 6, 4)
    with pytest.raises(UsageError, match=r"\(4, 5, 6, 4\).*\(1, 5, 6, 4\); .*keeps its batch size"):
        layer(clips[:1])
    layer = ConvGRU2D(4, 3, padding="same")
    state = np.zeros((4, 5, 6, 4), "float32")
    layer(clips, initial_state=state)
    for wrong in (state[:1], state[:, :1, :1], state[..., :3]):
        with pytest.raises(UsageError, match="begins with a state of the shape"):
            layer(clips, initial_state=wrong)
    with pytest.raises(UsageError, match="has 1 state, not 2"):
        layer(clips, initial_state=[state, state])


def test_a_cell_says_what_a_step_does():
    class Idle(ConvRNNCell):
        gates = 1

    with pytest.raises(TypeError, match="abstract.*step"):
        Idle(4, 3)


def test_clips_of_unknown_length(rng):
    layer = ConvGRU2D(4, 3, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 5, 6, 3)), layer])
    randomize(layer, rng)
    assert model.output_shape == (None, None, 5, 6, 4)
    for frames in (1, 7):
        clips = rng.normal(size=(2, frames, 5, 6, 3)).astype("float32")
        assert model(clips).shape == (2, frames, 5, 6, 4)
    with pytest.raises(UsageError, match="clip without frames"):
        layer(np.zeros((2, 0, 5, 6, 3), "float32"))


def test_masks_come_from_a_layer_before(rng):
    clip = keras.Input((4, 30))
    masked = keras.layers.Masking()(clip)
    x = keras.layers.TimeDistributed(keras.layers.Reshape((5, 6, 1)))(masked)
    layer = ConvGRU2D(2, 3)
    model = keras.Model(clip, layer(x))
    clips = rng.normal(size=(1, 4, 30)).astype("float32")
    shorter = clips.copy()
    shorter[:, 2:] = 0  # all zero: left out
    np.testing.assert_allclose(
        model(shorter), layer(clips[:, :2].reshape(1, 2, 5, 6, 1)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "filters must be at least 1"),
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"strides": 2, "dilation_rate": 2}, "cannot both"),
        ({"padding": "causal"}, "padding must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"recurrent_dropout": -0.1}, "recurrent_dropout must be"),
        ({"recurrent_dropout": "x"}, "recurrent_dropout must be"),
        ({"data_format": "channels_first"}, 'data_format must be "channels_last"'),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UsageError, match=message):
        ConvGRU2D(**{"filters": 3, "kernel_size": 3, **options})


@pytest.mark.parametrize(
    ("cell", "given"),
    [([ConvGRU2DCell(2, 3), ConvGRU2DCell(2, 3)], "a list"), (keras.layers.GRUCell(4), "GRUCell")],
)
def test_other_cells_are_refused(cell, given):
    with pytest.raises(UsageError, match=f"cell must be one ConvRNNCell.*, not {given}"):
        ConvRNN(cell)


def test_padding_and_data_format_as_keras_takes_them():
    layer = ConvGRU2D(2, 3, padding="SAME", data_format="channels_last")
    assert layer.cell.padding == "same" and "data_format" not in layer.get_config()
    assert layer.compute_output_shape(SHAPE) == (*SHAPE[:1], *SHAPE[2:4], 2)


def test_sizes_must_be_known():
    with pytest.raises(UsageError, match="must know height, width and channels"):
        ConvRNN2D(3, 3)(keras.Input((4, None, 6, 3)))
    with pytest.raises(UsageError, match="kernel is larger"):
        ConvRNN2D(3, 7, padding="valid")(keras.Input((4, 5, 6, 3)))
    with pytest.raises(UsageError, match="number of frames to unroll"):
        ConvRNN2D(3, 3, unroll=True)(keras.Input((None, 5, 6, 3)))


def test_multiply_adds():
    gru = ConvGRU2D(4, 3, strides=2)
    gru.build(SHAPE)
    per_position = 9 * 3 * (3 + 4) * 4  # kernel, gates, channels of input and state, filters
    assert layer_macs(gru, SHAPE, (2, 3, 3, 4)) == 2 * 4 * 9 * per_position
    lstm = keras.layers.ConvLSTM2D(4, 3, padding="same")
    lstm.build(SHAPE)
    assert layer_macs(lstm, SHAPE, (2, 5, 6, 4)) == 2 * 4 * 30 * 9 * 4 * (3 + 4) * 4
    for kind, gates in ((keras.layers.LSTM, 4), (keras.layers.GRU, 3), (keras.layers.SimpleRNN, 1)):
        flat = kind(5)
        flat.build((2, 7, 3))
        assert layer_macs(flat, (2, 7, 3), (2, 5)) == 2 * 7 * gates * 5 * (3 + 5)
    both = keras.layers.Bidirectional(keras.layers.GRU(5))
    both.build((2, 7, 3))
    assert layer_macs(both, (2, 7, 3), (2, 10)) == 2 * (2 * 7 * 3 * 5 * (3 + 5))


TWO_DEVICES = """
import numpy as np, keras, sys, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kvideo.layers import ConvGRU2D, ConvRNN2D
clips = np.random.default_rng(0).normal(size=(4, 3, 5, 6, 2)).astype("float32")

def train(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3, 5, 6, 2)), ConvGRU2D(3, 3, return_sequences=True),
                                  ConvRNN2D(2, 3)])
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(batch):
        def on_one(batch):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sin(3 * model(batch, training=True))) / 100
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        strategy.run(on_one, args=(batch,))

    data = tf.data.Dataset.from_tensors(clips).unbatch().batch(4).repeat(3)
    for batch in strategy.experimental_distribute_dataset(data):
        step(batch)
    return model.get_weights()

one = train(tf.distribute.get_strategy())
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
print(max(np.abs(a - b).max() for a, b in zip(one, two)))
"""


def test_two_devices_give_the_weights_of_one():
    result = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], check=True, capture_output=True, text=True
    )
    assert float(result.stdout.split()[-1]) < 1e-5


def test_a_cell_alone_drops_in_training(rng):
    cell = ConvGRU2DCell(4, 3, dropout=0.5, recurrent_dropout=0.5)
    frames = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    cell.build(frames.shape)
    states = [rng.normal(size=(2, 5, 6, 4)).astype("float32")]
    plain, _ = cell(frames, states)
    dropped, _ = cell(frames, states, training=True)
    assert np.abs(plain - dropped).max() > 1e-3
    with pytest.raises(UsageError, match="has not seen an input"):
        ConvGRU2DCell(4, 3).get_initial_state(2)
