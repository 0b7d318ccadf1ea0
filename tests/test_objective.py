"""Losses, mixing and teachers of a training step, each against NumPy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from per_frame_model import frames_model

from kvideo.errors import UsageError
from kvideo.training.losses import classification_loss, distillation_loss
from kvideo.training.mixing import Mixing
from kvideo.training.objective import Distillation, Objective
from kvideo.training.step import compile_step
from kvideo.training.targets import targets_of

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 3, 2, 2, 1, 0], np.int32)
SEVERAL = RNG.integers(0, 2, (6, 4)).astype(np.float32)
CLIPS = RNG.integers(0, 256, (6, 8, 16, 16, 3), np.uint8)
SHAPE = CLIPS.shape[1:]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


# -- focal loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 4.0], np.float32)])
def test_focal_loss_of_one_label(gamma: float, weights: np.ndarray | None) -> None:
    chance = softmax(LOGITS.astype(np.float64))[np.arange(6), LABELS]
    expected = -((1 - chance) ** gamma) * np.log(chance)
    given = None
    if weights is not None:
        expected, given = expected * weights[LABELS], tf.constant(weights)
    found = classification_loss(
        tf.constant(LABELS), tf.constant(LOGITS), focal_gamma=gamma, class_weights=given
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_of_several_labels(smoothing: float) -> None:
    chance = sigmoid(LOGITS.astype(np.float64))
    truth = SEVERAL * (1 - smoothing) + 0.5 * smoothing
    terms = -truth * (1 - chance) ** 2 * np.log(chance)
    terms -= (1 - truth) * chance**2 * np.log(1 - chance)
    found = classification_loss(
        tf.constant(SEVERAL),
        tf.constant(LOGITS),
        multi_label=True,
        label_smoothing=smoothing,
        focal_gamma=2.0,
    )
    np.testing.assert_allclose(found, terms.mean(axis=1), rtol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
def test_focal_gradients_are_finite_where_the_answer_is_sure(multi_label: bool) -> None:
    logits = tf.Variable([[200.0, -200.0], [-200.0, 200.0]])
    labels = tf.constant([[1.0, 0.0], [1.0, 0.0]]) if multi_label else tf.constant([0, 0])
    with tf.GradientTape() as tape:
        losses = classification_loss(labels, logits, multi_label=multi_label, focal_gamma=0.5)
    assert np.isfinite(losses).all() and losses[0] < 1e-3 and losses[1] > 100
    assert np.isfinite(tape.gradient(losses, logits)).all()


# -- mixing ----------------------------------------------------------------------------------------


def test_mixup_draws_follow_the_beta_distribution() -> None:
    draws = [Mixing(mixup=0.4, seed=3).draw(step, SHAPE) for step in range(2000)]
    shares = np.array([share for _, share in draws])
    assert all(pixels.shape == (16, 16, 1) and np.ptp(pixels) == 0 for pixels, _ in draws[:20])
    assert draws[0][0][0, 0, 0] == pytest.approx(draws[0][1])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(α, α)


def test_cutmix_boxes_have_the_share_of_the_label() -> None:
    shares = []
    for step in range(500):
        pixels, share = Mixing(cutmix=1.0, seed=1).draw(step, SHAPE)
        rows, columns = (np.flatnonzero((pixels == 0).any(axis=(1 - axis, 2))) for axis in (0, 1))
        area = len(rows) * len(columns)
        assert (pixels == 0).sum() == area and set(np.unique(pixels)) <= {0.0, 1.0}
        if area:  # a box: nothing missing in between
            assert rows[-1] - rows[0] + 1 == len(rows)
            assert columns[-1] - columns[0] + 1 == len(columns)
        assert share == pytest.approx(1 - area / 256)
        shares.append(share)
    assert min(shares) < 0.2 and max(shares) > 0.95


def test_draws_repeat_and_both_kinds_take_turns() -> None:
    both = Mixing(mixup=0.2, cutmix=1.0, probability=0.7, seed=5)
    kinds = {"none": 0, "mixup": 0, "cutmix": 0}
    for step in range(300):
        pixels, share = both.draw(step, SHAPE)
        again, same = both.draw(step, SHAPE)
        np.testing.assert_array_equal(pixels, again)
        assert share == same
        if share == 1:
            kinds["none"] += 1
        else:
            kinds["mixup" if np.ptp(pixels) == 0 and pixels[0, 0, 0] > 0 else "cutmix"] += 1
    assert 70 < kinds["none"] < 130 and kinds["mixup"] > 70 and kinds["cutmix"] > 60
    other = Mixing(mixup=0.2, cutmix=1.0, seed=6)
    assert any(other.draw(step, SHAPE)[1] != both.draw(step, SHAPE)[1] for step in range(5))


def mixed(labels: np.ndarray, mixing: Mixing, draw, per_frame: bool = False):
    objective = Objective(multi_label=labels.ndim == 2 and not per_frame, mixing=mixing)
    given = tuple(tf.constant(part) for part in draw)
    return targets_of(tf.constant(CLIPS), tf.constant(labels), objective, per_frame, given)


def test_mixed_clips_and_their_loss() -> None:
    mixing = Mixing(mixup=1.0, cutmix=1.0)
    for step in (0, 1, 2, 3):
        pixels, share = mixing.draw(step, SHAPE)
        clips, targets = mixed(LABELS, mixing, (pixels, share))
        partners = [1, 0, 3, 2, 5, 4]
        expected = pixels * CLIPS + (1 - pixels) * CLIPS[partners]
        assert clips.dtype == tf.uint8
        np.testing.assert_allclose(clips.numpy(), expected, atol=0.501)
        log = np.log(softmax(LOGITS.astype(np.float64)))
        hot = np.eye(4)[LABELS]
        soft = share * hot + (1 - share) * hot[partners]
        losses = targets.losses(tf.constant(LOGITS), Objective(mixing=mixing), None)
        np.testing.assert_allclose(losses, -(soft * log).sum(1), rtol=1e-4)
        dominant = LABELS if share >= 0.5 else LABELS[partners]
        hits = targets.hits(tf.constant(LOGITS), False)
        assert float(hits) == np.sum(LOGITS.argmax(1) == dominant)


def test_mixed_labels_of_several_classes() -> None:
    mixing = Mixing(mixup=1.0)
    pixels, share = mixing.draw(0, SHAPE)
    _, targets = mixed(SEVERAL, mixing, (pixels, share))
    truth = share * SEVERAL + (1 - share) * SEVERAL[[1, 0, 3, 2, 5, 4]]
    chance = sigmoid(LOGITS.astype(np.float64))
    expected = -(truth * np.log(chance) + (1 - truth) * np.log(1 - chance)).mean(1)
    objective = Objective(multi_label=True, mixing=mixing)
    np.testing.assert_allclose(
        targets.losses(tf.constant(LOGITS), objective, None), expected, rtol=1e-4
    )


def test_clips_that_fill_up_a_batch_are_not_mixed() -> None:
    labels = np.array([0, 3, 2, -1, -1, -1], np.int32)
    pixels, share = np.full((16, 16, 1), 0.5, np.float32), np.asarray(0.5, np.float32)
    clips, targets = mixed(labels, Mixing(mixup=1.0), (pixels, share))
    np.testing.assert_array_equal(clips[2:], CLIPS[2:])
    assert (clips.numpy()[:2] != CLIPS[:2]).any()
    np.testing.assert_array_equal(targets.known(False), labels >= 0)
    losses = targets.losses(tf.constant(LOGITS), Objective(), None).numpy()
    alone = classification_loss(tf.constant(labels[2:3]), tf.constant(LOGITS[2:3]))
    assert losses[2] == pytest.approx(float(alone[0])) and (losses[3:] == 0).all()


def test_frames_of_which_a_part_is_unknown_do_not_count() -> None:
    labels = RNG.integers(-1, 3, (6, 8)).astype(np.int32)
    labels[5] = -1
    pixels, share = np.full((16, 16, 1), 0.7, np.float32), np.asarray(0.7, np.float32)
    clips, targets = mixed(labels, Mixing(mixup=1.0), (pixels, share), per_frame=True)
    partners = np.array([1, 0, 3, 2, 5, 4])
    known = (labels >= 0) & (labels[partners] >= 0)
    known[4] = labels[4] >= 0  # its partner only fills up
    np.testing.assert_array_equal(targets.known(True), known)
    np.testing.assert_array_equal(clips[4:], CLIPS[4:])
    logits = RNG.normal(size=(6, 8, 3)).astype(np.float32)
    losses = targets.losses(tf.constant(logits), Objective(), None).numpy()
    log = np.log(softmax(logits.astype(np.float64)))
    for row, frame in np.argwhere(known):
        other = labels[partners[row], frame] if row < 4 else labels[row, frame]
        expected = -0.7 * log[row, frame, labels[row, frame]] - 0.3 * log[row, frame, other]
        assert losses[row, frame] == pytest.approx(expected, rel=1e-4)
    assert (losses[~known] == 0).all()
    part = targets.part(2, 3)
    np.testing.assert_array_equal(part.known(True), known[:, 2:5])


def test_clips_of_one_video_are_not_mixed_with_each_other() -> None:
    pixels, share = np.zeros((16, 16, 1), np.float32), np.asarray(0.0, np.float32)
    clips, _ = mixed(LABELS, Mixing(cutmix=1.0, distance=2), (pixels, share))
    np.testing.assert_array_equal(clips, CLIPS[[2, 3, 0, 1, 0, 1]])
    clips, _ = mixed(LABELS, Mixing(cutmix=1.0, distance=3), (pixels, share))
    np.testing.assert_array_equal(clips, CLIPS[[3, 4, 5, 0, 1, 2]])


def test_batches_that_cannot_be_mixed_are_refused() -> None:
    model = frames_model(4, output="video")
    optimizer = keras.optimizers.SGD(0.1)
    one = tf.distribute.get_strategy()
    with pytest.raises(UsageError, match="clips of two videos"):
        compile_step(
            model, optimizer, one, batch_size=1, objective=Objective(mixing=Mixing(mixup=1.0))
        )
    with pytest.raises(UsageError, match="clips of two videos"):
        Mixing(mixup=1.0, distance=4).check(SHAPE, 4)
    with pytest.raises(UsageError, match="cutmix cuts boxes.*mixup takes them"):
        Mixing(cutmix=1.0).check((8, 32), 4)
    Mixing(mixup=1.0).check((8, 32), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixing(mixup=-1.0), "mixup must be at least 0"),
        (lambda: Mixing(cutmix=float("nan")), "cutmix must be at least 0"),
        (lambda: Mixing(probability=0.0), "mix_probability must be above 0"),
        (lambda: Objective(focal_gamma=-0.1), "focal_gamma must be at least 0"),
        (lambda: Objective(label_smoothing=1.0), "label_smoothing must be 0 to below 1"),
        (lambda: Distillation(temperature=0.0), "distill_temperature must be above 0"),
        (lambda: Distillation(weight=1.5), "distill_weight must be above 0 and at most 1"),
    ],
)
def test_values_out_of_range(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


# -- the teacher -----------------------------------------------------------------------------------


def test_distillation_is_the_divergence_from_the_teacher() -> None:
    teacher = RNG.normal(size=(6, 4)).astype(np.float32) * 2
    wanted, found = (softmax(each.astype(np.float64) / 3) for each in (teacher, LOGITS))
    expected = 9 * (wanted * np.log(wanted / found)).sum(1)
    loss = distillation_loss(tf.constant(teacher), tf.constant(LOGITS), 3.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    wanted, found = (sigmoid(each.astype(np.float64) / 3) for each in (teacher, LOGITS))
    terms = wanted * np.log(wanted / found) + (1 - wanted) * np.log((1 - wanted) / (1 - found))
    loss = distillation_loss(tf.constant(teacher), tf.constant(LOGITS), 3.0, multi_label=True)
    np.testing.assert_allclose(loss, 9 * terms.mean(1), rtol=1e-4)
    assert float(tf.reduce_max(distillation_loss(teacher, teacher, 4.0))) == pytest.approx(0)


# -- the step --------------------------------------------------------------------------------------


STEPS = """
import sys
import numpy as np
import keras, tensorflow as tf
devices = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from per_frame_model import frames_model
from kvideo.training.mixing import Mixing
from kvideo.training.objective import Objective
from kvideo.training.step import compile_step
names = [f"CPU:{n}" for n in range(devices)]
strategy = tf.distribute.MirroredStrategy(names) if devices > 1 else tf.distribute.get_strategy()
given = np.load(sys.argv[2])
keras.utils.set_random_seed(3)
with strategy.scope():
    model = frames_model(4, output="video")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
