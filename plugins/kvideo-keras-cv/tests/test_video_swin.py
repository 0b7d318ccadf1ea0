"""Video Swin Transformers as models of kvideo."""

import keras
import numpy as np
import pytest

import kvideo
from kvideo.analysis import count_parameters
from kvideo.errors import UsageError
from kvideo.registry import get_builder
from kvideo.saving import ModelInfo

SHAPE = (4, 64, 64, 3)
SMALL = {"input_shape": SHAPE, "window_size": (2, 4, 4)}


@pytest.fixture(scope="module")
def model():
    return get_builder("video_swin_t")(3, **SMALL)


# The paper's table counts 28.2, 49.8 and 88.1 million with 400 classes, on its clips.
@pytest.mark.parametrize(("name", "millions"), [("t", 28.2), ("s", 49.8), ("b", 88.1)])
def test_parameters_are_the_papers(name, millions):
    model = get_builder(f"video_swin_{name}")(400)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.06)


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
