"""Checkpoints to resume from: files with every variable and the state of the loop.

A file is a NumPy archive without pickled objects, so reading it executes nothing, and a digest
shows a damaged one. It appears whole or not at all. The last few are kept: where the newest is
damaged, the one before serves.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.errors import ModelFileError
from kvideo.files import atomic_path, make_folder

_STATE, _DIGEST = "state", "digest"
_NAME = re.compile(r"step-([0-9]{8,})\.npz")


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they are; is made when the first is written.
        keep: how many.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep

    def paths(self) -> list[Path]:
        """The files, the newest first."""
        found = [path for path in self.folder.glob("step-*.npz") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem.partition("-")[2]), reverse=True)

    def write(self, step: int, arrays: Sequence[np.ndarray], state: dict[str, Any]) -> Path:
        """Writes one, then removes those that are too many; returns its path.

        Args:
            step: steps done; the newest checkpoint is the one with the most.
            arrays: the values of all variables.
            state: JSON-able.

        Raises:
            KVideoError: the disk is full, or the folder cannot be written to.
        """
        path = make_folder(self.folder) / f"step-{step:08d}.npz"
        write_checkpoint(path, arrays, state)
        for old in self.paths()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def read(self, say: Callable[[str], None]) -> tuple[Path, list[np.ndarray], dict[str, Any]]:
        """The newest that is not damaged: its path, arrays and state.

        Args:
            say: is told of damaged ones.

        Raises:
            ModelFileError: there is none.
        """
        paths = self.paths()
        for number, path in enumerate(paths, start=1):
            try:
                return (path, *read_checkpoint(path))
            except ModelFileError as error:
                before = " Going back to the one before." if number < len(paths) else ""
                say(f"Warning: {error}{before}")
        if paths:
            raise ModelFileError(
                f"all checkpoints in {self.folder} are damaged: --overwrite begins the run anew, "
                "--weights with its model.keras begins another one from its best weights."
            )
        raise ModelFileError(f"there is not a checkpoint in {self.folder} to resume from.")

    def clear(self) -> None:
        """Removes all."""
        for path in self.paths():
            path.unlink(missing_ok=True)


def write_checkpoint(
    path: str | os.PathLike[str], arrays: Sequence[np.ndarray], state: dict[str, Any]
) -> None:
    """Writes arrays (in their order) and a JSON-able state.

    Raises:
        KVideoError: the disk is full, or the folder is missing.
    """
    named = {f"{number:05d}": np.asarray(array) for number, array in enumerate(arrays)}
    named[_STATE] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    named[_DIGEST] = np.frombuffer(_digest(named.values()), np.uint8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **named)  # type: ignore[arg-type]


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays and the state that `write_checkpoint` wrote.

    Raises:
        ModelFileError: no file, or a damaged one.
    """
    if not Path(path).exists():
        raise ModelFileError(f"there is no checkpoint {path} to resume from.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            named = {name: archive[name] for name in archive.files}
        digest = named.pop(_DIGEST).tobytes()
        if digest != _digest(named.values()):
            raise ValueError("its digest is wrong")
        state = json.loads(named.pop(_STATE).tobytes().decode())
        return [named[name] for name in sorted(named)], state
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,  # by a flipped bit it looks encrypted, or compressed in another way
    ) as cause:
        raise ModelFileError(f"the checkpoint {path} is damaged ({cause}).") from cause


def _digest(arrays: Iterable[np.ndarray]) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def check_shapes(variables: Iterable[Any], arrays: Sequence[np.ndarray], path: Any) -> None:
    """Sees whether arrays can be assigned to variables, in order.

    Raises:
        ModelFileError: number or shapes differ: another model or optimizer wrote the file.
    """
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise ModelFileError(
            f"the checkpoint {path} belongs to another model or optimizer: its variables have "
            "other shapes."
        )


def restore_variables(variables: Iterable[Any], arrays: Sequence[np.ndarray], path: Any) -> None:
    """Assigns arrays to variables, in order.

    Raises:
        ModelFileError: see `check_shapes`.
    """
    variables = list(variables)
    check_shapes(variables, arrays, path)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
