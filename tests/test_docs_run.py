"""The blocks of the documentation run, page by page and at small sizes, in a folder like a user's.

What a page says after "Error:" is what the command says. Output of other commands is not compared:
it holds figures of other machines and of longer training.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from code_blocks import CodeBlock, Command, blocks
from conftest import ROOT
from docs_workspace import add_checkpoints, make_workspace, small_demos

from kvideo.cli import cli

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_WIDE = r"slow|slowfast\w*|slow_\d\w+|c2d|i3d_r50|r2plus1d\w*|r3d_18|mc3_18"

# Options that make a command small; click takes the last of several values.
SMALL = {
    "fit": "--epochs 1 --frames 4 --size 32 -b 4 --val-clips 1 --tensorboard none"
    " --precision float32 --overwrite",
    "compare": "--epochs 1 --frames 4 --size 32 -b 4 --val-clips 1 --clips 1 --precision float32"
    " --overwrite",
    "evaluate": "--clips 1 --crops 1",
    "predict": "--clips 1 --crops 1",
    "features": "--clips 1 --crops 1",
    "fuse": "--clips 1 --overwrite",
    "export": "--overwrite",
    "localize fit": "-e 1 --filters 8 --overwrite",
    "detect fit": "-e 1 --frames 4 --size 32 -b 4 --filters 8 --tensorboard none"
    " --precision float32 --overwrite",
    "benchmark model": "--repeats 1 --only inference",
    "benchmark loader": "--seconds 0.1 --workers 2 --frames 4 --size 32",
    "visualize maximize": "--steps 2",
}

LARGE_BACKBONE = "efficientnet_lite0"  # tens of seconds; other tests train it


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """The files of `docs_workspace`, made once."""
    top = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVIDEO_CACHE", str(top / "cache"))
        small_demos(patch)
        make_workspace(top / "work")
    return top


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of these files, as the working folder."""
    small_demos(monkeypatch)
    monkeypatch.setenv("KVIDEO_CACHE", str(prepared / "cache"))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    shutil.copytree(prepared / "work", tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def smaller(arguments: list[str], options: str) -> list[str]:
    """The arguments of `kvideo`, with what makes it small."""
    if "--" in arguments:  # launch
        place = arguments.index("--") + 1
        return arguments[:place] + smaller(arguments[place:], options)
    if "--resume" in arguments or "--help" in arguments:
        return arguments
    name = next((key for key in SMALL if shlex.split(key) == arguments[: key.count(" ") + 1]), "")
    if {"--stride", "--timeline", "--stream"} & set(arguments):  # no clips of their own
        name = ""
    added = shlex.split(f"{SMALL.get(name, '')} {options}")
    models = [b for a, b in zip(arguments, arguments[1:], strict=False) if a in ("-m", "--model")]
    if name in ("fit", "detect fit") and re.fullmatch(_WIDE, models[0] if models else ""):
        added += ["--set", f"stem_filters={8 if 'slowfast' in models[0] else 4}"]
    return [*_with_small_backbone(arguments), *added]


def _with_small_backbone(arguments: list[str]) -> list[str]:
    """Without the options that name EfficientNet: the default backbone is a small one."""
    if f"backbone={LARGE_BACKBONE}" not in arguments or "frozen_backbone=true" in arguments:
        return arguments
    kept, pairs = [], iter(arguments)
    for word in pairs:
        option = word in ("--set", "-w", "--weights")
        value = next(pairs) if option else ""
        if option and value not in (f"backbone={LARGE_BACKBONE}", "imagenet"):
            kept += [word, value]
        elif not option:
            kept.append(word)
    return kept


def run(command: Command, options: str) -> None:
    """Runs a command line; fails if it ends otherwise than the page shows."""
    began = time.monotonic()
    words = shlex.split(command.line, comments=True)
    sentence = re.search(r"^Error: (.*)", command.output, re.M)
    fails = sentence is not None or '"error"' in command.output
    if words[0] != "kvideo" or {"|", "<", "&&"} & set(words):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.line],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        code, out, err = result.returncode, result.stdout, result.stderr
    else:
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[1 : words.index(">")] if target else words[1:]
        done = CliRunner().invoke(cli, smaller(words, options))
        if done.exception and not isinstance(done.exception, SystemExit):
            raise AssertionError(command.line) from done.exception
        code, out, err = done.exit_code, done.stdout, done.stderr
        if target:
            Path(target).write_text(out, encoding="utf-8")
    print(f"{time.monotonic() - began:.1f} s  {command.line}")
    said = f"$ {command.line}\n{out}\n{err}"
    assert (code != 0) == fails, said
    if sentence:
        assert sentence[1] in re.sub(r"\s+", " ", err), said


def run_block(block: CodeBlock, page: str, names: dict) -> None:
    """Runs a block; Python's names live as long as the page."""
    if block.kind == "python":
        padding = "\n" * block.line  # so that a traceback names the page's line
        exec(compile(padding + block.as_tested(), page, "exec"), names)
        return
    for command in block.commands():
        run(command, block.options)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, workspace: Path, request) -> None:
    text = page.read_text(encoding="utf-8")
    if re.search(r"\.pyth\b", text):
        add_checkpoints(workspace, request.getfixturevalue("shared") / "oracles" / "torch")
    names: dict = {"__name__": page.stem}
    for block in blocks(text):
        if block.is_code and not block.needs:  # `test_docs.py` parses the others
            run_block(block, page.name, names)
