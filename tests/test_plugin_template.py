"""`kvideo plugin new`: what it writes works and passes its own tests."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvideo.cli import cli
from kvideo.errors import UsageError
from kvideo.plugin_template import new_plugin


def installed(folder: Path, site: Path) -> None:
    """What an editable installation leaves: metadata with the entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_a_new_plugin_passes_its_tests(tmp_path: Path) -> None:
    folder = tmp_path / "kvideo-tiny-net"
    result = CliRunner().invoke(cli, ["plugin", "new", "tiny-net", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    installed(folder, tmp_path / "site")
    paths = [str(folder), str(tmp_path / "site"), str(Path(__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=environment, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    listed = subprocess.run(
        [sys.executable, "-c", "from kvideo.cli import main; main()", "models"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "tiny_net" in listed.stdout and "kvideo-tiny-net 0.1.0" in listed.stdout
    texts = [path.read_text("utf-8") for path in folder.rglob("*.*") if path.suffix != ".pyc"]
    assert len(texts) >= 5 and not any("{{" in text for text in texts)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Tiny", "small letters"), ("2net", "small letters"), ("class", "small letters"),
        ("a b", "small letters"), ("slow-fusion", 'has a model "slow_fusion"'),
    ],
)  # fmt: skip
def test_names_that_are_none(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        new_plugin(name, tmp_path / "plugin")
    assert not (tmp_path / "plugin").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        new_plugin("tiny", tmp_path / "mine")
    with pytest.raises(UsageError, match="there is no folder"):
        new_plugin("tiny", tmp_path / "none" / "mine")
