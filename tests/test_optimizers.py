"""Optimizers and stages, each against formulas in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.training.assembly import loop_options
from kvideo.training.experiment import Experiment
from kvideo.training.optimizers import SGD, AdamW, Lamb, Lars, layer_factors, make_optimizer
from kvideo.training.stages import stages

RATE, DECAY = 0.1, 0.2
Pair = tuple[np.ndarray, np.ndarray]


def gradients(steps: int) -> list[Pair]:
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(3, 4)), rng.normal(size=4)) for _ in range(steps)]


def start() -> Pair:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4)), rng.normal(size=4)


def run(optimizer, steps: list[Pair], values: Pair) -> Pair:
    variables = [keras.Variable(value, dtype="float32") for value in values]
    optimizer.build(variables)
    for step in steps:
        optimizer.apply([tf.constant(g, tf.float32) for g in step], variables)
    kernel, bias = (v.numpy() for v in variables)
    return kernel, bias


def adam(steps: list[np.ndarray], move) -> None:
    """Calls `move(direction)` with Adam's direction at each step."""
    first = second = np.zeros_like(steps[0])
    for number, gradient in enumerate(steps, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move(first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-7))


def test_lars_moves_each_kernel_by_the_same_share() -> None:
    steps, (kernel, bias) = gradients(4), start()
    got = run(Lars(RATE, trust=0.01, weight_decay=DECAY), steps, (kernel, bias))
    of_kernel, of_bias = np.zeros_like(kernel), np.zeros_like(bias)
    for g_kernel, g_bias in steps:
        size = np.linalg.norm(kernel)
        local = 0.01 * size / (np.linalg.norm(g_kernel) + DECAY * size)
        of_kernel = 0.9 * of_kernel + RATE * local * (g_kernel + DECAY * kernel)
        of_bias = 0.9 * of_bias + RATE * g_bias  # neither adapted nor decayed
        kernel, bias = kernel - of_kernel, bias - of_bias
    np.testing.assert_allclose(got[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(got[1], bias, rtol=1e-5)


def test_lamb_adapts_the_decayed_direction_of_kernels_only() -> None:
    steps, (kernel, bias) = gradients(4), start()
    got = run(Lamb(RATE, weight_decay=DECAY), steps, (kernel, bias))

    def move_kernel(direction: np.ndarray) -> None:
        nonlocal kernel
        update = direction + DECAY * kernel
        kernel = kernel - RATE * np.linalg.norm(kernel) / np.linalg.norm(update) * update

    def move_bias(direction: np.ndarray) -> None:
        nonlocal bias
        bias = bias - RATE * direction

    adam([step[0] for step in steps], move_kernel)
    adam([step[1] for step in steps], move_bias)
    np.testing.assert_allclose(got[0], kernel, rtol=1e-4)
    np.testing.assert_allclose(got[1], bias, rtol=1e-4)


@pytest.mark.parametrize("kind", [Lars, Lamb])
def test_a_kernel_of_zeros_can_move(kind) -> None:
    kernel, _ = run(kind(RATE), gradients(2), (np.zeros((3, 4)), np.zeros(4)))
    assert np.isfinite(kernel).all() and np.abs(kernel).min() > 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            SGD(RATE, momentum=0.9, nesterov=True, weight_decay=DECAY),
            keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True, weight_decay=DECAY),
        ),
        (AdamW(RATE, weight_decay=DECAY), keras.optimizers.AdamW(RATE, weight_decay=DECAY)),
    ],
)
def test_sgd_and_adamw_are_those_of_keras(ours, theirs) -> None:
    kernel = keras.Variable(start()[0], dtype="float32")
    theirs.build([kernel])
    for step, _ in gradients(4):
        theirs.apply([tf.constant(step, tf.float32)], [kernel])
    got, _ = run(ours, gradients(4), start())
    np.testing.assert_allclose(got, kernel.numpy(), rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "lamb"])
