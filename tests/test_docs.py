"""The documentation names commands, options and functions that exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module

import api_reference
import click
import code_blocks
import model_tables
import pytest
from code_blocks import CodeBlock, blocks
from conftest import ROOT

from kvideo.cli import COMMANDS, cli
from kvideo.registry import MODELS, entries

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code(*kinds: str) -> Iterator[tuple[str, CodeBlock]]:
    """(page, block) of the code blocks of some kinds, those too that are not run elsewhere."""
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.kind in kinds:
                yield page.name, block


def documented_commands() -> list[str]:
    """Every line of a code block that runs kvideo."""
    lines = {re.sub(r"\s+", " ", c.line) for _, b in code("bash", "console") for c in b.commands()}
    return sorted(line for line in lines if line.startswith("kvideo "))


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


@pytest.mark.parametrize(("page", "block"), list(code("python")))
def test_examples_compile_and_import_names_that_exist(page: str, block: CodeBlock) -> None:
    for node in ast.walk(ast.parse(block.text, page)):
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
        if (ROOT / "docs") in page.parents:
            name = page.relative_to(ROOT / "docs").as_posix()
            assert re.search(rf"(?: |- ){re.escape(name)}$", navigation, re.M), name
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_public_name_is_in_the_reference() -> None:
    page = api_reference.on_page_markdown(f"# All\n\n{api_reference.MARK}\n", None)
    described = set(re.findall(r"^::: ([\w.]+)$|\[`([\w.]+)`\]\[", page, re.M))
    described = {one or other for one, other in described}
    for module, names in api_reference.public_names():
        assert names and set(names) <= described, module
    assert "kvideo.fit" in described and "kvideo.models.slowfast.slowfast" in described


def test_the_table_of_models_has_every_built_in_model(monkeypatch) -> None:
    monkeypatch.setattr(model_tables, "_model", lambda name, builder: f"| `{name}` |")
    rows = model_tables.zoo().splitlines()[2:]
    built_in = [name for name, entry in entries(MODELS).items() if entry.builtin]
    assert rows == [f"| `{name}` |" for name in built_in]


def test_marks_of_blocks() -> None:
    page = (
        "<!-- ci: needs a GPU -->\n```console\n$ kvideo fit a \\\n  -m b\n"
        "said\n$ kvideo doctor\n```\n"
        "<!-- ci: 224 => 32; a => b -->\n```python\na = 224\n```\n"
        "<!-- ci: + --size 32 -->\n```bash\nkvideo models\n```\n```text\n$ no\n```\n"
    )
    gpu, python, bash, text = blocks(page)
    assert gpu.needs == "a GPU" and gpu.line == 2 and not text.is_code
    assert [c.line for c in gpu.commands()] == ["kvideo fit a    -m b", "kvideo doctor"]
    assert gpu.commands()[0].output == "said\n"
    assert python.as_tested() == "b = 32\n" and bash.options == "--size 32"
    shown = code_blocks.on_page_markdown(page, None)
    assert "Needs a GPU." in shown and "<!-- ci" not in shown
    assert "Code blocks on this page: 3; run in tests, at small sizes: 2." in shown
    assert "Only parsed there, for what they need: 1." in shown


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```bsah\nls\n```\n", "line 1: a block of the kind 'bsah'"),
        ("<!-- ci: hurry -->\n```python\n1\n```\n", "'hurry' means nothing"),
        ("<!-- ci: needs a GPU -->\n\n```python\n1\n```\n", "directly before a block"),
        ("```python\n1\n", "belongs to no block"),
    ],
)
def test_wrong_marks_of_blocks(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks(page)


def test_a_replacement_that_finds_nothing() -> None:
    (block,) = blocks("<!-- ci: 224 => 32 -->\n```python\n1\n```\n")
    with pytest.raises(ValueError, match="there is no '224' in the block"):
        block.as_tested()
