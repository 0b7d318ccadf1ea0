"""Losses, schedule, checkpoints and fine-tuning, each against an independent calculation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.clip_spec import ClipSpec
from kvideo.errors import ModelFileError, UnknownNameError, UsageError
from kvideo.models.fusion import slow_fusion
from kvideo.saving import ModelInfo
from kvideo.training.experiment import Experiment
from kvideo.training.losses import balanced_class_weights, classification_loss, num_hits
from kvideo.training.optimizers import make_optimizer
from kvideo.training.schedules import warmup_cosine
from kvideo.training.transfer import copy_weights, freeze_up_to, replace_head


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 4.0], np.float32)])
def test_cross_entropy(smoothing: float, weights: np.ndarray | None) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 2, 2, 1])
    truth = np.full((5, 4), smoothing / 4)
    truth[np.arange(5), labels] += 1 - smoothing
    expected = -(truth * _log_softmax(logits)).sum(axis=1)
    if weights is not None:
        expected *= weights[labels]
    given = None if weights is None else tf.constant(weights)
    loss = classification_loss(
        tf.constant(labels), tf.constant(logits), label_smoothing=smoothing, class_weights=given
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_multi_label_cross_entropy_and_hits() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]], np.float32)
    labels = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
    chance = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)).mean(axis=1)
    loss = classification_loss(tf.constant(labels), tf.constant(logits), multi_label=True)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert float(num_hits(tf.constant(labels), tf.constant(logits), True)) == 1
    assert float(num_hits(tf.constant([0, 1]), tf.constant(logits), False)) == 1


def test_balanced_weights_let_classes_count_alike() -> None:
    counts = np.array([1, 3, 4])
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights * counts, np.full(3, 8 / 3), rtol=1e-6)
    with pytest.raises(UsageError, match="class number 1 has no"):
        balanced_class_weights(np.array([2, 0]))


def test_schedule() -> None:
    rates = [warmup_cosine(s, peak=2.0, warmup_steps=4, total_steps=12) for s in range(13)]
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(1.0) and rates[12] == pytest.approx(0.0)
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False))
    assert warmup_cosine(0, peak=1.0, warmup_steps=0, total_steps=1) == 1.0


@pytest.fixture
def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    return slow_fusion(3, input_shape=(4, 16, 16, 3), widths=(4, 6))


CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


def test_a_replaced_head_keeps_everything_else(small: keras.Model) -> None:
    new = replace_head(small, 5, "sigmoid")
    assert new.output_shape == (None, 5)
    features = [keras.Model(m.input, m.get_layer("features").output)(CLIPS) for m in (small, new)]
    np.testing.assert_array_equal(*features)
    logits = keras.Model(new.input, new.get_layer("logits").output)(CLIPS)
    np.testing.assert_allclose(new(CLIPS), 1 / (1 + np.exp(-np.array(logits))), rtol=1e-5)
    with pytest.raises(UsageError, match='no layer "logits"'):
        replace_head(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), 5, "softmax")


def test_copied_weights_are_counted(small: keras.Model) -> None:
    other = slow_fusion(7, input_shape=(6, 24, 24, 3), widths=(4, 6))
    report = copy_weights(small, other)
    assert {path.split("/")[0] for path in report.fresh} == {"logits"}
    assert len(report.copied) + len(report.fresh) == len(other.weights)
    np.testing.assert_array_equal(small.weights[0], other.weights[0])
    stranger = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="stranger")])
    with pytest.raises(ModelFileError, match="none of the weights"):
        copy_weights(stranger, small)


def test_freezing(small: keras.Model) -> None:
    before = len(small.trainable_variables)
    freeze_up_to(small, "features")
    assert [v.path.split("/")[0] for v in small.trainable_variables] == ["logits", "logits"]
    assert before > 2
    with pytest.raises(UnknownNameError, match='Did you mean "features"'):
        freeze_up_to(small, "featurs")
    with pytest.raises(UsageError, match="nothing is left to train"):
        freeze_up_to(small, "predictions")


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_norms_and_biases(small: keras.Model, name: str) -> None:
    experiment = Experiment(
        data="demo", model="slow_fusion", optimizer=name, learning_rate=0.1, weight_decay=0.5
    )
    optimizer = make_optimizer(experiment, small)
    before = [v.numpy() for v in small.trainable_variables]
    zeros = [tf.zeros(v.shape) for v in small.trainable_variables]
    optimizer.apply(zeros, small.trainable_variables)
    for old, variable in zip(before, small.trainable_variables, strict=True):
        factor = 1.0 if old.ndim == 1 else 1 - 0.1 * 0.5
        np.testing.assert_allclose(variable, old * factor, rtol=1e-6, err_msg=variable.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"optimizer": "adam"}, "adamw, sgd, lars, lamb"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"val_fraction": 1.0}, "val_fraction must be 0 to below 1"),
        ({"jitter": 2.0}, "jitter must be 0 to below 1"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"seed": 2**32}, "seed must be 0 to"),
        ({"batch_size": 8, "accumulate": 3}, r"accumulate \(3\) must divide the batch size"),
        ({"ema": 1.0}, "ema must be above 0 to below 1"),
        ({"precise_bn": 0}, "precise_bn must be at least 1"),
        ({"unfreeze_epochs": 0}, "unfreeze_epochs must be at least 1"),
        ({"lr_batch_size": 0}, "lr_batch_size must be at least 1"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 to 1"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be at least 0"),
        ({"early_stopping": 0}, "early_stopping must be at least 1"),
        ({"checkpoint_minutes": 0.0}, "checkpoint_minutes must be above 0"),
        ({"model": None}, "name a model"),
        ({"crop": "middle"}, "crop must be one of"),
        ({"bptt": 32, "remat": True}, "bptt and remat both save memory.*give only one"),
    ],
)
def test_impossible_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Experiment(**{"data": "demo", "model": "slow_fusion", **change})


def test_an_experiment_survives_its_file(tmp_path) -> None:
    experiment = Experiment(
        data="demo", model="late_fusion", size=(32, 48), model_options={"widths": [4, 8]}
    )
    (tmp_path / "experiment.json").write_text(experiment.to_json())
    back = Experiment.from_folder(tmp_path)
    assert back.size == (32, 48) and back.out == str(tmp_path)
    assert back.model_options == experiment.model_options
    (tmp_path / "experiment.json").write_text('{"kvideo_version": "9", "data": "x", "new": 1}')
    with pytest.raises(UsageError, match="kvideo 9 .* does not know: new"):
        Experiment.from_folder(tmp_path)
    for text, message in (
        ("[1]", "cannot be read"),
        ("{", "cannot be read"),
        ('{"model": "c3d"}', "damaged: .*data"),
        ('{"data": "x", "model": "c3d", "epochs": "many"}', "damaged"),
    ):
        (tmp_path / "experiment.json").write_text(text)
        with pytest.raises(UsageError, match=message):
            Experiment.from_folder(tmp_path)
    with pytest.raises(UsageError, match="not a run's folder"):
        Experiment.from_folder(tmp_path / "nowhere")


def test_a_clip_that_the_model_cannot_take_is_refused(small: keras.Model, tiny_videos) -> None:
    names = ("left", "right", "other")
    small.kvideo_info = ModelInfo(ClipSpec(4, 10.0, (16, 16)), names)
    with pytest.raises(UsageError, match=r"takes clips of \(4, 16, 16, 3\), not \(2, 16, 16, 3\)"):
        kvideo.evaluate(small, tiny_videos, clip_spec=ClipSpec(2, 10.0, (16, 16)), verbose=False)