objective = Objective(mixing=Mixing(mixup=1.0, cutmix=1.0, seed=2), focal_gamma=1.0)
step = compile_step(model, optimizer, strategy, batch_size=8, objective=objective)
data = tf.data.Dataset.from_tensor_slices((given["clips"], given["labels"])).batch(8).repeat(6)
sums = [step(*batch).numpy() for batch in strategy.experimental_distribute_dataset(data)]
np.savez(sys.argv[3], sums=sums, **{str(i): w.numpy() for i, w in enumerate(model.weights)})
"""


@pytest.mark.slow
def test_two_devices_mix_as_one(tmp_path: Path) -> None:
    clips = np.concatenate([CLIPS, CLIPS[:2, ::-1]])
    labels = np.array([*LABELS, 1, -1], np.int32)
    np.savez(tmp_path / "in.npz", clips=clips, labels=labels)
    for devices in (1, 2):
        command = [sys.executable, "-c", STEPS, str(devices), tmp_path / "in.npz"]
        subprocess.run(
            [*command, tmp_path / f"{devices}.npz"], check=True, cwd=Path(__file__).parent
        )
    one, two = (np.load(tmp_path / f"{devices}.npz") for devices in (1, 2))
    assert (one["sums"][:, 2] == 7).all()
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5, err_msg=name)


def test_a_mixed_step_goes_down_the_mixed_loss() -> None:
    """The weights after a step are those that the draw of that step's number gives."""
    mixing = Mixing(mixup=1.0, seed=9)
    keras.utils.set_random_seed(3)
    model = frames_model(4, output="video")
    network = keras.Model(model.inputs, model.get_layer("logits").output)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(5)
    pixels, share = mixing.draw(5, SHAPE)
    partners = [1, 0, 3, 2, 5, 4]
    shown = np.round(pixels * CLIPS + (1 - pixels) * CLIPS[partners])
    hot = np.eye(4, dtype=np.float32)[LABELS]
    with tf.GradientTape() as tape:
        log = tf.nn.log_softmax(network(shown, training=True))
        loss = -tf.reduce_mean(
            tf.reduce_sum((share * hot + (1 - share) * hot[partners]) * log, axis=1)
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    expected = [
        v.numpy() - 0.1 * g for v, g in zip(model.trainable_variables, gradients, strict=True)
    ]
    strategy = tf.distribute.get_strategy()
    step = compile_step(
        model, optimizer, strategy, batch_size=6, objective=Objective(mixing=mixing)
    )
    sums = step(tf.constant(CLIPS), tf.constant(LABELS)).numpy()
    assert sums[0] / sums[2] == pytest.approx(float(loss), rel=1e-5)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, atol=1e-6)
