"""Loads a published checkpoint into a model of its family, and reports what became of it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from kvideo.errors import ModelFileError
from kvideo.weights.checkpoints import read_checkpoint
from kvideo.weights.families import HEAD, Dialect, Family, NameMap
from kvideo.weights.transfer import (
    NAMINGS,
    Wanted,
    fill_absent,
    find_problems,
    layers_with_weights,
    problem_table,
    wanted_tensors,
)


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Args:
        path: the file.
        dialect: who named its tensors.
        tensors: how many were put into the model.
        classes: outputs of the file's last layer.
        fresh_head: the model has another number of classes, so its last layer stays random.
        fresh_layers: other layers that the file lacks and that stay as the builder made them.
    """

    path: str
    dialect: str
    tensors: int
    classes: int
    fresh_head: bool = False
    fresh_layers: tuple[str, ...] = ()

    def announce(self) -> None:
        """Says on standard error what stays untrained, if anything does."""
        for line in self.remarks():
            print(line, file=sys.stderr)

    def remarks(self) -> list[str]:
        """Sentences about what the file did not give."""
        lines = []
        if self.fresh_head:
            lines.append(
                f"{os.path.basename(self.path)} has {self.classes} classes, the model another "
                f'number: its last layer, "{HEAD}", is fresh.'
            )
        if self.fresh_layers:
            lines.append(
                f"{os.path.basename(self.path)} lacks the layers "
                f"{', '.join(self.fresh_layers)}: they are fresh."
            )
        return lines


def load_checkpoint(model: keras.Model, path: str | os.PathLike[str], family: Family) -> LoadReport:
    """Puts a published checkpoint's weights into a model: all of them, or none.

    Args:
        model: of the family, built.
        path: a PyTorch file, a TensorFlow checkpoint (prefix or any of its files) or a Keras
            `.h5` file.
        family: whose names the layers have.

    Raises:
        ModelFileError: no such file, damaged, refused (it names code), of another family; or
            tensors are missing, unexpected or have other shapes, and then the message is a table.
    """
    return load_tensors(model, read_checkpoint(path), family, os.fspath(path))


def load_tensors(
    model: keras.Model, tensors: Mapping[str, np.ndarray], family: Family, path: str
) -> LoadReport:
    """As `load_checkpoint`, of tensors by name that were read from `path`."""
    dialect = find_dialect(tensors, family, path)
    naming = NAMINGS[dialect.naming]
    tensors = {dialect.strip(name): tensor for name, tensor in tensors.items()}
    layers = dict(layers_with_weights(model))
    names = {*layers, *(layer.name for layer in model.layers)}
    wanted = _wanted(layers, dialect.modules(names), dialect)
    fresh_layers = _absent_optional_layers(wanted, tensors, family)
    other_classes = {
        key
        for key, item in wanted.items()
        if item.layer == HEAD and key in tensors and item.differs_in_classes(tensors[key].shape)
    }
    needed = {
        key: item
        for key, item in wanted.items()
        if key not in other_classes and _outer(item.layer) not in fresh_layers
    }
    unneeded = [key for key in tensors if key in other_classes or dialect.is_ignored(key)]
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    if problems := find_problems(needed, shapes, unneeded):
        raise ModelFileError(f"{path} ({dialect.name}): {problem_table(problems)}")
    for key, item in needed.items():
        _assign(model, item, tensors[key], dialect)
    for name, layer in layers.items():
        if _outer(name) not in fresh_layers:
            fill_absent(layer, naming)
    return LoadReport(
        path,
        dialect.name,
        len(needed),
        count_classes(tensors, dialect, path),
        bool(other_classes),
        fresh_layers,
    )


def find_dialect(tensors: Mapping[str, np.ndarray], family: Family, path: str) -> Dialect:
    """The dialect that the file's names are in.

    Raises:
        ModelFileError: none of the family's.
    """
    dialect = family.dialect_of(tensors)
    if dialect is None:
        known = ", ".join(dialect.name for dialect in family.dialects)
        first = next(iter(tensors), "nothing")
        raise ModelFileError(
            f"{path} is no checkpoint of {family.name} that is known ({known}): its tensors are "
            f"called {first}, …"
        )
    return dialect


def count_classes(tensors: Mapping[str, np.ndarray], dialect: Dialect, path: str) -> int:
    """Outputs of a file's last layer.

    Raises:
        ModelFileError: it has none.
    """
    for name, tensor in tensors.items():
        if re.search(dialect.head, name):
            return int(tensor.size)
    raise ModelFileError(f"{path} has no last layer, so it says no number of classes.")


def _wanted(
    layers: Mapping[str, keras.Layer], module_of: NameMap, dialect: Dialect
) -> dict[str, Wanted]:
    naming = NAMINGS[dialect.naming]
    wanted: dict[str, Wanted] = {}
    for name, layer in layers.items():
        module = module_of(name)
        if module is None:
            raise ModelFileError(
                f'{dialect.name} has no counterpart of the layer "{name}"; these weights do not '
                "fit this model."
            )
        wanted.update(wanted_tensors(layer, name, module, naming))
    return wanted


def _absent_optional_layers(
    wanted: Mapping[str, Wanted], tensors: Mapping[str, np.ndarray], family: Family
) -> tuple[str, ...]:
    """The model's optional layers of which the file has nothing."""
    optional = {_outer(w.layer) for w in wanted.values() if re.search(family.optional, w.layer)}
    present = {_outer(item.layer) for key, item in wanted.items() if key in tensors}
    return tuple(sorted(optional - present))


def _outer(layer: str) -> str:
    return layer.split("/")[0]


def _assign(model: keras.Model, item: Wanted, tensor: np.ndarray, dialect: Dialect) -> None:
    values = item.in_model_order(tensor)
    adjust = dialect.adjust.get(item.layer)
    if adjust is not None and values.ndim > 1:
        values = adjust(model, values)
    item.variable.assign(values)
