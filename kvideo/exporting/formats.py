"""The formats as a table; each has a module here of its own with `write` and `load`."""

from __future__ import annotations

import difflib
import importlib.util
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kvideo.errors import KVideoError, UnknownNameError, UsageError


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: what users call it; the module's name.
        title: in sentences.
        ending: of the file's name; None for a folder.
        extra: what `pip install kvideo[…]` calls it.
        packages: what that brings, as they are imported.
        dynamic: whether the batch is of any size unless a size is asked for.
    """

    name: str
    title: str
    ending: str | None = None
    extra: str | None = None
    packages: tuple[str, ...] = ()
    dynamic: bool = True

    def module(self) -> Any:
        """The module that writes and reads it; imports TensorFlow."""
        return import_module(f"kvideo.exporting.{self.name}")

    def check_installed(self) -> None:
        """Sees whether its packages are there.

        Raises:
            KVideoError: one is missing; says how to install it.
        """
        missing = [each for each in self.packages if importlib.util.find_spec(each) is None]
        if missing:
            raise KVideoError(
                f"{self.title} needs {' and '.join(missing)}, which is not installed: "
                f'`pip install "kvideo[{self.extra}]"`.'
            )


_TABLE = (
    Format("saved_model", "SavedModel"),
    Format("onnx", "ONNX", ".onnx", "onnx", ("tf2onnx", "onnx", "onnxruntime")),
    Format("litert", "LiteRT", ".tflite", "litert", ("ai_edge_litert",), dynamic=False),
)
_OTHER_FILES = (
    ".h5",
    ".hdf5",
    ".keras",
    ".pb",
    ".pt",
    ".pth",
    ".zip",
    ".json",
    ".engine",
    ".mlmodel",
)
FORMATS = tuple(each.name for each in _TABLE)


def choose_format(name: str | None, out: str | os.PathLike[str]) -> Format:
    """The format of that name; by default the one that the path's ending says.

    Raises:
        UnknownNameError: there is none of that name.
        UsageError: the path ends as those of another format do, or nearly so.
    """
    ending = Path(out).suffix.lower()
    by_ending = next((each for each in _TABLE if each.ending == ending), _TABLE[0])
    if name is None:
        _check_ending(ending, out)
        return by_ending
    found = next((each for each in _TABLE if each.name == name), None)
    if found is None:
        raise UnknownNameError(f"format must be one of {FORMATS}, not {name!r}.")
    if found is not by_ending:
        raise UsageError(
            f"names of {found.title} files end in {found.ending}; {out} does not."
            if found.ending
            else f"a {found.title} is a folder, whose name does not end in {ending}: {out}."
        )
    return found


def _check_ending(ending: str, out: str | os.PathLike[str]) -> None:
    """Refuses what was meant to be a file's ending; anything else names a SavedModel's folder."""
    known = [each.ending for each in _TABLE if each.ending]
    if ending in known:
        return
    near = difflib.get_close_matches(ending, known, n=1)
    if near or ending in _OTHER_FILES:
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"{out} ends in {ending}, which is no format's ending: .onnx and .tflite are, and a "
            f"name without an ending is a SavedModel's folder.{hint}"
        )
