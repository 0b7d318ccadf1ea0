"""Video Swin Transformers as models of kvideo."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.analysis import receptive_fields
from kvideo.errors import UsageError
from kvideo.registry import get_builder
from kvideo.saving import ModelInfo

SHAPE = (4, 64, 64, 3)
SMALL = {"input_shape": SHAPE, "window_size": (2, 4, 4)}


@pytest.fixture(scope="module")
def model():
    return get_builder("video_swin_t")(3, **SMALL)


# The paper's table, with 400 classes, on its clips: parameters and multiply-adds.
@pytest.mark.parametrize(
    ("name", "millions", "giga"), [("t", 28.2, 88), ("s", 49.8, 166), ("b", 88.1, 282)]
)
def test_parameters_and_costs_are_the_papers(name, millions, giga):
    summary = kvideo.summary(f"video_swin_{name}")
    assert summary.parameters / 1e6 == pytest.approx(millions, abs=0.06)
    assert summary.macs / 1e9 == pytest.approx(giga, rel=0.005)
    assert not summary.unknown


# In the second, windows do not fit into the map: it is padded.
@pytest.mark.parametrize("window", [(2, 2, 2), (4, 7, 3)])
def test_receptive_fields_are_what_gradients_show(window):
    model = get_builder("video_swin_t")(3, input_shape=(16, 96, 96, 3), window_size=window)
    fields = receptive_fields(model)
    backbone = model.get_layer("backbone")
    names = [layer.name for layer in backbone.layers if "videoswin" in layer.name][:3]
    clip = tf.constant(np.random.default_rng(1).uniform(0, 255, (1, 16, 96, 96, 3)), tf.float32)
    for name in names:
        part = keras.Model(backbone.input, backbone.get_layer(name).output)
        counts = part.output.shape[1:4]
        spans = fields[f"backbone/{name}"].spans
        for share in (0.0, 0.4, 1.0):
            place = [round(share * (count - 1)) for count in counts]
            with tf.GradientTape() as tape:
                tape.watch(clip)
                value = tf.reduce_sum(part(clip)[(0, *place)] * np.arange(part.output.shape[-1]))
            gradient = np.abs(tape.gradient(value, clip).numpy()[0]).max(axis=-1)
            for number, axis in enumerate("THW"):
                others = tuple(n for n in range(3) if n != number)
                there = np.flatnonzero(gradient.max(axis=others) > 1e-12 * gradient.max())
                low, high = (ends[place[number]] for ends in (spans[axis].low, spans[axis].high))
                assert (there[0], there[-1]) == (low, min(high, clip.shape[1 + number] - 1))


def test_the_named_layers(model):
    assert tuple(model.get_layer("feature_map").output.shape) == (None, 2, 2, 2, 768)
    assert tuple(model.get_layer("features").output.shape) == (None, 768)
    assert tuple(model.get_layer("logits").output.shape) == (None, 3)


def test_it_can_be_saved_and_loaded(model, tmp_path):
    info = ModelInfo(kvideo.ClipSpec(4, 15.0, (64, 64)), ("a", "b", "c"))
    kvideo.save_model(model, tmp_path / "model.keras", info)
    again = kvideo.load_model(tmp_path / "model.keras")
    clips = np.random.default_rng(1).uniform(0, 255, (2, *SHAPE)).astype("float32")
    np.testing.assert_allclose(np.asarray(again(clips)), np.asarray(model(clips)), atol=1e-5)


def test_it_trains_on_files(tmp_path):
    """The whole way: `kvideo.fit` on the demo, then the model file on a video."""
    from kvideo.data.demo import demo_folder

    result = kvideo.fit(
        "demo", model="video_swin_t", out=tmp_path / "run", epochs=1, num_frames=4, size=(32, 32),
        model_options={"window_size": (2, 4, 4)}, val_fraction=0.0, batch_size=48, verbose=False,
        tensorboard="none", precision="float32",
    )  # fmt: skip
    assert result is not None
    video = next(demo_folder().glob("val/*/*.mp4"))
    (prediction,) = kvideo.predict(tmp_path / "run", video, num_clips=1)
    assert len(prediction.top(6)) == 6


def test_it_learns_in_a_step(model):
    clips = np.random.default_rng(2).uniform(0, 255, (3, *SHAPE)).astype("float32")
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", jit_compile=False)
    assert np.isfinite(model.train_on_batch(clips, np.arange(3)))


def test_clips_that_do_not_suit():
    with pytest.raises(UsageError, match="even number of frames"):
        get_builder("video_swin_t")(3, input_shape=(5, 64, 64, 3))
    with pytest.raises(UsageError, match="RGB"):
        get_builder("video_swin_t")(3, input_shape=(4, 64, 64, 2))
