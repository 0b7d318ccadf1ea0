"""Text for people: widths on a terminal, cutting, escaping what would break a line."""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Sequence
from typing import Any

# Unicode's bidirectional controls that change the order of what follows.
_OVERRIDES = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def display_width(text: str) -> int:
    """Columns on a terminal: wide letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def printable(text: str) -> str:
    """The text with "?" for line breaks, escape codes, surrogates and changes of direction.

    File and class names may hold such; they would garble a terminal or fake another name.
    """
    if text.isprintable():
        return text
    return "".join("?" if _harmful(letter) else letter for letter in text)


def cut(text: str, columns: int, mark: str = "…") -> str:
    """At most `columns` wide; what was cut ends in `mark`."""
    if display_width(text) <= columns:
        return text
    room = max(0, columns - len(mark))
    while text and display_width(text) > room:
        text = text[:-1]
    return (text + mark)[: max(0, columns)]


def pad(text: str, columns: int, align: str = "<") -> str:
    """Blanks up to `columns`, behind (`"<"`) or before (`">"`) the text."""
    blanks = " " * max(0, columns - display_width(text))
    return blanks + text if align == ">" else text + blanks


def plural(number: int, noun: str) -> str:
    """`"1 video"`, `"2 videos"`, `"2 classes"`, `"1,234 videos"`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def enumerate_words(words: Sequence[str], limit: int = 5) -> str:
    """`"a, b and c"`; beyond the limit `"a, b and 7 more"`."""
    if len(words) > limit:
        words = [*words[: limit - 1], f"{len(words) - limit + 1} more"]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _harmful(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in _OVERRIDES


_WORDS = {"true": True, "false": False, "none": None}


def literal(text: str) -> Any:
    """A number, true, false, none (in any case) or a list; anything else is a string."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
