"""Checkpoints to resume from: one file with every variable and the state of the loop.

The file is a NumPy archive without pickled objects, so reading it executes nothing, and its
checksums show a damaged one. It appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.errors import ModelFileError
from kvideo.files import atomic_path

_STATE = "state"


def write_checkpoint(
    path: str | os.PathLike[str], variables: Iterable[Any], state: dict[str, Any]
) -> None:
    """Writes variables (in their order) and a JSON-able state.

    Raises:
        KVideoError: the disk is full, or the folder is missing.
    """
    arrays = {f"{number:05d}": v.numpy() for number, v in enumerate(variables)}
    arrays[_STATE] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The arrays and the state that `write_checkpoint` wrote.

    Raises:
        ModelFileError: no file, or a damaged one.
    """
    if not Path(path).exists():
        raise ModelFileError(f"there is no checkpoint {path} to resume from.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = sorted(name for name in archive.files if name != _STATE)
            state = json.loads(archive[_STATE].tobytes().decode())
            return [archive[name] for name in names], state
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as cause:
        raise ModelFileError(f"the checkpoint {path} is damaged ({cause}).") from cause


def restore_variables(variables: Iterable[Any], arrays: list[np.ndarray], path: Any) -> None:
    """Assigns arrays to variables, in order.

    Raises:
        ModelFileError: number or shapes differ: another model or optimizer wrote the file.
    """
    variables = list(variables)
    if [tuple(v.shape) for v in variables] != [array.shape for array in arrays]:
        raise ModelFileError(
            f"the checkpoint {path} belongs to another model or optimizer: its variables have "
            "other shapes."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
