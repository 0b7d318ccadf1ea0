"""Networks with memory: what they are made of, part by part as in one go, and long clips."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.analysis import count_macs, layer_costs
from kvideo.errors import UsageError
from kvideo.stepping import NotCausalError, SteppedModel
from kvideo.training.remat_over_time import rematerialized_over_time
from kvideo.training.step import compile_step

FRAMES = 8
CAUSAL = {
    "recurrent_conv": [
        {},
        {"cell": "lstm", "pooling": "last"},
        {"cell": "rnn", "output": "frames", "widths": (4,)},
    ],
    "cnn_rnn": [
        {},
        {"rnn": "lstm", "states": "vector", "grid": 3},
        {"rnn": "gru", "states": "vector", "units": (16, 8), "output": "frames"},
        {"rnn": "rnn", "output": "frames", "dropout": 0.5, "recurrent_dropout": 0.5},
        {"states": "vector", "pooling": "mean"},
    ],
    "cnn3d_rnn": [{"window": 4}, {"window": 4, "output": "frames", "rnn": "gru"}],
    "single_frame": [{}],
    "late_fusion": [{}],
}
CASES = [(name, options) for name, many in CAUSAL.items() for options in many]


def network(name, frames=FRAMES, **options):
    """A small one whose weights are not at their beginnings (zeros would hide much)."""
    model = getattr(kvideo.models, name)(3, input_shape=(frames, 32, 32, 3), **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.1 * rng.normal(size=weight.shape))
    return model


def clips(frames=FRAMES, batch=2):
    return np.random.default_rng(1).integers(0, 256, (batch, frames, 32, 32, 3)).astype("uint8")


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_part_by_part_as_in_one_go(name, options):
    model = network(name, **options)
    expected = np.asarray(model(clips().astype("float32")))
    for unroll, length in ((True, None), (False, FRAMES // 2)):
        stepped = SteppedModel(model, unroll=unroll)
        length = length or stepped.stride
        states, outputs = stepped.first_states(2), []
        for first in range(0, FRAMES, length):
            output, states = stepped.run(clips()[:, first : first + length], states)
            outputs.append(output)
        found = np.concatenate(outputs, axis=1) if stepped.per_frame else outputs[-1]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert stepped.per_frame == (options.get("output") == "frames")


@pytest.mark.parametrize("name", ["recurrent_conv", "cnn_rnn", "cnn3d_rnn"])
def test_what_comes_later_changes_nothing(name):
    model = network(name, output="frames", **({"window": 4} if name == "cnn3d_rnn" else {}))
    one, other = clips(), clips()
    other[:, 4:] = 255 - other[:, 4:]
    one, other = (np.asarray(model(x.astype("float32"))) for x in (one, other))
    np.testing.assert_allclose(one[:, :4], other[:, :4], atol=1e-6)
    assert np.abs(one[:, 4:] - other[:, 4:]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("slow_fusion", {}, "conv1"),
        ("early_fusion", {}, "frames_to_channels"),
        ("cnn_rnn", {"bidirectional": True}, "rnn1"),
    ],
)
def test_a_model_that_looks_ahead_is_refused(name, options, layer):
    with pytest.raises(NotCausalError, match=f'layer "{layer}"'):
        SteppedModel(network(name, **options))


def test_the_first_layer_of_each_kind():
    model = network("recurrent_conv")
    shapes = {cost.name: cost.output_shape for cost in layer_costs(model)}
    assert shapes["recurrent1"] == (1, 8, 16, 16, 16)
    assert shapes["recurrent3"] == shapes["feature_map"] == (1, 8, 4, 4, 64)
    by_hand = 0
    for side, below, width in ((16, 3, 16), (8, 16, 32), (4, 32, 64)):
        by_hand += 8 * side**2 * 9 * 3 * (below + width) * width
    assert count_macs(model) == by_hand + 64 * 3
    lrcn = network("cnn_rnn", states="vector", units=10)
    assert lrcn.get_layer("features").output.shape == (None, 10)
    assert lrcn.get_layer("feature_map").output.shape == (None, 8, 8, 8, 24)
    wide = network("cnn_rnn", states="vector", grid=2)
    assert wide.get_layer("frame_features").output.shape == (None, 8, 4 * 24)


def test_a_grid_lays_the_means_of_cells_side_by_side():
    from kvideo.layers import SpatialPooling

    maps = np.random.default_rng(0).normal(size=(2, 3, 5, 6, 2)).astype("float32")
    found = np.asarray(SpatialPooling(2)(maps)).reshape(2, 3, 2, 2, 2)
    rows, columns = ([slice(0, 3), slice(2, 5)], [slice(0, 3), slice(3, 6)])
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            expected = maps[:, :, row, column].mean(axis=(2, 3))
            np.testing.assert_allclose(found[:, :, i, j], expected, atol=1e-6)
    with pytest.raises(UsageError, match="grid must be at most 5"):
        SpatialPooling(7)(maps)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cnn_rnn", {"output": "frame"}, "output must be one of video, frames"),
        ("cnn_rnn", {"rnn": "lsmt"}, "rnn must be one of"),
        ("cnn_rnn", {"units": []}, "units must list at least one"),
        ("cnn3d_rnn", {"units": 3.5, "window": 1}, "units must be a whole number"),
        ("cnn_rnn", {"states": "vector", "grid": 100}, "grid must be at most 8, the side of"),
        ("cnn_rnn", {"states": "maps"}, "states must be one of"),
        ("cnn_rnn", {"grid": 2}, "grid is for"),
        ("cnn_rnn", {"units": 0}, "units must be"),
        ("cnn3d_rnn", {"window": 3}, "multiple of window"),
        ("recurrent_conv", {"cell": "tanh"}, "cell must be one of"),
        ("recurrent_conv", {"widths": ()}, "at least one width"),
        ("recurrent_conv", {"widths": (4,) * 6}, "too small"),
        ("recurrent_conv", {"pooling": "first"}, "pooling must be one of"),
        ("recurrent_conv", {"recurrent_dropout": 1.0}, "recurrent_dropout must be"),
        ("cnn_rnn", {"recurrent_dropout": "x"}, "recurrent_dropout must be .*, not 'x'"),
        ("cnn_rnn", {"dropout": "x"}, "^dropout must be .*, not 'x'"),
        ("cnn3d_rnn", {"dropout": [0.5]}, "^dropout must be"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(UsageError, match=message):
        network(name, **options)


def test_a_frozen_backbone_stays_as_it_is():
    model = network("cnn_rnn", frozen_backbone=True, states="vector")
    names = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert names == {"rnn1", "logits"}


# ------------------------------------------------------------------ truncated back-propagation


def gradients(name, frames, bptt, remat=False, **options):
    """Figures and gradients of one step, from a step of SGD with a rate of 1."""
    keras.utils.set_random_seed(0)
    model = network(name, frames, output="frames", **options)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)
    strategy = tf.distribute.get_strategy()
    step = compile_step(model, optimizer, strategy, batch_size=2, bptt=bptt, remat=remat)
    labels = np.random.default_rng(2).integers(-1, 3, (2, frames)).astype("int32")
    before = [variable.numpy() for variable in model.trainable_variables]
    figures = step(tf.constant(clips(frames)), tf.constant(labels)).numpy()
    after = [variable.numpy() for variable in model.trainable_variables]
    return figures, [a - b for a, b in zip(before, after, strict=True)]


def close(found, expected, tolerance=1e-5):
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, atol=tolerance * max(1e-3, np.abs(two).max()))


@pytest.mark.parametrize("name", ["recurrent_conv", "cnn_rnn"])
def test_one_part_is_the_whole(name):
    plain, expected = gradients(name, 6, None)
    for bptt in (6, 100):
        figures, found = gradients(name, 6, bptt)
        np.testing.assert_allclose(figures, plain, rtol=1e-5)
        close(found, expected, 1e-4)


def test_gradients_stop_between_parts_and_memory_does_not():
    """The sum of what each part gives with the states that the one before left."""
    figures, found = gradients("recurrent_conv", 7, 3)
    whole, untruncated = gradients("recurrent_conv", 7, None)
    np.testing.assert_allclose(figures, whole, rtol=1e-5)  # the forward pass is the same
    assert max(np.abs(a - b).max() for a, b in zip(found, untruncated, strict=True)) > 1e-3
    keras.utils.set_random_seed(0)
    model = network("recurrent_conv", 7, output="frames")
    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    labels = np.random.default_rng(2).integers(-1, 3, (2, 7)).astype("int32")
    stepped = SteppedModel(logits)
    states, total = stepped.first_states(2), 0
    variables = [variable.value for variable in model.trainable_variables]
    for first in (0, 3, 6):
        last = min(first + 3, 7)
        with tf.GradientTape() as tape:
            outputs, states = stepped.run(clips(7)[:, first:last], states, training=True)
            part = labels[:, first:last]
            losses = keras.losses.sparse_categorical_crossentropy(
                np.maximum(part, 0), outputs, from_logits=True
            )
            loss = tf.reduce_sum(tf.where(part >= 0, losses, 0)) / np.sum(labels >= 0)
        states = tuple(tf.stop_gradient(state) for state in states)
        new = tape.gradient(loss, variables)
        total = new if total == 0 else [a + b for a, b in zip(total, new, strict=True)]
    close(found, total, 2e-3)  # a max-pool may choose another of two pixels that are nearly alike


def test_windows_and_bptt():
    gradients("cnn3d_rnn", 8, 4, window=4)
    with pytest.raises(UsageError, match="multiple of 4 frames, not 6"):
        gradients("cnn3d_rnn", 8, 6, window=4)
    model = network("recurrent_conv")
    with pytest.raises(UsageError, match="output for each frame"):
        compile_step(
            model, keras.optimizers.SGD(), tf.distribute.get_strategy(), batch_size=2, bptt=2
        )
    with pytest.raises(UsageError, match='^bptt needs .* does not look ahead, but layer "rnn1"'):
        gradients("cnn_rnn", 8, 4, bidirectional=True)


# --------------------------------------------------------------- gradient checkpointing in time


@pytest.mark.parametrize("output", ["video", "frames"])
@pytest.mark.parametrize(("frames", "xla"), [(None, False), (3, True), (7, False)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("recurrent_conv", {"cell": "lstm", "widths": (8,)}),
        ("recurrent_conv", {"pooling": "last", "widths": (8,)}),
        ("cnn_rnn", {"frozen_backbone": True, "states": "vector"}),
    ],
)
def test_checkpoints_in_time_give_the_same_gradients(name, options, frames, xla, output):
    keras.utils.set_random_seed(0)
    model = network(name, 7, output=output, **options)
    model = keras.Model(model.inputs, model.get_layer("logits").output)
    in_parts = rematerialized_over_time(model, frames)

    def run(forward):
        with tf.GradientTape() as tape:
            outputs = forward(tf.constant(clips(7)))
            loss = tf.reduce_sum(outputs * outputs)
        return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

    outputs, gradients = tf.function(run)(lambda x: model(x, training=True))
    others, again = tf.function(run, jit_compile=xla)(in_parts)
    close([others], [outputs])
    close(again, gradients, 1e-4)


def test_dropout_drops_the_same_when_a_part_runs_again():
    """Else the gradient would not be that of the outputs."""
    keras.utils.set_random_seed(0)
    model = network("recurrent_conv", 6, dropout=0.5, recurrent_dropout=0.5)
    model = keras.Model(model.inputs, model.get_layer("logits").output)
    in_parts, logits = rematerialized_over_time(model, 2), model.get_layer("logits")
    seeds = [variable for variable in model.variables if "seed" in variable.path]
    first = [variable.numpy() for variable in seeds]

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            outputs = in_parts(tf.constant(clips(6)))
            loss = tf.reduce_sum(outputs)
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    loss, gradients = run()
    assert all((variable.numpy() != old).any() for variable, old in zip(seeds, first, strict=True))
    # Along the gradient of a kernel the loss grows as it says, if the seeds are set back.
    place = [v.path for v in model.trainable_variables].index(logits.kernel.path)
    step = 1e-3 * gradients[place] / tf.norm(gradients[place])
    logits.kernel.assign_add(step)
    for variable, old in zip(seeds, first, strict=True):
        variable.assign(old)
    moved, _ = run()
    expected = tf.reduce_sum(step * gradients[place])
    np.testing.assert_allclose(moved - loss, expected, rtol=0.02)


def test_networks_that_do_not_remember_are_cut_between_layers():
    assert rematerialized_over_time(network("cnn_rnn", bidirectional=True)) is None
    assert (
        rematerialized_over_time(kvideo.models.late_fusion(3, input_shape=(4, 32, 32, 3))) is None
    )


MIRRORED = """
import keras, numpy as np, tensorflow as tf, kvideo
from kvideo.training.step import compile_step
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
clips = np.random.default_rng(0).integers(0, 256, (4, 6, 32, 32, 3)).astype("uint8")
labels = np.random.default_rng(1).integers(0, 3, (4, 6)).astype("int32")

