"""The documentation names commands, options and functions that exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module

import click
import pytest
from conftest import ROOT

from kvideo.cli import COMMANDS, cli

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(kinds: str) -> Iterator[tuple[str, str]]:
    """(page, text) of the code blocks of some kinds."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.finditer(rf"^```(?:{kinds})\n(.*?)^```", text, re.S | re.M):
            yield page.name, block[1]


def documented_commands() -> list[str]:
    """Every line of a code block that runs kvideo."""
    found = set()
    for _, block in blocks("|bash|console"):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.match(r"(?:\$ )?(kvideo .*)", line.strip()):
                found.add(re.sub(r"\s+", " ", match[1]).strip())
    return sorted(line for line in found if "[OPTIONS]" not in line and "COMMAND" not in line)


@pytest.mark.parametrize("line", documented_commands())
def test_commands_and_their_options_exist(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    for end in ("|", ">", "2>", "&&", ";"):
        if end in arguments:
            arguments = arguments[: arguments.index(end)]
    if name == "fit" and "slow_fusoin" in arguments:
        return  # the example of a mistake
    parent = click.Context(cli, **cli.context_settings)
    command = cli.get_command(parent, name)
    assert command is not None and name in COMMANDS
    context = command.make_context(name, arguments, parent)  # parses and checks; runs nothing
    if name == "fit":
        given = context.params
        assert (
            given["model"]
            or given["resume"]
            or given["recipe"]
            or str(given["weights"]).endswith(".keras")
        )


def test_the_commands_are_found() -> None:
    names = {line.split()[1] for line in documented_commands()}
    assert names == set(COMMANDS)


@pytest.mark.parametrize(("page", "code"), list(blocks("python")))
def test_examples_compile_and_import_names_that_exist(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code, page)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("kvideo"):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "kvideo"
        ):
            assert hasattr(import_module("kvideo"), node.attr), f"{page}: kvideo.{node.attr}"


def test_pages_are_in_the_navigation_and_links_to_files_lead_somewhere() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        if page.parent.name == "docs":
            assert page.name in navigation, page.name
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
