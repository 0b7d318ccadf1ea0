"""A model that follows a stream: its outputs are the whole clip's, in constant memory and time."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import kvideo
from kvideo.errors import UsageError
from kvideo.saving import ModelInfo
from kvideo.streaming import Stream

FRAMES, SIDE = 12, 32


def randomized(model, seed: int = 0):
    """Weights that make outputs differ from frame to frame, batch norms that do something."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        change = rng.standard_normal(weight.shape)
        weight.assign(weight + 0.05 * (np.abs(change) if "variance" in weight.path else change))
    return model


def frames(count: int = FRAMES, height: int = SIDE, width: int = SIDE, seed: int = 1):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def build(name: str, num_frames: int = FRAMES, **options):
    keras.utils.set_random_seed(0)
    shape = (num_frames, SIDE, SIDE, 3)
    return randomized(getattr(kvideo.models, name)(3, input_shape=shape, widths=(4, 6), **options))


def with_info(model, **spec):
    shape = model.input_shape
    clip = kvideo.ClipSpec(shape[1], 10.0, shape[2:4], **spec)
    model.kvideo_info = ModelInfo(clip, ("a", "b", "c"))
    return model


def whole(model, clip: np.ndarray) -> np.ndarray:
    return np.asarray(model(clip[None], training=False))[0]


# -- causal models: the outputs of the whole clip ------------------------------------------------


@pytest.mark.parametrize("output", ["mean", "last", "frames"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("name", ["recurrent_conv", "cnn_rnn"])
def test_the_outputs_are_those_of_the_whole_clip(name: str, cell: str, output: str) -> None:
    options = {"cell" if name == "recurrent_conv" else "rnn": cell}
    options |= {"output": "frames"} if output == "frames" else {"pooling": output}
    model = build(name, **options)
    stream, clip = kvideo.stream(model), frames()
    outputs = np.stack([stream.step(frame) for frame in clip])
    assert stream.causal and outputs.shape == (FRAMES, 3) and outputs.dtype == np.float32
    expected = whole(model, clip)
    if output == "frames":
        np.testing.assert_allclose(outputs, expected, atol=1e-5)
        assert np.ptp(outputs, axis=0).max() > 1e-3
    else:
        np.testing.assert_allclose(outputs[-1], expected, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"pooling": "mean"}, {"pooling": "last"}, {"output": "frames"}]
)
def test_windows_give_an_output_when_they_are_full(options: dict) -> None:
    model = build("cnn3d_rnn", window=4, **options)
    stream, clip = kvideo.stream(model), frames()
    outputs, fresh = [], []
    for frame in clip:
        outputs.append(stream.step(frame))
        fresh.append(stream.fresh)
    assert stream.causal and stream.stride == 4
    assert outputs[:3] == [None] * 3 and all(output is not None for output in outputs[3:])
    assert fresh == [False, False, False, True] * 3
    assert outputs[4] is outputs[3]
    expected = whole(model, clip)
    last = expected[-1] if "output" in options else expected
    np.testing.assert_allclose(outputs[-1], last, atol=1e-5)
    if "output" in options:
        np.testing.assert_allclose(np.stack(outputs[3::4]), expected[3::4], atol=1e-5)


@pytest.mark.parametrize(("name", "num_frames"), [("late_fusion", FRAMES), ("single_frame", 1)])
def test_models_of_single_frames(name: str, num_frames: int) -> None:
    model = build(name, num_frames)
    stream, clip = kvideo.stream(model), frames(num_frames)
    outputs = [stream.step(frame) for frame in clip]
    assert stream.causal
    np.testing.assert_allclose(outputs[-1], whole(model, clip), atol=1e-5)


def test_after_a_reset_nothing_is_remembered() -> None:
    for model in (build("recurrent_conv"), build("slow_fusion"), build("cnn3d_rnn", window=4)):
        stream, clip = kvideo.stream(model), frames(7)
        first = [stream.step(frame) for frame in clip]
        stream.reset()
        again = [stream.step(frame) for frame in clip]
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_mean_over_time_fades() -> None:
    model = build("late_fusion", 4)
    dark, light = np.zeros((SIDE, SIDE, 3), np.uint8), frames(1)[0]
    fading, total = kvideo.stream(model), kvideo.stream(model, horizon=np.inf)
    for frame in [dark] * 40 + [light] * 40:
        outputs = fading.step(frame), total.step(frame)
    now = kvideo.stream(model).step(light)
    half = whole(model, np.stack([dark, dark, light, light]))
    np.testing.assert_allclose(outputs[0], now, atol=1e-4)
    np.testing.assert_allclose(outputs[1], half, atol=1e-5)
    assert np.abs(half - now).max() > 1e-3


# -- other models: the last frames ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [("slow_fusion", {}), ("early_fusion", {}), ("cnn_rnn", {"bidirectional": True}),
     ("cnn_rnn", {"bidirectional": True, "output": "frames"})],
)  # fmt: skip
def test_other_models_see_their_last_frames(name: str, options: dict) -> None:
    model = build(name, **options)
    stream, clip = kvideo.stream(model), frames(30)
    outputs = np.stack([stream.step(frame) for frame in clip])
    assert not stream.causal
    for index in (0, 5, FRAMES - 1, FRAMES, 23, 24, 29):
        seen = clip[max(0, index - FRAMES + 1) : index + 1]
        padded = np.concatenate([np.repeat(clip[:1], FRAMES - len(seen), axis=0), seen])
        expected = whole(model, padded)
        expected = expected[-1] if expected.ndim == 2 else expected
        np.testing.assert_allclose(outputs[index], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["slow_fusion", "recurrent_conv"])
