"""Names of classes: files that list them, and labels (names or numbers) turned into indices."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from kvideo.errors import DataError
from kvideo.text import enumerate_words

# Files beside an annotation file that may hold the class names, in order of preference.
CLASS_FILES = ("classes.txt", "class_names.txt", "classind.txt", "label_map.txt", "labels.txt")

_NUMBERED = re.compile(r"(\d+)\s*[\s:,;]\s*(.*\S)")
_NUMBERED_AFTER = re.compile(r"(.*\S)\s*[\s:,;]\s*(\d+)")
_INTEGER = re.compile(r"(-?\d+)(?:\.0+)?")


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """The classes in the order of their indices.

    Args:
        names: the names.
        numbers: the index of each class by the number that stands for it in annotations; by
            default the index itself.
        source: where the names come from, for messages.
    """

    names: tuple[str, ...]
    numbers: Mapping[int, int] | None = None
    source: str = "the class names"

    def __post_init__(self) -> None:
        if len(self._by_name) < len(self.names):
            twice = next(n for i, n in enumerate(self.names) if self._by_name[n] != i)
            raise DataError(f"{self.source}: two classes have the name {twice!r}.")
        if self.numbers is None:
            object.__setattr__(self, "numbers", {i: i for i in range(len(self.names))})

    def index(self, label: str) -> int | None:
        """The index of a class given by name or number; None if there is no such class."""
        if label in self._by_name:
            return self._by_name[label]
        number = as_integer(label)
        return None if number is None else (self.numbers or {}).get(number)

    def in_order_of(self, other: ClassNames) -> ClassNames:
        """The classes of `other`, by names, which the numbers used here stand for now."""
        here = [other._by_name.get(name) for name in self.names]
        numbers = {n: new for n, i in (self.numbers or {}).items() if (new := here[i]) is not None}
        return ClassNames(other.names, numbers, source=other.source)

    def unknown(self, label: str) -> str:
        """A sentence about a label that is not among these classes."""
        if as_integer(label) is not None:
            known = sorted(self.numbers or {})
            range_known = f"numbers {known[0]} to {known[-1]}" if known else "names only"
            return f"there is no class {label} in {self.source} ({range_known})."
        near = difflib.get_close_matches(label, self.names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        names = enumerate_words(self.names)
        return f"there is no class {label!r} in {self.source} ({names}).{hint}"

    @functools.cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}


def as_integer(label: str) -> int | None:
    """The class number that a label is (`"7"`, `"7.0"`), or None if it is a name."""
    match = _INTEGER.fullmatch(label)
    return int(match[1]) if match else None


def parse_class_names(text: str, source: str) -> ClassNames:
    """Read a file of class names.

    One class a line: `NAME`, or `NUMBER NAME` (blank, colon, comma or semicolon between them), or
    `NAME NUMBER`. Numbers may begin at 0 or 1 and may have gaps; indices follow their order.

    Args:
        text: the file's content.
        source: its path, for messages.

    Raises:
        DataError: the file is empty, or a name or number comes twice.
    """
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if lines and re.fullmatch(r"(id|index|label)\W+(name|class|label)", lines[0], re.IGNORECASE):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{source} is empty; it should name one class a line.")
    pairs = _pairs(lines)
    if pairs is None:
        return ClassNames(tuple(_unquote(line) for line in lines), source=source)
    return numbered_classes(sorted(pairs), source)


def numbered_classes(pairs: Sequence[tuple[int, str]], source: str) -> ClassNames:
    """Classes from (number, name), in order.

    Raises:
        DataError: a name or number comes twice.
    """
    numbers = {number: index for index, (number, _) in enumerate(pairs)}
    if len(numbers) < len(pairs):
        twice = next(n for i, (n, _) in enumerate(pairs) if numbers[n] != i)
        raise DataError(f"{source}: two classes have the number {twice}.")
    return ClassNames(tuple(name for _, name in pairs), numbers, source)


def _pairs(lines: Sequence[str]) -> list[tuple[int, str]] | None:
    """(number, name) of every line, or None if the lines are names only."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if all(found):
        return [(int(m[1]), _unquote(m[2])) for m in found if m]
    found = [_NUMBERED_AFTER.fullmatch(line) for line in lines]
    if all(found):
        pairs = [(int(m[2]), _unquote(m[1])) for m in found if m]
        # "action 1", "action 2" are two names; "running 1", "jumping 2" are names with numbers.
        if len({name for _, name in pairs}) == len(pairs) == len({n for n, _ in pairs}):
            return pairs
    return None


def _unquote(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


def infer_class_names(labels: Iterable[str], source: str) -> ClassNames:
    """The classes that labels without a list of names stand for.

    Names are sorted. Numbers become the names "0", "1", … up to the highest, from 0 if that
    occurs and from 1 otherwise, so that a class that happens to have no video keeps its place;
    if more than half of the numbers do not occur, only those that do.

    Args:
        labels: all labels.
        source: the annotation file, for messages.

    Raises:
        DataError: a number is negative.
    """
    distinct = set(labels)
    numbers = {label: as_integer(label) for label in distinct}
    present = sorted({n for n in numbers.values() if n is not None})
    if not distinct or None in numbers.values():
        return ClassNames(tuple(sorted(distinct)), source=source)
    if present[0] < 0:
        raise DataError(f"{source}: the class number {present[0]} is negative.")
    span = range(min(present[0], 1), present[-1] + 1)
    chosen = tuple(span) if len(span) <= 2 * len(present) else tuple(present)
    return numbered_classes([(number, str(number)) for number in chosen], source)


def given_class_names(
    class_names: Sequence[str], source: str = "the expected classes"
) -> ClassNames:
    """Class names from a model or from the user; labels may be these names or indices.

    If the names are numbers themselves ("1", "2", …), labels are those numbers.
    """
    names = tuple(str(name) for name in class_names)
    numbers = [number for name in names if (number := as_integer(name)) is not None]
    if numbers and len(numbers) == len(names):
        return numbered_classes(list(zip(numbers, names, strict=True)), source)
    return ClassNames(names, source=source)


def class_file_beside(files: Sequence[str], annotation: str) -> list[str]:
    """Which of a folder's files may hold class names, best first; never the annotation itself."""
    by_name = {file.lower(): file for file in files if file != os.path.basename(annotation)}
    return [by_name[name] for name in CLASS_FILES if name in by_name]
