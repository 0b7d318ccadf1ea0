"""Pictures of what models learned: each shows what was planted."""

import json
from pathlib import Path
from xml.etree import ElementTree

import av
import cv2
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_video

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec
from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.errors import DataError, UnknownNameError, UsageError
from kvideo.layers import NonLocalBlock3D
from kvideo.saving import ModelInfo, save_model
from kvideo.visualization import (
    MaximizeSettings,
    attention_of,
    cam,
    class_activation,
    coordinates,
    first_filters,
    maximize,
    shift_test,
    write_activation_video,
)
from kvideo.visualization.attention import attention_picture
from kvideo.visualization.embedding import Placed, map_html
from kvideo.visualization.heat import over_picture
from kvideo.visualization.shift_plot import shift_png

SPEC = ClipSpec(4, 10.0, (32, 32), framing="letterbox")
RATE, FRAMES, SIDE = 10, 16, 8
HEIGHT, WIDTH = 32, 64
NAMES = ("blue", "red")


def colour_model(attention: bool = False) -> keras.Model:
    """Sees blue and red: a class is a colour, its logit the mean over the clip."""
    clip = keras.Input((4, 32, 32, 3), name="clip")
    x = keras.layers.Rescaling(1 / 255)(clip)
    x = keras.layers.Conv3D(2, 1, activation="leaky_relu", name="colours")(x)
    x = keras.layers.AveragePooling3D((1, 4, 4), name="feature_map")(x)
    if attention:
        x = NonLocalBlock3D(2, subsample=None, name="look")(x)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    x = keras.layers.Dense(2, name="logits")(x)
    x = keras.layers.Activation("softmax", name="predictions")(x)
    model = keras.Model(clip, x, name="colour")
    kernel = np.array([[-1, 1], [-1, -1], [1, -1]], np.float32).reshape(1, 1, 1, 3, 2)
    model.get_layer("colours").set_weights([kernel, np.zeros(2, np.float32)])
    model.get_layer("logits").set_weights([500 * np.eye(2, dtype=np.float32), np.zeros(2)])
    model.kvideo_info = ModelInfo(SPEC, NAMES)
    return model


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Grey; a red square at the right in the first half, a blue one at the left in the second."""
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 128, np.uint8)
    frames[: FRAMES // 2, 16 : 16 + SIDE, 48 : 48 + SIDE] = (230, 20, 20)
    frames[FRAMES // 2 :, 4 : 4 + SIDE, 8 : 8 + SIDE] = (20, 20, 230)
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", frames, RATE)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(colour_model(attention=True), path)
    return path


def invoke(*arguments):
    result = CliRunner().invoke(cli, ["visualize", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        return 1, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def test_activation_is_where_and_when_the_class_is(film: Path, tmp_path: Path, monkeypatch) -> None:
    model, reader = colour_model(), clip_reader(SPEC)
    found = class_activation(model, str(film), reader, NAMES, label=1)
    assert found.label == "red" and found.maps.shape == (7, 4, 8, 8) and found.maps.max() == 1
    times, strength, probabilities = found.curve()
    change = FRAMES / RATE / 2
    early, late = times < change - 0.15, times > change + 0.15
    assert strength[early].min() > 100 * strength[late].max()
    assert probabilities[0] > 0.9 and probabilities[-1] < 0.1
    assert found.probabilities[0] > 0.9 and found.probabilities[-1] < 0.1
    heat, probability = found.at(0.3)
    picture = over_picture(heat, found.window, found.size, (HEIGHT, WIDTH))
    row, column = np.unravel_index(np.nanargmax(picture), picture.shape)
    assert 16 <= row < 16 + SIDE and 48 <= column < 48 + SIDE and probability > 0.9
    # The class is chosen by the whole video, if nobody names one. Maps of long ones are not kept.
    chosen = class_activation(model, str(film), reader, NAMES)
    assert chosen.label in NAMES and chosen.probabilities.mean() >= 0.5
    monkeypatch.setattr(cam, "_KEPT_BYTES", 4000)
    anew = class_activation(model, str(film), reader, NAMES)
    np.testing.assert_array_equal(anew.maps, chosen.maps)
    assert anew.label == chosen.label
    write_activation_video(tmp_path / "cam.mp4", found, kvideo.data.decode.open_video)
    with av.open(str(tmp_path / "cam.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == FRAMES
    scale = frames[0].shape[0] / HEIGHT
    corner = frames[2][int(18 * scale) : int(22 * scale), int(50 * scale) : int(54 * scale)]
    plain = frames[2][int(18 * scale) : int(22 * scale), int(20 * scale) : int(24 * scale)]
    assert corner[..., 1].mean() > 60  # the colours of heat over pure red
    assert abs(plain.mean() - 128) < 40


def test_padding_at_the_ends_of_clips_does_not_show(tmp_path: Path) -> None:
    clip = keras.Input((4, 32, 32, 3), name="clip")
    x = keras.layers.Conv3D(1, (3, 1, 1), padding="same", name="feature_map")(clip)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    x = keras.layers.Dense(2, name="logits")(x)
    model = keras.Model(clip, keras.layers.Activation("softmax", name="predictions")(x))
    kernel = np.zeros((3, 1, 1, 3, 1))
    kernel[0] = 1 / 3  # sees the frame before
    model.get_layer("feature_map").set_weights([kernel, np.zeros(1)])
    model.get_layer("logits").set_weights([np.array([[0.0, 1.0]]), np.zeros(2)])
    even = write_video(tmp_path / "even.mp4", np.full((40, 32, 32, 3), 90, np.uint8), RATE)
    found = class_activation(model, str(even), clip_reader(SPEC), NAMES, label=1)
    assert found.maps[:, 0].max() == 0 and found.maps[:, 1:].min() > 0.99
    times, strength, _ = found.curve()
    inside = (times > 0.2) & (times < 3.7)
    assert inside.sum() >= 34
    np.testing.assert_allclose(strength[inside], strength[inside].mean(), rtol=0.01)


def test_large_pictures_are_shrunk_and_what_is_not_seen_is_dark(model_file, tmp_path) -> None:
    frames = np.full((8, 402, 1204, 3), 128, np.uint8)
    frames[:, :200, :200] = (230, 20, 20)
    write_video(tmp_path / "wide.mp4", frames, RATE)
    cropped = ClipSpec(4, 10.0, (32, 32), framing="crop")  # sees a third of the picture's middle
    found = class_activation(
        colour_model(), str(tmp_path / "wide.mp4"), clip_reader(cropped), NAMES, label=1
    )
    write_activation_video(tmp_path / "cam.mp4", found, kvideo.data.decode.open_video)
    with kvideo.data.decode.open_video(tmp_path / "cam.mp4") as reader:
        assert (reader.info.height, reader.info.width) == (214, 640)
        (picture,) = reader.read([0.2])
    assert abs(picture[150, 20].mean() - 0.45 * 128) < 8
    assert picture[150, 320].mean() > 80


def test_a_class_in_a_script_without_letters_here_has_its_number(film, tmp_path) -> None:
    names = ("blue", "走る <b>")
    found = class_activation(colour_model(), str(film), clip_reader(SPEC), names, label=1)
    assert found.label == names[1] and found.number == 1
    page = map_html([Placed("a.mp4", 1, 0.5, 0.5, None)], names, title="t", note="n")
    assert "走る &lt;b&gt; <span>1</span>" in page and "class 1" not in page


def test_what_a_crop_does_not_show_is_unknown() -> None:
    from kvideo.data.sampling import view_windows

    spec = ClipSpec(4, 10.0, (32, 32))
    window = view_windows((HEIGHT, WIDTH), spec, 1)[0]
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    picture = over_picture(heat, window, spec.size, (HEIGHT, WIDTH))
    assert np.isnan(picture[:, 0]).all() and np.isnan(picture[:, -1]).all()
    row, column = np.unravel_index(np.nanargmax(picture), picture.shape)
    known = np.flatnonzero(~np.isnan(picture[row]))
    assert known[0] > 5 and row < HEIGHT / 2 and known.mean() < column <= known[-1]


def test_filters_are_shown_as_they_are() -> None:
    (found,) = first_filters(kvideo.models.slow_fusion(3))
    assert found.layer == "conv1" and found.kernels.shape == (12, 3, 3, 3, 3)
    (red,) = first_filters(colour_model())
    clips = red.clips()
    assert clips[1, 0, 0, 0].tolist() == [255, 0, 0] and clips[0, 0, 0, 0].tolist() == [0, 0, 255]
    assert (
        red.sheet().ndim == 3
        and cv2.imdecode(np.frombuffer(red.png(), np.uint8), cv2.IMREAD_COLOR).shape
        == red.sheet().shape
    )
    assert red.gif()[:3] == b"GIF" and len(red.film()) == 1


def test_early_fusion_shows_its_frames_and_flow_its_colours() -> None:
    model = kvideo.models.early_fusion(3)
    (found,) = first_filters(model)
    assert found.kernels.shape == (12, 20, 3, 3, 3)
    kernel = model.get_layer("conv1").kernel.numpy()  # (3, 3, 20 * 3, 12)
    np.testing.assert_array_equal(found.kernels[5, 7, 1, 2], kernel[1, 2, 21:24, 5])
    both = {each.layer.split("_")[0]: each for each in first_filters(kvideo.models.two_stream(3))}
    spatial, temporal = both["spatial"], both["temporal"]
    assert spatial.kernels.shape[1:] == (1, 3, 3, 3) and temporal.kernels.shape[1:] == (10, 3, 3, 2)
    assert temporal.clips().shape == (12, 10, 3, 3, 3)
    slow, fast = first_filters(kvideo.models.slowfast(3, input_shape=(32, 64, 64, 3)))
    assert {slow.kernels.shape[1], fast.kernels.shape[1]} == {1, 5}
    with pytest.raises(UnknownNameError, match="these are"):
        first_filters(model, "conv2")
    vector = keras.Input((4, 8, 8, 3))
    plain = keras.Model(vector, keras.layers.GlobalAveragePooling3D()(vector))
    with pytest.raises(UsageError, match="no convolution that sees the clip"):
        first_filters(plain)


def test_maximizing_finds_the_colour_and_repeats() -> None:
    how = MaximizeSettings(steps=30, jitter=1, seed=3)
    found = maximize(colour_model(), 1, settings=how)
    assert found.after > found.before + 10
    mean = found.clip.mean(axis=(0, 1, 2))
    assert mean[0] > mean[1] + 20 and mean[0] > mean[2] + 20  # red
    again = maximize(colour_model(), 1, settings=how)
    np.testing.assert_allclose(found.clip, again.clip, atol=1e-2)
    assert found.pictures()["rgb"].shape == (4, 32, 32, 3)
    unit = maximize(colour_model(), 0, "colours", MaximizeSettings(steps=20))
    assert unit.clip.mean(axis=(0, 1, 2)).argmax() == 2  # blue
    with pytest.raises(UsageError, match="units 0 to 1"):
        maximize(colour_model(), 2)


def test_slow_and_fast() -> None:
    """The penalty on changes makes the clip of a model of pictures and flow stand still."""
    model = kvideo.models.two_stream(3, input_shape=(4, 32, 32, 5))
    clips = [
        maximize(model, 0, settings=MaximizeSettings(steps=15, temporal_smoothness=weight)).clip
        for weight in (0.0, 100.0)
    ]
    fast, slow = (np.abs(np.diff(clip, axis=0)).mean() for clip in clips)
    assert slow < 0.5 * fast
    assert clips[0].shape == (4, 32, 32, 5) and np.abs(clips[0][..., 3:]).max() <= 10


def test_flow_is_smooth_and_of_finite_length_and_unseen_frames_are_left_out() -> None:
    """A model that likes motion to the left, and one frame of five: the brighter, the better."""
    clip = keras.Input((5, 16, 16, 5), name="clip")
    kernel = np.zeros((5, 1, 1, 5, 1), np.float32)
    kernel[:, 0, 0, 3, 0] = -0.2  # dx, in all frames
    kernel[2, 0, 0, :3, 0] = 0.01
    layer = keras.layers.Conv3D(1, (5, 1, 1), use_bias=False, name="logits")
    model = keras.Model(clip, layer(clip))
    layer.set_weights([kernel])
    found = maximize(model, 0, settings=MaximizeSettings(steps=60, scales=2))
    flow = found.clip[..., 3:]
    assert -9 < flow[..., 0].mean() < -0.5 and abs(flow[..., 1].mean()) < 0.3
    assert np.abs(np.diff(flow[..., 0], axis=1)).mean() < 0.1 * np.abs(flow[..., 0]).mean()
    assert found.seen.tolist() == [[n == 2] * 3 + [True, False] for n in range(5)]
    pictures = found.pictures()
    assert pictures["rgb"].shape == (1, 16, 16, 3) and pictures["flow"].shape == (5, 16, 16, 3)


def test_attention_is_the_blocks_own() -> None:
    model = colour_model(attention=True)
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    found = attention_of(model, clip, (0.5, 0.0, 1.0))
    assert found.layer == "look" and found.position == (2, 0, 7) and found.map_shape == (4, 8, 8)
    before = keras.Model(model.input, model.get_layer("feature_map").output)
    rows = model.get_layer("look").attention(before(clip[None]))[0]
    row = np.asarray(rows[2 * 64 + 7]).reshape(4, 8, 8)
    np.testing.assert_allclose(found.weights, row / row.max(), rtol=1e-5)
    picture = attention_picture(found, clip)
    assert picture.dtype == np.uint8 and picture.shape[0] > 2 * 160
    with pytest.raises(UnknownNameError, match="it has look"):
        attention_of(model, clip, (0, 0, 0), "colours")
    with pytest.raises(UsageError, match="no non-local block"):
        attention_of(colour_model(), clip, (0, 0, 0))


def test_what_is_lost_when_clips_are_moved(film: Path) -> None:
    """Red comes first: only clips that begin early show it."""
    videos = VideoSet((VideoRecord(str(film), (1,)),) * 2, NAMES)
    test = shift_test(colour_model(), "colour", videos, clip_reader(SPEC), range(-8, 9, 4))
    assert test.shifts.tolist() == [-8, -4, 0, 4, 8] and test.num_videos == 2
    assert test.accuracy.tolist()[:2] == [1, 1] and test.accuracy.tolist()[3:] == [0, 0]
    assert shift_png([test])[:4] == b"\x89PNG"


def test_what_is_alike_lies_together() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 10, (3, 20))
    labels = np.repeat(np.arange(3), 12)
    places = coordinates(centres[labels] + rng.normal(0, 0.3, (36, 20)))
    assert places.shape == (36, 2) and places.min() == 0 and places.max() == 1
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + 9 * np.eye(36)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    assert coordinates(rng.normal(size=(2, 5))).shape == (2, 2)  # too few for t-SNE
    assert coordinates(np.ones((1, 5))).tolist() == [[0, 0]]
    with pytest.raises(DataError, match="at least one video"):
        coordinates(np.zeros((0, 5)))


def test_the_map_is_a_page(model_file: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (20, 20, 230)), ("red <&>", (230, 20, 20))):
        for number in range(4):
            frames = np.full((8, HEIGHT, WIDTH, 3), 100, np.uint8)
            frames[:, : rng.integers(8, 32)] = colour
            write_video(tmp_path / "videos" / name / f"{number}.mp4", frames, RATE)
    out = tmp_path / "map.html"
    code, _, errors = invoke("embed", model_file, tmp_path / "videos", "-o", out)
    assert code == 0, errors
    page = ElementTree.fromstring(
        out.read_text().replace("<!doctype html>", "").replace('<meta charset="utf-8">', "")
        .replace('initial-scale=1">', 'initial-scale=1"/>').replace("inline'\">", "inline'\"/>")
    )  # fmt: skip
    svg = page.find(".//svg")
    assert len(svg.findall(".//image")) == 8 and len(svg.findall(".//rect")) == 8
    titles = [title.text for title in svg.findall(".//title")]
    assert sum(title.startswith("red <&>: ") for title in titles) == 4
    assert "http" not in out.read_text().replace("http-equiv", "")
    code, _, errors = invoke("embed", model_file, tmp_path / "videos", "-o", "map.pdf")
    assert code != 0 and "written as .html" in errors


def test_commands(film: Path, model_file: Path, tmp_path: Path) -> None:
    code, said, errors = invoke(
        "cam", model_file, film, "--class", "red", "-o", tmp_path / "c.mp4", "--timeline",
        tmp_path / "c.png", "--json",
    )  # fmt: skip
    assert code == 0, errors
    assert json.loads(said)["class"] == "red" and (tmp_path / "c.mp4").exists()
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    code, _, errors = invoke("filters", model_file, "--out-dir", tmp_path / "f")
    assert code == 0 and sorted(p.name for p in (tmp_path / "f").iterdir()) == [
        "colours.gif", "colours.png",
    ]  # fmt: skip
    stem = tmp_path / "red"
    code, said, _ = invoke("maximize", model_file, "--class", "red", "--steps", "5", "-o", stem)
    assert code == 0 and "red: activation" in said
    with av.open(f"{stem}.mp4") as file:
        assert sum(1 for _ in file.decode(video=0)) == 4
    out = tmp_path / "a.png"
    assert invoke("attention", model_file, film, "--point", "0,0.5,0.9", "-o", out)[0] == 0
    assert out.exists()
    (tmp_path / "list.csv").write_text(f"{film} red\n")
    code, said, errors = invoke(
        "shift", tmp_path / "list.csv", model_file, "--most", "2", "-o", tmp_path / "s.png"
    )
    assert code == 0 and "unmoved" in said, errors
    # What comes first differs; a model in the place of the data is told.
    code, _, errors = invoke("shift", model_file, tmp_path / "list.csv")
    assert code != 0 and "DATA comes first" in errors
    for command, first in (("embed", tmp_path / "list.csv"), ("cam", film), ("attention", film)):
        code, _, errors = invoke(command, first, model_file)
        assert code != 0 and "MODEL comes first" in errors
    code, _, errors = invoke("filters", "slow_fusion")
    assert code != 0 and "what is needed is one that was trained" in errors


def test_a_model_without_maps_is_told_so(film, tmp_path, monkeypatch) -> None:
    clip = keras.Input((4, 32, 32, 3), name="clip")
    x = keras.layers.Flatten(name="features")(clip)
    x = keras.layers.Dense(2, name="logits")(x)
    model = keras.Model(clip, keras.layers.Softmax(name="predictions")(x), name="flat")
    save_model(model, tmp_path / "flat.keras", ModelInfo(SPEC, NAMES))
    monkeypatch.chdir(tmp_path)
    for command in (["cam", "flat.keras", film], ["filters", "flat.keras"]):
        code, _, errors = invoke(*command)
        assert code != 0 and "convolution" in errors and "Did you mean" not in errors


def test_maximize_takes_a_files_name_for_its_stem(model_file, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = invoke(
        "maximize", model_file, "--class", "red", "--steps", 1, "-o", "red.mp4"
    )
    assert code == 0, errors
    assert {path.name for path in tmp_path.iterdir()} == {"red.mp4", "red.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cam", "{model}", "{film}", "--class", "rad"], 'Did you mean "red"'),
        (["cam", "{model}", "{film}", "--layer", "feature_mop"], 'Did you mean "feature_map"'),
        (["cam", "{model}", "{film}", "--layer", "features"], "has no maps"),
        (["cam", "{model}", "{film}", "-o", "x.avi"], "written as .mp4"),
        (["cam", "{model}", "{film}", "-o", "{film}"], "is the video itself"),
        (["cam", "{model}", "nothing.mp4"], "nothing.mp4"),
        (["maximize", "{model}"], "--class NAME or --unit"),
        (["maximize", "{model}", "--class", "red", "--unit", "colours:1"], "not both"),
        (["maximize", "{model}", "--unit", "colours"], "LAYER:NUMBER"),
        (["maximize", "{model}", "--unit", "colours:9"], "units 0 to 1"),
        (["maximize", "{model}", "--class", "red", "--steps", "0"], "steps must be at least 1"),
        (["attention", "{model}", "{film}", "--point", "1,2"], "the point is T,Y,X"),
        (["attention", "{model}", "{film}", "--point", "1,2,3"], "shares of the clip"),
        (["attention", "{model}", "{film}", "--at", "99"], "has no moment 99 s"),
        (["filters", "{model}", "--layer", "logits"], "these are"),
        (["shift", "{film}", "{model}", "-o", "x.pdf"], "written as .png"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(film, model_file, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [each.format(film=film, model=model_file) for each in arguments]
    code, _, errors = invoke(*given)
    assert code != 0 and message in errors, errors
    assert not list(tmp_path.iterdir())