def test_an_output_at_every_nth_frame(name: str) -> None:
    model, clip = build(name), frames(10)
    all_of_them = kvideo.stream(model)
    expected = [all_of_them.step(frame) for frame in clip]
    stream = kvideo.stream(model, every=4)
    for index, frame in enumerate(clip):
        output = stream.step(frame)
        assert stream.fresh == (index % 4 == 0)
        np.testing.assert_allclose(output, expected[index - index % 4], atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_a_model_of_ones_own(causal: bool) -> None:
    import keras

    first = keras.layers.Conv3D(4, (1 if causal else 3, 3, 3), strides=(1, 2, 2))
    layers = [first, keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling3D(), keras.layers.Dense(3)]
    model = randomized(keras.Sequential([keras.Input((FRAMES, SIDE, SIDE, 3)), *layers]))
    stream, clip = kvideo.stream(model), frames()
    assert stream.causal == causal and stream.class_names == ("0", "1", "2")
    output = [stream.step(frame) for frame in clip][-1]
    np.testing.assert_allclose(output, whole(model, clip.astype("float32")), atol=1e-3, rtol=1e-4)


# -- frames of any size --------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(48, 80), (100, 40), (32, 32), (7, 9)])
def test_frames_are_framed_as_in_testing(framing: str, size: tuple[int, int]) -> None:
    stream = kvideo.stream(with_info(build("single_frame", 1), framing=framing))
    grey = np.full((*size, 3), 200, np.uint8)
    picture = stream.prepare(grey)
    assert picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8
    values = set(np.unique(picture)) - {199, 200, 201}
    assert values == ({127} if framing == "letterbox" and size[0] != size[1] else set())


def test_a_frame_gives_the_pixels_that_a_file_gives(tmp_path: Path, shared: Path) -> None:
    from kvideo.data.decode import open_video
    from kvideo.data.sampling import view_windows

    model = with_info(build("single_frame", 1))
    spec = model.kvideo_info.clip_spec
    with open_video(shared / "data/clips/torchvision/R6llTwEh07w.mp4") as video:
        window = view_windows((video.info.height, video.info.width), spec, 1)[0]
        expected = video.read([1.0], size=window.size, crop=window.crop)[0]
        frame = video.read([1.0])[0]
    difference = kvideo.stream(model).prepare(frame).astype(int) - expected
    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
     np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_frame_is_refused(frame: np.ndarray) -> None:
    stream = kvideo.stream(build("single_frame", 1))
    with pytest.raises(UsageError, match="uint8 RGB"):
        stream.step(frame)


def test_frames_may_be_views_with_any_strides() -> None:
    stream, frame = kvideo.stream(build("recurrent_conv")), frames(1)[0]
    expected = stream.step(frame)
    stream.reset()
    np.testing.assert_array_equal(stream.step(np.asfortranarray(frame)), expected)
    stream.reset()
    np.testing.assert_array_equal(stream.step(frame[::-1][::-1]), expected)


# -- what a stream is made of --------------------------------------------------------------------


def test_a_file_is_loaded_and_says_rate_and_classes(tmp_path: Path) -> None:
    model = with_info(build("recurrent_conv"), framing="stretch")
    kvideo.save_model(model, tmp_path / "model.keras")
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.1)):
        stream = kvideo.stream(tmp_path, precision=precision)
        assert isinstance(stream, Stream)
        assert stream.frame_rate == 10.0 and stream.class_names == ("a", "b", "c")
        output = [stream.step(frame) for frame in frames()][-1]
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, whole(model, frames()), atol=tolerance)


def test_wrong_values_are_refused() -> None:
    import keras

    model = build("single_frame", 1)
    wrong = [{"every": 0}, {"every": 1.5}, {"horizon": 0}, {"horizon": -1.0}, {"horizon": "a"}]
    for options in wrong:
        with pytest.raises(UsageError, match=next(iter(options))):
            kvideo.stream(model, **options)
    with pytest.raises(UsageError, match="model must be a keras.Model.*, not 3"):
        kvideo.stream(3)
    flat = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(UsageError, match="one RGB clip"):
        kvideo.stream(flat)
    flow = keras.Sequential([keras.Input((4, 8, 8, 2)), keras.layers.GlobalAveragePooling3D()])
    with pytest.raises(UsageError, match="one RGB clip"):
        kvideo.stream(flow)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recurrent_conv", "slow_fusion"])
def test_memory_stays_and_nothing_is_traced_again(name: str) -> None:
    stream, clip = kvideo.stream(build(name)), frames(16)

    def run(count: int) -> int:
        for index in range(count):
            stream.step(clip[index % len(clip)])
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    before = run(1000)
    grown = run(4000) - before
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB in 4000 frames"
    if name == "recurrent_conv":
        assert stream._engine.run.experimental_get_tracing_count() == 1
