"""Where exported files go: all of them appear, or none."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvideo.errors import KVideoError, UsageError
from kvideo.files import atomic_path, check_target, is_disk_full, remove_abandoned

_MARK = "saved_model.pb"  # what makes a folder a SavedModel


@dataclass(frozen=True)
class Place:
    """An exported model and what lies beside it (in a SavedModel: inside it).

    Attributes:
        model: the file or folder.
        info: a JSON file, the model's `ModelInfo` and the names of input and output.
        labels: a text file, one class name a line.
    """

    model: Path
    info: Path
    labels: Path

    @classmethod
    def of(cls, out: str | os.PathLike[str], folder: bool) -> Place:
        """The three paths."""
        model = Path(out)
        if folder:
            return cls(model, model / "kvideo.json", model / "labels.txt")
        named = (model.with_name(f"{model.name}{end}") for end in (".json", ".labels.txt"))
        return cls(model, *named)

    @property
    def is_folder(self) -> bool:
        """Whether the model is a folder."""
        return self.info.parent == self.model

    def check_free(self, overwrite: bool) -> None:
        """Sees whether it may be written to.

        Raises:
            UsageError: there is something already, and `overwrite` is not set or does not mean it;
                or there is no such folder.
            KVideoError: the folder cannot be written to.
        """
        if self.is_folder:
            if self.model.exists() and not (self.model / _MARK).is_file():
                raise UsageError(f"{self.model} exists and is no SavedModel; give another name.")
        elif self.model.is_dir():
            raise UsageError(f"{self.model} is a folder; give the name of a file.")
        there = [path for path in (self.model, self.info, self.labels) if path.exists()]
        if there and not overwrite:
            raise UsageError(f"{there[0]} exists already; --overwrite replaces it.")
        check_target(self.model)

    @contextmanager
    def writing(self) -> Iterator[Place]:
        """Gives temporary paths; when the block ends well, they become these.

        Raises:
            KVideoError: the disk is full, or the folder is not writable.
        """
        if self.is_folder:
            with _atomic_folder(self.model) as folder:
                yield Place.of(folder, folder=True)
            return
        with (
            atomic_path(self.labels) as labels,
            atomic_path(self.info) as info,
            atomic_path(self.model) as model,
        ):
            yield Place(model, info, labels)

    def describe(self, info: dict[str, Any], class_names: tuple[str, ...]) -> None:
        """Writes what lies beside the model."""
        lines = (" ".join(name.splitlines()) for name in class_names)
        texts = {
            self.info: json.dumps(info, indent=2, ensure_ascii=False) + "\n",
            self.labels: "".join(f"{line}\n" for line in lines),
        }
        for path, text in texts.items():  # names of files need not be text
            path.write_text(text, "utf-8", errors="backslashreplace")


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder's path, which does not exist yet and becomes `target`."""
    real = Path(os.path.realpath(target))
    remove_abandoned(real.parent)
    temporary = real.parent / f".tmp-{secrets.token_hex(4)}-{real.name[-60:]}"
    old = real.parent / f".tmp-{secrets.token_hex(4)}-old"
    try:
        yield temporary
        if real.exists():
            os.replace(real, old)
        os.replace(temporary, real)
    except BaseException as error:
        if old.exists() and not real.exists():
            os.replace(old, real)
        if is_disk_full(error):
            raise KVideoError(f"cannot write {target}: the disk is full (or a quota).") from error
        raise
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
