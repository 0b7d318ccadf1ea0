"""Which model is meant: a registered one with its arguments, or a file. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.errors import UsageError
from kvideo.registry import MODELS, entries, find
from kvideo.saving import check_single, model_file, read_info

if TYPE_CHECKING:
    import keras

NUM_CLASSES = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A registered model, or a file.

    Args:
        name: a registered model; None: `file` is meant.
        file: a model file.
        input_shape: (T, H, W, 3) of a registered model; None: what it is made for.
        options: further arguments of the builder.
        num_classes: of a registered model.
    """

    name: str | None = None
    file: str | None = None
    input_shape: tuple[int, ...] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_classes: int = NUM_CLASSES

    def load(self, precision: str = "float32") -> keras.Model:
        """The model, fresh or from its file.

        Raises:
            UsageError: it cannot be built so.
            PluginLoadError: its builder cannot be imported.
            ModelFileError: the file cannot be loaded.
        """
        if self.file is not None:
            from kvideo.saving import load_model

            return load_model(self.file, precision=precision)
        from kvideo.building import build_model
        from kvideo.clip_spec import recommended_clip

        entry = find(MODELS, str(self.name))
        shape = self.input_shape or recommended_clip(entry.load(), **self.options).shape
        return build_model(
            entry, self.num_classes, shape, precision=precision, options=self.options
        )


def means_file(model: str | os.PathLike[str]) -> bool:
    """Whether a model is meant by its place, rather than by a registered name.

    A registered name means that model, also where there is a folder so called; a warning then says
    how to name the folder.
    """
    name = os.fspath(model)
    if name.endswith(".keras") or os.sep in name:
        return True
    if not os.path.exists(name):
        return False
    if name not in entries(MODELS):
        return True
    warnings.warn(
        f'"{name}" is the registered model of that name; the folder is {os.path.join(".", name)}.',
        stacklevel=2,
    )
    return False


def choose_model(
    model: str | os.PathLike[str],
    input_shape: Sequence[int] | None,
    options: Mapping[str, Any] | None,
    num_classes: int | None,
    what: str,
) -> ModelChoice:
    """What a user means; wrong names and files are told before TensorFlow is imported.

    Args:
        model: a registered model's name, a `.keras` file, or a run's folder.
        input_shape: (T, H, W, 3) of a registered model; None: what it is made for.
        options: further arguments of a registered model's builder.
        num_classes: of a registered model; None: 400.
        what: what the model is for, for the message about a model of several, such as "what is
            measured is".

    Raises:
        UsageError: an unknown name, or arguments for a file, or several models in one.
        ModelFileError: the file cannot be read.
    """
    name = os.fspath(model)
    if means_file(name):
        if input_shape is not None or options or num_classes is not None:
            raise UsageError(
                f"{name} is a file, whose shape, classes and options are fixed; a model's name "
                "takes others."
            )
        file = model_file(name)
        check_single(read_info(file), what)
        return ModelChoice(file=str(file))
    find(MODELS, name)
    shape = None if input_shape is None else tuple(input_shape)
    return ModelChoice(
        name=name, input_shape=shape, options=dict(options or {}),
        num_classes=NUM_CLASSES if num_classes is None else num_classes,
    )  # fmt: skip


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether there is a model file, or a run's folder with one."""
    file = model_file(path)
    return file.suffix == ".keras" and file.is_file()


def short_names(models: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Names for model files and runs, each once: without folders, where that tells them apart."""
    paths = [Path(model) for model in models]
    names = [path.stem if path.suffix == ".keras" else path.name for path in paths]
    if len(set(names)) < len(set(paths)):
        names = [str(path) for path in paths]
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [f"{name} ({n})" if n > 1 else name for name, n in zip(names, seen, strict=True)]
