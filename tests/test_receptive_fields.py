"""Receptive fields: those of the lecture, and those that gradients show."""

import csv
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import kvideo
from kvideo.analysis import receptive_fields, register_layer, summarize
from kvideo.analysis.fields import AXES
from kvideo.cli import cli
from kvideo.clip_spec import Views, recommended_clip
from kvideo.errors import UsageError
from kvideo.layers import ConvGRU2D
from kvideo.registry import get_builder

# Smaller clips than the models are made for, so that windows end inside of them.
CASES = {
    "single_frame": {"input_shape": (1, 64, 64, 3)},
    "late_fusion": {},
    "early_fusion": {},
    "slow_fusion": {},
    "c3d": {"input_shape": (16, 112, 112, 3)},
    "i3d": {"input_shape": (32, 64, 64, 3), "width_multiplier": 0.125},
    "s3d": {"input_shape": (32, 64, 64, 3), "width_multiplier": 0.125},
    "slow": {"input_shape": (4, 64, 64, 3)},
    "slowfast": {"input_shape": (32, 64, 64, 3)},
    "r2plus1d_18": {"input_shape": (8, 64, 64, 3)},
    "mc3_18": {"input_shape": (8, 64, 64, 3)},
    "two_stream": {},
    "cnn3d_rnn": {},
    "cnn_rnn": {"input_shape": (5, 48, 48, 3)},
    "recurrent_conv": {"input_shape": (5, 48, 48, 3)},
    "inflated": {"input_shape": (4, 64, 64, 3)},
}


def positive(model: keras.Model) -> keras.Model:
    """The model with positive weights and means for maxima: every path then has a gradient."""

    def clone(layer):
        if isinstance(layer, keras.layers.MaxPooling3D | keras.layers.MaxPooling2D):
            name = type(layer).__name__.replace("Max", "Average")
            return getattr(keras.layers, name).from_config(layer.get_config())
        return layer.__class__.from_config(layer.get_config())

    cloned = keras.models.clone_model(model, clone_function=clone)
    rng = np.random.default_rng(0)
    for variable in cloned.weights:
        if variable.path.endswith(("kernel", "depthwise_kernel", "gamma", "variance")):
            inputs = int(np.prod(variable.shape[:-1])) or 1
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) / inputs)
    return cloned