def train(strategy, **options):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = kvideo.models.cnn_rnn(3, input_shape=(6, 32, 32, 3), output="frames")
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)
        step = compile_step(model, optimizer, strategy, batch_size=4, **options)
    dataset = tf.data.Dataset.from_tensor_slices((clips, labels)).batch(4)
    for batch in strategy.experimental_distribute_dataset(dataset):
        step(*batch)
    return [variable.numpy() for variable in model.variables]

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for options in ({"remat": True}, {"bptt": 4}):
    one = train(tf.distribute.OneDeviceStrategy("CPU:0"), **options)
    two = train(mirrored, **options)
    print(max(np.abs(a - b).max() for a, b in zip(one, two)))
"""


def test_two_devices_train_in_parts_like_one():
    """With batch norms, which talk to each other in every part."""
    command = [sys.executable, "-c", MIRRORED]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [float(line) < 1e-4 for line in result.stdout.split()[-2:]] == [True, True]


PEAK = """
import json, resource, sys
import keras, numpy as np, tensorflow as tf, kvideo
from kvideo.training.step import compile_step
frames, output, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
shape = (frames, 96, 96, 3)
model = kvideo.models.recurrent_conv(3, input_shape=shape, output=output, widths=(32,))
optimizer = keras.optimizers.SGD(0.01)
optimizer.build(model.trainable_variables)
step = compile_step(model, optimizer, tf.distribute.get_strategy(), batch_size=2, **options)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
labels = tf.zeros((2, frames) if output == "frames" else (2,), tf.int32)
clips = tf.zeros((2, frames, 96, 96, 3), tf.uint8)
step.get_concrete_function(clips, labels)
before = peak()
for _ in range(2):
    step(clips, labels)
print(json.dumps(peak() - before))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip():
    def peak(frames, output, **options):
        command = [sys.executable, "-c", PEAK, str(frames), output, json.dumps(options)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(result.stdout.splitlines()[-1])

    outputs = 2 * 300 * 96 * 96 * 3 * 4  # the clip in float32, of which a part at a time is needed
    assert peak(300, "frames", bptt=32) < 1.3 * peak(32, "frames") + outputs
    assert peak(300, "video", remat=True) < 1.3 * peak(32, "video") + outputs
