"""Averaged weights, precise batch statistics, gradual unfreezing: formulas, runs, resuming."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.errors import UsageError
from kvideo.training.averaging import WeightAverage
from kvideo.training.loop import Loop
from kvideo.training.precise_statistics import PreciseStatistics
from kvideo.training.thawing import Thawing

SHAPE = (4, 16, 16, 3)
ONE = tf.distribute.get_strategy()
QUICK = {
    "model": "slow_fusion",
    "num_frames": 4,
    "size": (16, 16),
    "model_options": {"widths": (4, 6), "dropout": 0.5},
    "batch_size": 4,
    "precision": "float32",
    "verbose": False,
}
ALL = {"ema": 0.9, "precise_bn": 2, "unfreeze_epochs": 2, "accumulate": 2, "layer_decay": 0.5}


def small(**options) -> keras.Model:
    return kvideo.models.slow_fusion(2, input_shape=SHAPE, widths=(4, 6), **options)


def test_the_average_forgets_the_beginning_and_then_decays() -> None:
    model = small()
    average = WeightAverage(model, ONE, 0.5)
    kernel = model.get_layer("logits").kernel
    mean = model.get_layer("conv1_bn").moving_mean
    frozen = model.get_layer("conv2").kernel
    expected, stands = kernel.numpy(), frozen.numpy()
    for step in range(1, 12):
        kernel.assign(np.full(kernel.shape, step))
        mean.assign(np.full(mean.shape, 2 * step))
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
        average.update(step)
    with average.applied():
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5)
        assert 0 < mean.numpy()[0] < 22
        np.testing.assert_array_equal(frozen.numpy(), stands)
    assert (kernel.numpy() == 11).all() and (mean.numpy() == 22).all()


def test_precise_statistics_are_those_of_all_batches() -> None:
    inputs = keras.Input(SHAPE)
    x = keras.layers.Dropout(0.3)(keras.layers.Rescaling(1 / 255)(inputs))
    ours = kvideo.layers.BatchNorm(name="ours")(x)
    theirs = keras.layers.BatchNormalization(name="theirs")(keras.layers.Rescaling(1 / 255)(inputs))
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)(x)
    model = keras.Model(inputs, keras.layers.Concatenate()([ours, theirs, frozen]))
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, high, (4, *SHAPE)).astype("float32") for high in (50, 120, 256)]
    precise = PreciseStatistics(model, ONE, lambda: map(tf.constant, clips))
    before = [v.numpy() for v in model.non_trainable_variables]
    everything = np.concatenate(clips) / 255
    with precise.applied():
        layer = model.get_layer("theirs")
        np.testing.assert_allclose(layer.moving_mean, everything.mean((0, 1, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, everything.var((0, 1, 2, 3)), rtol=1e-4)
        # Dropout leaves the mean, and enlarges the variance.
        dropped = model.get_layer("ours")
        np.testing.assert_allclose(dropped.moving_mean, layer.moving_mean, rtol=0.05)
        assert (dropped.moving_variance.numpy() > layer.moving_variance.numpy()).all()
        assert model.get_layer("frozen").moving_mean.numpy().max() == 0
    after = [v.numpy() for v in model.non_trainable_variables]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert model.get_layer("theirs").momentum == 0.99
    with pytest.raises(UsageError, match='precise_bn needs .* "plain" has none'):
        PreciseStatistics(small(batch_norm=False, name="plain"), ONE, lambda: [])


def test_stages_thaw_from_the_head_down() -> None:
    model = small()
    model.get_layer("conv1").trainable = False  # asked for by --freeze, say
    thawing = Thawing(model, epochs=2)
    trained = []
    for epoch in range(6):
        thawing.freeze(epoch)
        trained.append({v.path.split("/")[0] for v in model.trainable_variables})
    first, second, third = {"logits"}, {"logits", "conv2", "conv2_bn"}, {"conv1_bn"}
    assert trained[0] == trained[1] == first and trained[2] == trained[3] == second
    assert trained[4] == trained[5] == second | third
    steps = thawing.first_steps(steps_per_epoch=7)
    assert steps[id(model.get_layer("conv2").kernel)] == 14
    assert steps[id(model.get_layer("conv1_bn").gamma)] == 28
    assert "All layers are trained from epoch 5 on." in thawing.describe(4)


@pytest.fixture(scope="module")
def undisturbed(tiny_videos: Path, tmp_path_factory) -> "kvideo.training.FitResult":
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return kvideo.fit(tiny_videos, out=out, epochs=4, deterministic=True, **QUICK, **ALL)


def checkpoint(run: Path) -> dict[str, np.ndarray]:
    path = max((run / "checkpoint").glob("*.npz"))
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if name.isdigit()}


def test_interrupted_and_resumed_equals_undisturbed(
    undisturbed, tiny_videos: Path, tmp_path: Path, monkeypatch
) -> None:
    """Averages, thawed layers and their moments come from the checkpoint."""
    original = Loop._name_failures

    def stop_after_two(loop: Loop) -> None:
        original(loop)
        if loop.state.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Loop, "_name_failures", stop_after_two)
        kvideo.fit(tiny_videos, out=tmp_path / "run", epochs=4, deterministic=True, **QUICK, **ALL)
    result = kvideo.fit(resume=tmp_path / "run", verbose=False)
    for row, other in zip(undisturbed.history, result.history, strict=True):
        assert row["val_loss"] == other["val_loss"] and row["loss"] == other["loss"]
    one, two = checkpoint(undisturbed.folder), checkpoint(result.folder)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_the_file_holds_the_averages_with_precise_statistics(
    tiny_videos: Path, tmp_path: Path
) -> None:
    """Not the weights that training goes on with; a checkpoint has both."""
    options = {**QUICK, "ema": 0.9, "precise_bn": 2, "unfreeze_epochs": 1, "val_fraction": 0.0}
    result = kvideo.fit(tiny_videos, out=tmp_path / "run", epochs=1, **options)
    model = kvideo.load_model(result.model_path)
    assert all(layer.trainable for layer in model.layers)
    stored = list(checkpoint(result.folder).values())
    raw, averages = stored[: len(model.variables)], stored[-len(model.weights) :]
    floats = [value for value in raw if value.dtype == np.float32]
    for weight, value, average in zip(model.weights, floats, averages, strict=True):
        if "moving" in weight.path:  # frozen batch norms keep theirs
            continue
        np.testing.assert_allclose(weight.numpy(), average, rtol=1e-6, err_msg=weight.path)
        if "logits" in weight.path:
            assert np.abs(value - average).max() > 1e-5


def test_a_model_without_batch_norm_has_no_precise_statistics(
    tiny_videos: Path, tmp_path: Path
) -> None:
    options = {**QUICK, "model_options": {"widths": (4,), "batch_norm": False}}
    with pytest.raises(UsageError, match="precise_bn needs a model with batch norms"):
        kvideo.fit(tiny_videos, out=tmp_path / "run", precise_bn=2, **options)
    assert not (tmp_path / "run").exists()


MIRRORED = """
import sys
import tensorflow as tf
devices = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import kvideo
kvideo.fit(sys.argv[2], model="slow_fusion", out=sys.argv[3], num_frames=4, size=(16, 16),
           model_options={"widths": (4, 6)}, batch_size=4, precision="float32", epochs=2,
           strategy="mirrored" if devices > 1 else "one", optimizer="lars", deterministic=True,
           ema=0.9, precise_bn=2, layer_decay=0.5,
           val_fraction=0.0, verbose=False)
"""


def test_two_devices_give_the_weights_of_one(tiny_videos: Path, tmp_path: Path) -> None:
    for devices in (1, 2):
        arguments = [str(devices), str(tiny_videos), str(tmp_path / str(devices))]
        subprocess.run([sys.executable, "-c", MIRRORED, *arguments], check=True)
    one, two = (
        kvideo.load_model(tmp_path / str(devices) / "model.keras").get_weights()
        for devices in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