def seen(model: keras.Model, name: str, place: tuple[int, ...], shape) -> dict[str, list[int]]:
    """First and last index of the clip, by axis, on which one value of a layer depends."""
    part = keras.Model(model.input, model.get_layer(name).output)
    rng = np.random.default_rng(1)
    values = rng.uniform(200, 250, (1, *shape))
    values[..., 3:] /= 500  # flow of less than a pixel a frame
    clip = tf.constant(values, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(clip)
        value = tf.reduce_sum(tf.cast(part(clip, training=False), tf.float32)[(0, *place)])
    gradient = np.abs(tape.gradient(value, clip).numpy()[0]).max(axis=-1)  # (T, H, W)
    found = {}
    for axis, number in zip(AXES, range(3), strict=True):
        others = tuple(n for n in range(3) if n != number)
        there = np.flatnonzero(gradient.max(axis=others) > 0)
        found[axis] = [int(there[0]), int(there[-1])]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_they_are_what_gradients_show(name: str) -> None:
    model = get_builder(name)(3, **CASES[name])
    shape = model.input_shape[1:]
    fields = receptive_fields(model)
    assert None not in fields.values()
    recurrent = "rnn" in name or name == "recurrent_conv"
    plain = model if recurrent else positive(model)
    layer = "feature_map"
    field, sizes = fields[layer], dict(zip(AXES, shape, strict=False))
    counts = model.get_layer(layer).output.shape[1:-1]
    assert field.positions == AXES and [len(field.spans[axis]) for axis in AXES] == list(counts)
    for share in (1.0,) if recurrent else (0.0, 0.5, 1.0):  # states reach further with each step
        place = tuple(round(share * (count - 1)) for count in counts)
        found = seen(plain, layer, place, shape)
        for axis, index in zip(AXES, place, strict=True):
            span = field.spans[axis]
            expected = [max(0, int(span.low[index])), min(sizes[axis] - 1, int(span.high[index]))]
            assert found[axis] == expected, (name, place, axis)


def test_the_lectures_table() -> None:
    """Slow fusion: 3×3×3, 6×6×6, 14×14×14, 20×64×64, and the sizes of the maps."""
    summary = summarize(kvideo.models.slow_fusion(6))
    rows = [(row.output_shape[1:], row.field.size) for row in summary.main_layers][:4]
    assert rows == [
        ((20, 64, 64, 12), (3, 3, 3)),
        ((5, 16, 16, 12), (6, 6, 6)),
        ((5, 16, 16, 24), (14, 14, 14)),
        ((24,), (20, 64, 64)),
    ]
    assert summary.main_layers[3].field.note == "everything"
    late = summarize(kvideo.models.late_fusion(6))
    assert [row.field.size[0] for row in late.main_layers] == [1, 1, 1, 20, 20]
    early = summarize(kvideo.models.early_fusion(6))
    assert {row.field.size[0] for row in early.main_layers} == {20}


def test_recurrence_and_attention() -> None:
    model = kvideo.models.cnn_rnn(3, input_shape=(6, 32, 32, 3), output="frames")
    last = summarize(model).layers[-1].field
    assert last.size[0] == 6 and last.kinds[0] == "past" and last.note == "all of the past"
    clip = keras.Input((4, 9, 9, 3))
    # The last state: its own 3×3, and for each step before one more on each side; two where the
    # candidate sees the state through a gate that sees the state.
    for reset_after, side in ((True, 9), (False, 15)):
        layer = ConvGRU2D(2, 3, return_sequences=True, reset_after=reset_after)
        assert summarize(keras.Model(clip, layer(clip))).layers[-1].field.size == (4, side, side)
    block = get_builder("c2d")(3, input_shape=(4, 64, 64, 3), nonlocal_blocks=5)
    rows = summarize(block).layers
    fields = {row.name: row.field for row in rows}
    assert fields["feature_map"].note == "everything"
    first = next(i for i, row in enumerate(rows) if row.kind == "NonLocalBlock3D")
    assert max(field.size for field in fields.values()) == (4, 64, 64)
    assert {row.field.note for row in rows[first:]} == {"everything"}  # also of convolutions


def test_windows_of_a_clip_are_not_everything() -> None:
    """A mean over a window of 8 frames of 32 sees whole frames, but not all of them."""
    rows = {row.name: row.field for row in summarize(kvideo.models.cnn3d_rnn(3)).layers}
    assert rows["window_mean"].size == (8, 64, 64) and rows["window_mean"].note == "whole frames"
    assert rows["rnn1"].note == "all of the past"


class Strange(keras.layers.Layer):
    """A layer of nobody's, that looks one frame ahead."""

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


class Told(Strange):
    """The same, with a method that says so."""

    def receptive_field(self, fields, input_shape, output_shape):
        return fields[0].with_spans(T=fields[0].spans["T"].grown(0, 1))


def test_layers_of_others() -> None:
    clip = keras.Input((4, 8, 8, 3))
    unknown = summarize(keras.Model(clip, keras.layers.Conv3D(2, 3)(Strange(name="odd")(clip))))
    assert "receptive field of odd (Strange) is not known" in unknown.unknown[0]
    assert unknown.layers[-1].field is None and unknown.macs and "?" in unknown.to_text()
    known = summarize(keras.Model(clip, keras.layers.Conv3D(2, 3)(Told()(clip))))
    assert known.layers[-1].field.size == (4, 3, 3) and not known.unknown


def test_layers_of_others_that_are_registered() -> None:
    class Ahead(Strange):
        """Another package's: it cannot have our methods."""

    def field(layer, fields, given, got):
        return fields[0].with_spans(T=fields[0].spans["T"].grown(0, 1))

    register_layer(Ahead, receptive_field=field, macs=lambda layer, given, got: 5)
    clip = keras.Input((4, 8, 8, 3))
    known = summarize(keras.Model(clip, Ahead()(clip)))
    assert known.layers[-1].field.size == (2, 1, 1) and known.macs == 5 and not known.unknown
    with pytest.raises(UsageError, match="takes a class"):
        register_layer(Ahead(), macs=lambda layer, given, got: 5)
    with pytest.raises(UsageError, match="knows layers of the class Conv3D by itself"):
        register_layer(keras.layers.Conv3D, receptive_field=field)


def test_what_it_is_written_as() -> None:
    model = kvideo.models.slow_fusion(6)
    clip = recommended_clip(get_builder("slow_fusion"))
    summary = summarize(model, clip=clip, views=Views(10, 3))
    document = summary.to_json()
    assert document["parameters"] == 8970 and document["macs_of_all_views"] == 30 * document["macs"]
    rows = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert len(rows) == len(summary.layers) and rows[-1]["field_h"] == "64"
    by_name = {row["layer"]: row for row in rows}
    assert by_name["conv1"]["offset_t"] == "-1" and float(by_name["conv1"]["seconds"]) > 0
    assert "| conv1 | Conv3D |" in summary.to_markdown()
    assert "10 clips × 3 crops" in summary.to_text()
    assert len(summary.to_text().splitlines()) < len(summary.to_text(all_layers=True).splitlines())


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("slow_fusion", [], {}),
        ("late_fusion", [], {}),
        ("inflated", ["--input-shape", "4x64x64"], {"input_shape": (4, 64, 64, 3)}),
        ("slow_fusion", ["--set", "widths=[4,6]"], {"options": {"widths": [4, 6]}}),
    ],
)
def test_the_command_says_what_python_says(name, arguments, options) -> None:
    """It builds kvideo's own models without values for their weights."""
    result = CliRunner().invoke(cli, ["summary", name, *arguments, "--json"])
    assert result.exit_code == 0, result.output
    expected = kvideo.summary(name, **options).to_json()
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))


def test_models_that_are_none_of_clips() -> None:
    picture = keras.Input((8, 8, 3))
    with pytest.raises(UsageError, match="takes no clips"):
        summarize(keras.Model(picture, keras.layers.Conv2D(2, 3)(picture)))
    with pytest.raises(UsageError, match="no fixed size"):
        clip = keras.Input((None, 8, 8, 3))
        summarize(keras.Model(clip, keras.layers.Conv3D(2, 3)(clip)))
