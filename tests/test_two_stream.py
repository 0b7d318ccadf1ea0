"""Two-stream networks, and networks of flow that begin with weights for pictures."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import kvideo
from kvideo import registry
from kvideo.cli import cli
from kvideo.clip_spec import recommended_clip
from kvideo.errors import UsageError
from kvideo.layers import FlowNormalization
from kvideo.training.transfer import copy_weights
from kvideo.weights.inception import INCEPTION
from kvideo.weights.loading import load_tensors

ENTRIES = {n: e for n, e in registry.entries(registry.MODELS).items() if e.builtin}
NARROW = {"widths": (4, 6)}


def clips(shape: tuple[int, ...], count: int = 2) -> np.ndarray:
    """RGB 0..255 and after it flow of some pixels, (count, T, H, W, C) float32."""
    rng = np.random.default_rng(0)
    found = rng.normal(0, 5, (count, *shape)).astype(np.float32)
    if shape[-1] != 2:
        found[..., :3] = rng.integers(0, 256, (count, *shape[:-1], 3))
    return found


@pytest.mark.parametrize(
    ("stream", "shape"),
    [("spatial", (1, 64, 64, 3)), ("temporal", (10, 64, 64, 2)), ("both", (10, 64, 64, 5))],
)
def test_streams_and_their_clips(stream: str, shape: tuple[int, ...]) -> None:
    model = kvideo.models.two_stream(5, stream=stream)
    assert model.input_shape == (None, *shape)
    assert recommended_clip(kvideo.models.two_stream, stream=stream).shape == shape
    by_channels = kvideo.models.two_stream(5, input_shape=shape)
    assert by_channels.count_params() == model.count_params()
    probabilities = np.asarray(model(clips(shape)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_the_temporal_stream_sees_the_flows_as_channels() -> None:
    model = kvideo.models.two_stream(5, input_shape=(7, 32, 32, 2), **NARROW)
    assert model.get_layer("conv1").kernel.shape == (3, 3, 2 * 7, 4)
    normalization = model.get_layer("normalization")
    assert isinstance(normalization, FlowNormalization) and normalization.limit == 20
    clip = clips((7, 32, 32, 2))
    channels = keras.Model(model.input, model.get_layer("frames_to_channels").output)(clip)
    expected = np.clip(clip, -20, 20).transpose(0, 2, 3, 1, 4).reshape(2, 32, 32, 14) / 20
    np.testing.assert_allclose(channels, expected, atol=1e-6)


def test_joined_streams_add_their_class_scores() -> None:
    """The joined network, taken apart: each half by itself, from the middle frame and the flow."""
    shape = (6, 32, 32, 5)
    model = kvideo.models.two_stream(4, input_shape=shape, classifier_activation=None, **NARROW)
    spatial = kvideo.models.two_stream(
        4, input_shape=(1, 32, 32, 3), classifier_activation=None, **NARROW
    )
    temporal = kvideo.models.two_stream(
        4, input_shape=(6, 32, 32, 2), classifier_activation=None, **NARROW
    )
    for name, network in (("spatial", spatial), ("temporal", temporal)):
        for layer in network.layers:
            if layer.weights and layer.name != "logits":
                layer.set_weights(model.get_layer(f"{name}_{layer.name}").get_weights())
    kernel, bias = model.get_layer("logits").get_weights()
    spatial.get_layer("logits").set_weights([kernel[:6], bias])
    temporal.get_layer("logits").set_weights([kernel[6:], 0 * bias])
    clip = clips(shape)
    halves = spatial(clip[:, 3:4, ..., :3]) + temporal(clip[..., 3:])
    np.testing.assert_allclose(model(clip), halves, atol=1e-4)
    assert model.get_layer("feature_map").output.shape[1:] == (1, 8, 8, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stream": "sideways"}, "stream must be one of spatial, temporal, both"),
        ({"stream": "temporal", "input_shape": (8, 32, 32, 3)}, "takes clips of 2 channels"),
        ({"input_shape": (8, 32, 32, 4)}, "input_shape must end in 3 channels"),
        ({"channels": 4}, "input_shape must end in 3 channels"),
        ({"channels": 2, "input_shape": (8, 32, 32, 3)}, "they differ"),
        ({"widths": ()}, "widths"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kvideo.models.two_stream(4, **arguments)


def test_weights_of_a_stream_that_is_not_there() -> None:
    with pytest.raises(UsageError, match='temporal_weights are of no use to stream="spatial"'):
        kvideo.models.two_stream_i3d(4, stream="spatial", temporal_weights="x.pt")


def general_3d() -> list[str]:
    return [name for name in ENTRIES if not name.startswith(("slow_", "slowfast_"))]


@pytest.mark.parametrize("name", general_3d())
def test_every_model_takes_flow(name: str) -> None:
    builder = ENTRIES[name].load()
    shape = (8, 32, 32, 2)
    options = {"width_multiplier": 0.125} if name in ("i3d", "s3d", "two_stream_i3d") else {}
    model = builder(3, input_shape=shape, **options)
    assert model.input_shape == (None, *shape)
    assert isinstance(model.get_layer("normalization"), FlowNormalization)
    outputs = np.asarray(model(clips(shape)))
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
    if name not in ("slow_fusion", "two_stream"):
        return
    assert builder(3, channels=2).input_shape[-1] == 2
    assert recommended_clip(builder, channels=2).modality == "flow"


def test_two_i3d_networks_side_by_side() -> None:
    shape = (16, 64, 64, 5)
    model = kvideo.models.two_stream_i3d(4, input_shape=shape, width_multiplier=0.125)
    single = kvideo.models.i3d(4, input_shape=(*shape[:-1], 2), width_multiplier=0.125)
    names = {layer.name for layer in model.layers}
    assert {f"temporal_{layer.name}" for layer in single.layers if layer.weights} - names == {
        "temporal_logits"
    }
    assert model.get_layer("spatial_conv1a").kernel.shape[-2] == 3
    assert model.get_layer("temporal_conv1a").kernel.shape[-2] == 2
    assert np.asarray(model(clips(shape))).shape == (2, 4)


# -- weights for pictures ------------------------------------------------------------------------


def test_imagenet_weights_of_the_temporal_stream() -> None:
    """The first kernel is the mean over the colours, repeated; all else is ImageNet's."""
    options = {"backbone": "efficientnet_lite0", "weights": "imagenet"}
    spatial = kvideo.models.two_stream(3, input_shape=(1, 64, 64, 3), **options)
    temporal = kvideo.models.two_stream(3, input_shape=(5, 64, 64, 2), **options)
    kernel = spatial.get_layer("stem").get_weights()[0]
    mean = kernel.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(
        temporal.get_layer("stem").get_weights()[0], np.repeat(mean, 10, axis=2), rtol=1e-6
    )
    for layer in spatial.layers:
        if layer.weights and layer.name not in ("stem", "logits"):
            for a, b in zip(
                layer.get_weights(), temporal.get_layer(layer.name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(a, b)


def test_published_weights_for_pictures_in_a_network_of_flow() -> None:
    """In pytorch-i3d's names and layout."""
    narrow = {"input_shape": (8, 32, 32, 3), "width_multiplier": 0.125}
    rgb = kvideo.models.i3d(4, **narrow)
    tensors = {}
    for layer in rgb.layers:
        if not layer.weights:
            continue
        module = INCEPTION.dialects[0].modules({x.name for x in rgb.layers})(layer.name)
        for variable in layer.weights:
            tensors[(layer.name, variable.name)] = (module, np.asarray(variable))
    state = {}
    words = {
        "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
        "moving_mean": "running_mean", "moving_variance": "running_var",
    }  # fmt: skip
    for (_, name), (module, value) in tensors.items():
        axes = (4, 3, 0, 1, 2) if value.ndim == 5 else None
        if name == "kernel" and value.ndim == 2:
            value = value.T[..., None, None, None]
        state[f"{module}.{words[name]}"] = value if axes is None else value.transpose(axes)
    flow = kvideo.models.i3d(4, **{**narrow, "input_shape": (8, 32, 32, 2)})
    report = load_tensors(flow, state, INCEPTION, "rgb.pt")
    assert report.averaged == ("conv1a",)
    assert report.remarks() == ["rgb.pt is of RGB: conv1a begins with its mean over the colours."]
    kernel = rgb.get_layer("conv1a").get_weights()[0]
    mean = kernel.mean(axis=-2, keepdims=True).repeat(2, axis=-2)
    np.testing.assert_allclose(flow.get_layer("conv1a").get_weights()[0], mean, rtol=1e-6)
    np.testing.assert_array_equal(
        flow.get_layer("mixed5c_b0").get_weights()[0], rgb.get_layer("mixed5c_b0").get_weights()[0]
    )


def test_a_temporal_stream_begins_with_a_spatial_one() -> None:
    spatial = kvideo.models.two_stream(3, input_shape=(1, 32, 32, 3), **NARROW)
    temporal = kvideo.models.two_stream(3, input_shape=(5, 32, 32, 2), **NARROW)
    assert not copy_weights(spatial, temporal).fresh
    kernel = spatial.get_layer("conv1").get_weights()[0]
    np.testing.assert_allclose(
        temporal.get_layer("conv1").get_weights()[0],
        np.repeat(kernel.mean(axis=2, keepdims=True), 10, axis=2),
        rtol=1e-6,
    )
    early = kvideo.models.early_fusion(3, input_shape=(5, 32, 32, 3), **NARROW)
    assert any("conv1/kernel" in name for name in copy_weights(spatial, early).fresh)


# -- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["spatial", "temporal", "both"])
def test_a_run_of_each_stream(stream, tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / stream
    frames = [] if stream == "spatial" else ["--frames", "5"]
    arguments = ["fit", str(tiny_videos), "-m", "two_stream", "--set", f"stream={stream}"]
    arguments += ["--set", "widths=[4,6]", "--size", "24", "-e", "2", "-b", "4", "--out", str(out)]
    result = CliRunner().invoke(cli, [*arguments, *frames])
    assert result.exit_code == 0, result.output
    info = kvideo.model_info(out)
    channels = {"spatial": 3, "temporal": 2, "both": 5}[stream]
    assert info.clip_spec.shape == (1 if stream == "spatial" else 5, 24, 24, channels)
    files = sorted(map(str, tiny_videos.glob("*/0.mp4")))
    predictions = kvideo.predict(out, files, timeline=True)
    assert [len(p.timeline.times) > 0 for p in predictions] == [True, True]
    evaluated = CliRunner().invoke(cli, ["evaluate", str(out), str(tiny_videos), "--json"])
    document = json.loads(evaluated.stdout)
    assert document["metrics"]["num_videos"] == 12
    exported = kvideo.export(out, tmp_path / f"{stream}.onnx")
    assert exported.input["dtype"] == ("uint8" if stream == "spatial" else "float32")
    measured = CliRunner().invoke(
        cli, ["benchmark", "model", str(out / "model.keras"), "--batch-size", "1"]
    )
    assert measured.exit_code == 0, measured.output


def test_motion_alone_is_learned(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    """Textures that drift left or right: what single frames cannot tell, flow tells at once."""
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    result = kvideo.fit(
        tiny_videos, "two_stream", out=tmp_path / "run", num_frames=4, size=(32, 32), epochs=12,
        batch_size=4, learning_rate=0.01, flip="off", val=tiny_videos, verbose=False,
        model_options={"stream": "temporal", "widths": [4, 6]},
    )  # fmt: skip
    assert result.best["val_accuracy"] == 1.0
