"""Gradient checkpointing: the same numbers, fewer activations kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.errors import UsageError
from kvideo.layers.normalization import exact_statistics
from kvideo.training.remat import _plan, choose_cuts, rematerialized
from kvideo.training.step import compile_step

MODELS = {
    "slowfast": (
        (8, 32, 32, 3),
        {"stem_filters": 8, "drop_path": 0.3, "zero_scale": False, "nonlocal_blocks": {3: (1,)}},
    ),
    "r2plus1d_18": ((4, 32, 32, 3), {"stem_filters": 4, "stem_middle": 3}),
    "slow_fusion": ((4, 32, 32, 3), {}),
}


def network(name):
    keras.utils.set_random_seed(0)
    shape, options = MODELS[name]
    model = getattr(kvideo.models, name)(7, input_shape=shape, dropout=0.5, **options)
    return keras.Model(model.inputs, model.get_layer("logits").output)


def two_steps(model, forward):
    """Outputs and gradients of two calls, and what the model's state is then."""

    @tf.function
    def step(clips):
        with tf.GradientTape() as tape:
            outputs = forward(clips)
            loss = tf.reduce_sum(outputs * outputs)
        return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

    clips = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:]))
    results = [step(tf.constant(clips, tf.float32)) for _ in range(2)]
    return results, [variable.numpy() for variable in model.non_trainable_variables]


@pytest.mark.parametrize("name", MODELS)
def test_the_same_numbers(name):
    """Gradients, batch statistics moved once a call, and dropout that drops the same twice."""
    plain, again = network(name), network(name)
    with exact_statistics():  # the fused kernel rounds otherwise where a cut parts it from a ReLU
        results, state = two_steps(plain, lambda clips: plain(clips, training=True))
        others, other_state = two_steps(again, rematerialized(again))
    for (outputs, gradients), (outputs_2, gradients_2) in zip(results, others, strict=True):
        np.testing.assert_allclose(outputs, outputs_2, rtol=1e-5, atol=1e-6)
        for one, two in zip(gradients, gradients_2, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5 * (1e-3 + np.abs(one).max()))
    first, second = (outputs.numpy() for outputs, _ in results)
    assert np.abs(first - second).max() > 1e-3, "dropout drops anew in each step"
    for one, two in zip(state, other_state, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_little_is_kept():
    model = kvideo.models.slow(7, input_shape=(4, 64, 64, 3), stem_filters=16)
    plan = _plan(model)
    cuts = choose_cuts(plan)
    places = [0, *cuts, len(plan.calls)]
    segments = [sum(plan.sizes[a:b]) for a, b in zip(places, places[1:], strict=False)]
    need = sum(map(plan.live_size, cuts)) + max(segments)
    assert cuts == sorted(set(cuts)) and need < sum(plan.sizes) / 3


def forward_convolutions(model, forward):
    """How often a whole training step convolves forward."""
    shape = (1, *model.input_shape[1:])

    @tf.function
    def run(clips):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(forward(clips))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    graph = run.get_concrete_function(tf.TensorSpec(shape)).graph
    return sum("Conv3D" == op.type for op in graph.get_operations())


def test_convolutions_run_a_second_time():
    model = network("r2plus1d_18")
    convolutions = sum(isinstance(layer, keras.layers.Conv3D) for layer in model.layers)
    assert forward_convolutions(model, lambda clips: model(clips, training=True)) == convolutions
    assert convolutions < forward_convolutions(model, rematerialized(model)) < 2 * convolutions


def test_a_shared_layer_is_refused():
    inputs = keras.Input((4, 8, 8, 3))
    layer = keras.layers.Conv3D(3, 3, padding="same")
    model = keras.Model(inputs, layer(layer(inputs)), name="shared")
    with pytest.raises(UsageError, match='called once; "shared" is not'):
        rematerialized(model)


def test_a_training_step_with_remat_is_that_without():
    weights = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        model = kvideo.models.slow_fusion(5, input_shape=(4, 16, 16, 3))
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.build(model.trainable_variables)
        strategy = tf.distribute.get_strategy()
        step = compile_step(model, optimizer, strategy, batch_size=4, remat=remat)
        rng = np.random.default_rng(0)
        clips = rng.integers(0, 256, (4, 4, 16, 16, 3), dtype="uint8")
        for _ in range(3):
            step(tf.constant(clips), tf.range(4))
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
