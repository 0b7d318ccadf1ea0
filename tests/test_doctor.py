"""`kvideo doctor`: a broken plugin is a line of the report, and harms nothing else."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvideo.cli import cli
from kvideo.doctor import examine, report_text
from kvideo.errors import PluginLoadError
from kvideo.registry import DECODERS, MODELS, find


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch) -> None:
    """One that raises, one that needs a package, one that claims a built-in's name."""
    folder = tmp_path / "shaky-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[kvideo.models]\nraises = shaky_raises:build\nslow_fusion = shaky_raises:build\n"
        "[kvideo.decoders]\nlacking = shaky_lacking:open_video\ngone = shaky_gone:open_video\n"
    )
    (tmp_path / "shaky_raises.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "shaky_lacking.py").write_text("import no_such_package.part\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_healthy_installation() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    found = json.loads(result.stdout)
    by_name = {each["name"]: each["value"] for each in found["findings"]}
    assert {"kvideo", "tensorflow", "keras", "av", "processors", "memory", "GPUs"} <= set(by_name)
    assert by_name["--precision auto"].split(":")[0] in ("float32", "bfloat16", "float16")
    assert "works" in by_name["  pyav"] and "h264" in by_name["decodes"]
    assert result.exit_code == (1 if found["problems"] else 0)


def test_broken_plugins_are_named(plugins) -> None:
    findings = examine()
    wrong = {each.name.strip(): each.value for each in findings if each.problem}
    assert "RuntimeError: not today" in wrong["raises"] and "shaky 1.0" in wrong["raises"]
    assert "pip install no_such_package" in wrong["lacking"]
    assert "Install shaky anew" in wrong["gone"]
    assert 'offers "slow_fusion"' in wrong[MODELS]
    text = report_text(findings)
    assert "marked with !" in text and "! " in text
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1 and "not today" in result.stdout


def test_what_a_plugin_needs_is_said_where_it_is_asked_for(plugins) -> None:
    with pytest.raises(PluginLoadError, match="needs the package no_such_package: pip install"):
        find(DECODERS, "lacking").load()
