"""`kvideo compare`: several models under one recipe."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import kvideo
from kvideo.cli import cli
from kvideo.cli.compare import _names
from kvideo.comparison import parse_model
from kvideo.errors import UnknownNameError, UsageError

NARROW = {"widths": [4, 6]}
SETTINGS = {"size": (16, 16), "num_frames": 4, "epochs": 1, "batch_size": 4, "flip": "off"}
MODELS = ["single_frame", "two_stream:stream=temporal"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))


def compare(data: Path, out: Path, models=MODELS, **changes):
    settings = {**SETTINGS, "model_options": NARROW, **changes}
    return kvideo.compare(data, models, out=out, verbose=False, **settings)


def test_a_table_and_a_picture(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    result = compare(tiny_videos, tmp_path / "out", num_clips=2)
    assert [model.name for model in result.models] == MODELS and result.figure == "top1"
    for model in result.models:
        alone = kvideo.evaluate(model.folder, tiny_videos, num_clips=2, verbose=False)
        assert model.num_videos == 2 and 0 <= model.low <= model.score <= model.high <= 1
        assert model.parameters < 2000 and model.macs > 0 and model.clips_per_second > 0
        assert len(alone.class_names) == 2 and model.fit_seconds > 0
    assert kvideo.model_info(result.models[1].folder).clip_spec.modality == "flow"
    rows = list(csv.DictReader(open(tmp_path / "out" / "comparison.csv")))
    assert [row["name"] for row in rows] == MODELS
    assert float(rows[0]["score"]) == result.models[0].score
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert document == result.to_json()
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    # What is done is not done again.
    monkeypatch.setattr("kvideo.training.run", lambda *a, **k: pytest.fail("trained again"))
    assert compare(tiny_videos, tmp_path / "out", num_clips=2) == result
    with pytest.raises(UsageError, match="holds a run with other settings"):
        compare(tiny_videos, tmp_path / "out", num_clips=2, epochs=2)


def test_an_interrupted_comparison_goes_on(tiny_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare(tiny_videos, out, MODELS[:1])
    (out / "single_frame" / "compared.json").unlink()
    (out / "single_frame" / "evaluation.json").unlink()
    resumed = compare(tiny_videos, out, MODELS[:1])
    assert resumed.models[0].fit_seconds is None and resumed.models[0].score is not None


def test_a_model_that_fails_is_named_and_the_others_go_on(tiny_videos, tmp_path) -> None:
    broken = tmp_path / "broken"
    for name in ("left", "right"):
        (broken / name).mkdir(parents=True)
        (broken / name / "0.mp4").write_bytes(b"no video")
        (broken / name / "1.mp4").write_bytes(b"no video, either")
    result = compare(tiny_videos, tmp_path / "out", MODELS[:1], test=broken)
    assert result.models[0].score is None and "gave a result" in result.models[0].error
    names = "single_frame,slow_fusion:widths=3"  # the second one cannot be built
    arguments = ["compare", str(tiny_videos), "-m", names, "-o", str(tmp_path / "cli")]
    arguments += ["--size", "16", "-e", "1", "-b", "4", "--test", str(broken)]
    failed = CliRunner().invoke(cli, arguments)
    assert failed.exit_code == 1 and "single_frame" in failed.output
    rows = [line for line in failed.output.splitlines() if line.endswith("  failed")]
    assert len(rows) == 2 and "widths" in failed.output


def test_the_command(tiny_videos: Path, tmp_path: Path) -> None:
    arguments = ["compare", str(tiny_videos), "-m", "single_frame", "-o", str(tmp_path / "out")]
    arguments += ["--size", "16", "-e", "1", "-b", "4", "--set", "widths=[4,6]", "--clips", "1"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "top-1 accuracy" in result.stdout and "single_frame" in result.stdout
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert document["models"][0]["num_videos"] == 2


def test_wrong_use(tiny_videos: Path, tmp_path: Path) -> None:
    assert parse_model("a:b=1:c=[2,3]:d=x") == ("a", {"b": 1, "c": [2, 3], "d": "x"})
    with pytest.raises(UsageError, match="is not NAME or NAME:ARGUMENT=VALUE"):
        parse_model("a:b")
    assert _names("a:widths=[4,6],b,c:x={1,2}") == ["a:widths=[4,6]", "b", "c:x={1,2}"]
    with pytest.raises(UsageError, match="named twice"):
        compare(tiny_videos, tmp_path / "out", ["c3d", "c3d"])
    with pytest.raises(UsageError, match="name the models"):
        compare(tiny_videos, tmp_path / "out", [" "])
    with pytest.raises(UnknownNameError, match='Did you mean "slow_fusion"'):
        compare(tiny_videos, tmp_path / "out", ["single_frame", "slow_fusoin"])
    with pytest.raises(UsageError, match="nothing to test on"):
        compare(tiny_videos, tmp_path / "out", MODELS[:1], val_fraction=0.0)
    assert not (tmp_path / "out" / "comparison.json").exists()
