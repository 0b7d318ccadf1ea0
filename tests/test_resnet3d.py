"""ResNets for video: tables of the documentation against the networks, options, refusals."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import kvideo
from kvideo.analysis import count_macs, count_parameters, layer_costs
from kvideo.clip_spec import recommended_clip
from kvideo.errors import UsageError
from kvideo.layers import NonLocalBlock3D
from kvideo.layers.frames import SlowFrames, slow_indices
from kvideo.registry import get_builder

PAGE = (Path(__file__).parent.parent / "docs" / "resnet3d.md").read_text()
ROWS = re.findall(
    r"^\| (`.+?`) \| .+? \| (\d+)×224×224 \| ([\d.]+) \| ([\d,]+) \| ([\d.]+) G \|$"
    r"|^\| (`.+?`) \| .+? \| (\d+)×112×112 \| ([\d.]+) \| ([\d,]+) \| ([\d.]+) G \|$",
    PAGE,
    re.M,
)
NAMES = {name: row for row in ROWS for name in re.findall(r"`(\w+)`", row[0] or row[5])}


def test_the_page_lists_all():
    assert len(NAMES) == 14


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_says_of_each_network(name):
    row = [cell for cell in NAMES[name] if cell]
    builder = get_builder(name)
    clip = recommended_clip(builder)
    assert (str(clip.num_frames), float(row[2])) == (row[1], clip.frame_rate)
    model = builder(400)
    assert model.input_shape[1:] == clip.shape
    assert f"{count_parameters(model):,}" == row[3]
    assert round(count_macs(model) / 1e9, 1) == float(row[4])


@pytest.mark.slow
def test_slowfast_at_the_size_of_testing():
    model = kvideo.models.slowfast(400, input_shape=(32, 256, 256, 3))
    assert round(count_macs(model) / 1e9, 2) == 65.71


def stage_outputs(text):
    """The rows of a table of stages: (stage, T×H×W×C, and SlowFast's second one)."""
    rows = re.findall(r"^ *\| (\w+) \|(.+)\|$", text, re.M)
    sizes = [(stage, re.findall(r"\d+×\d+×\d+×\d+", cells)) for stage, cells in rows]
    return [(stage, found) for stage, found in sizes if found]


DOCUMENTED = ["c2d", "i3d_r50", "slow", "slowfast", "r2plus1d", "r3d_18", "mc3_18", "r2plus1d_18"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_table_of_each_docstring(name):
    builder = get_builder(name)
    costs = {cost.name: cost.output_shape[1:] for cost in layer_costs(builder(400))}
    prefixes = ("slow_", "fast_") if name == "slowfast" else ("",)
    table = stage_outputs(builder.__doc__)
    assert len(table) >= 5
    for stage, sizes in table:
        for prefix, size in zip(prefixes, sizes, strict=True):
            ending = "_pool" if stage.endswith("pool") else "_relu"
            layers = [n for n in costs if re.fullmatch(f"{prefix}{stage}(_.*)?", n)]
            last = [n for n in layers if n.endswith(ending) or n == f"{prefix}{stage}"][-1]
            if stage == "stem":
                last = [n for n in layers if n.endswith("_relu")][-1]
            assert "×".join(map(str, costs[last])) == size, (stage, last)


def test_the_page_has_the_docstrings_table_of_slowfast():
    ours = [(s, z) for s, z in stage_outputs(PAGE) if s.startswith(("stem", "res"))]
    assert ours == stage_outputs(kvideo.models.slowfast.__doc__)


@pytest.mark.parametrize(
    ("frames", "alpha", "expected"),
    [
        (32, 4, [0, 4, 8, 13, 17, 22, 26, 31]),
        (32, 8, [0, 10, 20, 31]),
        (16, 8, [0, 15]),
        (3, 3, [0]),
    ],
)
def test_slow_frames_are_those_of_the_published_models(frames, alpha, expected):
    assert slow_indices(frames, alpha) == expected
    clip = np.arange(frames, dtype="float32").reshape(1, frames, 1, 1, 1)
    assert np.ravel(SlowFrames(alpha)(clip)).tolist() == expected


def test_slow_frames_of_all_lengths(shared):
    import json

    folder = shared / "oracles" / "torch"
    known = json.loads((folder / "pathway_indices.json").read_text())["frames/alpha"]
    for key, expected in known.items():
        assert slow_indices(*map(int, key.split("/"))) == expected, key
    mismatches = json.loads((folder / "index.json").read_text())["pathway_mismatches"]
    exact = {
        (frames, alpha)
        for alpha in (2, 4, 8, 16)
        for frames in range(2 * alpha, 257)
        if slow_indices(frames, alpha)
        != [i * (frames - 1) // (frames // alpha - 1) for i in range(frames // alpha)]
    }
    assert exact == {tuple(pair) for pair in mismatches["exact_integer"]}


def tiny(name="slow", **options):
    builder = get_builder(name)
    shape = (8, 32, 32, 3) if name.startswith("slowfast") else (4, 32, 32, 3)
    return builder(5, **{"input_shape": shape, "stem_filters": 8, **options})


def test_feature_map_and_features_of_slowfast():
    model = tiny("slowfast")
    both = keras.Model(
        model.input, [model.get_layer("feature_map").output, model.get_layer("features").output]
    )
    clips = np.random.default_rng(0).uniform(0, 255, (2, 8, 32, 32, 3)).astype("float32")
    feature_map, features = both(clips)
    assert feature_map.shape == (2, 2, 1, 1, 8 * 32 + 32)
    np.testing.assert_allclose(np.mean(feature_map, axis=(1, 2, 3)), features, rtol=1e-5)


def test_head_window_weighs_the_edges_less():
    model = tiny("slow", input_shape=(4, 96, 96, 3), head_window=(4, 2, 2))
    both = keras.Model(
        model.input, [model.get_layer("feature_map").output, model.get_layer("features").output]
    )
    clips = np.random.default_rng(0).uniform(0, 255, (1, 4, 96, 96, 3)).astype("float32")
    feature_map, features = (np.asarray(each) for each in both(clips))
    assert feature_map.shape == (1, 4, 3, 3, 256)
    windows = [
        feature_map[:, :, i : i + 2, j : j + 2].mean((1, 2, 3)) for i in (0, 1) for j in (0, 1)
    ]
    np.testing.assert_allclose(features, np.mean(windows, axis=0), rtol=1e-4, atol=1e-6)


def test_a_residual_network_begins_as_its_shortcuts():
    """With `zero_scale` the last scale of every branch is 0."""
    model = tiny("slow")
    scales = [layer.gamma for layer in model.layers if layer.name.endswith("_c_bn")]
    assert len(scales) == 16 and not np.any([np.abs(scale).max() for scale in scales])
    plain = tiny("slow", zero_scale=False)
    assert all(np.all(layer.gamma == 1) for layer in plain.layers if layer.name.endswith("_c_bn"))


@pytest.mark.parametrize(
    ("blocks", "where"),
    [
        (5, ["res3_1", "res3_3", "res4_1", "res4_3", "res4_5"]),
        (10, [f"res3_{i}" for i in range(4)] + [f"res4_{i}" for i in range(6)]),
        ({4: (2,)}, ["res4_2"]),
    ],
    ids=str,
)
def test_nonlocal_blocks_stand_behind_the_named_blocks(blocks, where):
    model = tiny("i3d_r50", nonlocal_blocks=blocks)
    found = [layer.name for layer in model.layers if isinstance(layer, NonLocalBlock3D)]
    assert found == [f"{name}_nonlocal" for name in where]


def test_drop_path_rises_with_depth():
    rates = [layer.rate for layer in tiny("slow", drop_path=0.3).layers if hasattr(layer, "rate")]
    rates = rates[:-1]  # the last one is dropout's
    assert rates == sorted(rates) and len(rates) == 15 and rates[-1] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("slow", {"depth": 34}, "depth"),
        ("slow", {"stem_filters": 0}, "stem_filters"),
        ("slow", {"nonlocal_blocks": 7}, "nonlocal_blocks"),
        ("slow", {"nonlocal_blocks": {6: (0,)}}, "stages 2 to 5"),
        ("slow", {"nonlocal_blocks": {3: (4,)}}, "blocks 0 to 3"),
        ("slow", {"drop_path": 1.0}, "drop_path"),
        ("slow", {"head_window": (2, 2)}, "head_window"),
        ("slow", {"weights": "no_such.pyth"}, "no weights file"),
        ("slow", {"weights": "nonsense"}, "weights must be"),
        ("slowfast", {"input_shape": (30, 32, 32, 3)}, r"multiple of alpha \(4\)"),
        ("slowfast", {"alpha": 0}, "alpha"),
        ("slowfast", {"beta_inv": 3}, "multiple of beta_inv"),
        ("r3d_18", {"input_shape": (16, 32, 32, 1)}, "3 channels"),
    ],
    ids=str,
)
def test_refusals(name, options, named):
    with pytest.raises(UsageError, match=named):
        tiny(name, **options)