def test_layer_decay_scales_the_whole_update(name: str) -> None:
    """Not the gradient, which Adam would not notice; and the weight decay with it."""
    model = kvideo.models.slow_fusion(2, input_shape=(4, 16, 16, 3), widths=(4,))
    values = [v.numpy() for v in model.trainable_variables]
    rng = np.random.default_rng(2)
    pushes = [rng.normal(size=v.shape).astype(np.float32) for v in values]
    moved = []
    for decay in (None, 0.25):
        experiment = Experiment(
            data="demo", model="slow_fusion", optimizer=name, learning_rate=0.01, layer_decay=decay
        )
        for variable, value in zip(model.trainable_variables, values, strict=True):
            variable.assign(value)
        optimizer = make_optimizer(experiment, model)
        optimizer.build(model.trainable_variables)
        optimizer.apply(list(map(tf.constant, pushes)), model.trainable_variables)
        now = [v.numpy() for v in model.trainable_variables]
        moved.append([a - b for a, b in zip(now, values, strict=True)])
    head = {id(v) for v in model.get_layer("logits").variables}
    for variable, plain, scaled in zip(model.trainable_variables, *moved, strict=True):
        factor = 1 if id(variable) in head else 0.25
        assert np.abs(plain).max() > 1e-6
        np.testing.assert_allclose(scaled, plain * factor, rtol=2e-2, atol=1e-7)


def test_moments_count_from_the_step_at_which_a_variable_is_thawed() -> None:
    late, (kernel, bias) = gradients(3), start()
    optimizer = AdamW(RATE, weight_decay=DECAY)
    variables = [keras.Variable(value, dtype="float32") for value in (kernel, bias)]
    optimizer.begin_at({id(variables[0]): 5})
    optimizer.build(variables)
    for _ in range(5):
        optimizer.apply([tf.ones(4)], variables[1:])
    for step, _ in late:
        optimizer.apply([tf.constant(step, tf.float32)], variables[:1])
    expected, _ = run(AdamW(RATE, weight_decay=DECAY), late, start())
    np.testing.assert_allclose(variables[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [SGD, AdamW, Lamb, Lars])
def test_optimizers_survive_their_configuration(kind) -> None:
    optimizer = kind(RATE, weight_decay=DECAY)
    config = keras.saving.serialize_keras_object(optimizer)
    back = keras.saving.deserialize_keras_object(config)
    assert type(back) is kind and back.decay == DECAY
    for one, two in zip(
        run(optimizer, gradients(2), start()), run(back, gradients(2), start()), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_a_stage_is_what_works_at_one_size() -> None:
    model = kvideo.models.slowfast(2, input_shape=(8, 32, 32, 3))
    names = [{layer.name.split("_")[1] for layer in part} for part in stages(model)[:-1]]
    assert len(names) == 5 and "stem" in names[0]
    assert all(f"res{number}" in part for number, part in zip((2, 3, 4, 5), names[1:], strict=True))
    assert [layer.name for layer in stages(model)[-1]] == ["logits"]
    held = {id(v) for part in stages(model) for layer in part for v in layer.weights}
    assert held == {id(v) for v in model.weights}


def test_nested_models_and_wrappers_are_looked_into() -> None:
    picture = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(2, 3, padding="same", name="one")(picture)
    x = keras.layers.Conv2D(2, 3, strides=2, padding="same", name="two")(x)
    inner = keras.Model(picture, keras.layers.GlobalAveragePooling2D()(x))
    clip = keras.Input((4, 16, 16, 3))
    x = keras.layers.GRU(3, name="over_time")(keras.layers.TimeDistributed(inner)(clip))
    model = keras.Model(clip, keras.layers.Dense(2, name="logits")(x))
    found = [[layer.name for layer in part] for part in stages(model)]
    assert found == [["one"], ["two"], ["over_time"], ["logits"]]
    factors = layer_factors(model, 0.5)
    assert factors[id(inner.get_layer("one").kernel)] == 0.125
    assert factors[id(model.get_layer("logits").bias)] == 1


def test_the_rate_follows_the_batch_size() -> None:
    experiment = Experiment(
        data="demo", model="c3d", batch_size=32, learning_rate=0.1, lr_batch_size=8
    )
    assert loop_options(experiment, num_videos=100).learning_rate == pytest.approx(0.4)
    # A batch is at most the data set.
    assert loop_options(experiment, num_videos=16).learning_rate == pytest.approx(0.2)
