"""The code blocks of the pages: what is run of them in tests, and how.

A line directly before a block says what tests do otherwise than a reader; it is not shown:

    <!-- ci: needs a network -->        (or "a GPU", …) only parsed, and said so below the block
    <!-- ci: + --epochs 1 -->           options added to each of the block's commands
    <!-- ci: 224 => 32; B => C -->      replaced in the block

`on_page_markdown` is a hook of mkdocs: it says below a block what it needs, and at the end of a
page how many of its blocks are run.
"""

import dataclasses
import re

_BLOCK = re.compile(
    r"^(?P<marks>(?:<!-- \w+: [^\n]* -->\n)*)(?P<fence>```(?P<kind>\w*)\n(?P<text>.*?)^```)$",
    re.M | re.S,
)
_MARK = re.compile(r"<!-- ci: (.*?) -->")
KINDS = ("console", "python", "text", "csv", "json", "toml", "bash")
RUN = ("console", "python", "bash")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a block, and the output that the page shows below it."""

    line: str
    output: str


@dataclasses.dataclass(frozen=True)
class CodeBlock:
    """A block of a page.

    Attributes:
        kind: one of `KINDS`.
        text: what stands in it.
        line: the number of the block's first line in the page.
        needs: what it needs that tests do not have, such as "a network"; or "".
        options: added to each command in tests.
        changes: pairs of texts; the first is replaced by the second in tests.
    """

    kind: str
    text: str
    line: int
    needs: str = ""
    options: str = ""
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def is_code(self):
        """Whether it is something to run, rather than a file's content or an output."""
        return self.kind in RUN

    def as_tested(self):
        """The text that tests run."""
        text = self.text
        for old, new in self.changes:
            if old not in text:
                raise ValueError(f"line {self.line}: there is no {old!r} in the block")
            text = text.replace(old, new)
        return text

    def commands(self):
        """The command lines of a console or bash block, those with `\\` joined."""
        found = []
        text = self.as_tested().replace("\\\n", " ")
        if self.kind == "bash":
            return [Command(line, "") for line in text.splitlines() if line.strip()]
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            line, _, output = part.partition("\n")
            found.append(Command(line.strip(), output))
        return found


def blocks(page):
    """All code blocks of a page's text, in order.

    Raises:
        ValueError: a block is of an unknown kind, or a mark says nothing that is known.
    """
    found = []
    for match in _BLOCK.finditer(page):
        line = page.count("\n", 0, match.start("fence")) + 1
        if match["kind"] not in KINDS:
            raise ValueError(f"line {line}: a block of the kind {match['kind']!r}")
        found.append(_block(match, line))
    if page.count("\n```") + page.startswith("```") != 2 * len(found):
        raise ValueError("a line of three backquotes belongs to no block")
    if len(_MARK.findall(page)) != sum(
        len(_MARK.findall(m["marks"])) for m in _BLOCK.finditer(page)
    ):
        raise ValueError("a mark for tests does not stand directly before a block")
    return found


def _block(match, line):
    needs, options, changes = "", "", []
    for mark in _MARK.findall(match["marks"]):
        if mark.startswith("needs "):
            needs = mark.removeprefix("needs ")
        elif mark.startswith("+ "):
            options = mark.removeprefix("+ ")
        elif " => " in mark:
            changes += [tuple(part.split(" => ")) for part in mark.split("; ")]
        else:
            raise ValueError(f"line {line}: the mark {mark!r} means nothing")
    return CodeBlock(match["kind"], match["text"], line, needs, options, tuple(changes))


def on_page_markdown(markdown, page, **_):
    """The hook that mkdocs calls for each page."""
    code = [block for block in blocks(markdown) if block.is_code]
    markdown = _BLOCK.sub(_shown, markdown)
    if not code:
        return markdown
    left = sum(bool(block.needs) for block in code)
    sentence = (
        f"Code blocks on this page: {len(code)}; run in tests, at small sizes: {len(code) - left}."
    )
    if left:
        sentence += f" Only parsed there, for what they need: {left}."
    return f"{markdown}\n\n---\n\n<small>{sentence}</small>\n"


def _shown(match):
    needs = _block(match, 0).needs
    return match["fence"] + (f"\n\n<small>Needs {needs}.</small>" if needs else "")
