"""Loads a published checkpoint into a model of its family, and reports what became of it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kvideo.clip_spec import MODALITIES
from kvideo.errors import ModelFileError
from kvideo.text import enumerate_words
from kvideo.weights.checkpoints import read_checkpoint
from kvideo.weights.families import HEAD, Dialect, Family, NameMap
from kvideo.weights.guessing import guess_models
from kvideo.weights.transfer import (
    NAMINGS,
    Wanted,
    fill_absent,
    find_problems,
    layers_with_weights,
    problem_table,
    wanted_tensors,
)

NORMALIZATION = "normalization"


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Args:
        path: the file.
        dialect: who named its tensors.
        tensors: how many were put into the model.
        classes: outputs of the file's last layer; 0 if it has none.
        fresh_head: the model has another number of classes, so its last layer stays random.
        fresh_layers: other layers that the file lacks and that stay as the builder made them.
        averaged: first layers of a model of flow that took the mean over the colours.
    """

    path: str
    dialect: str
    tensors: int
    classes: int
    fresh_head: bool = False
    fresh_layers: tuple[str, ...] = ()
    averaged: tuple[str, ...] = ()

    def announce(self) -> None:
        """Says on standard error what stays untrained, if anything does."""
        for line in self.remarks():
            print(line, file=sys.stderr)

    def remarks(self) -> list[str]:
        """Sentences about what the file did not give."""
        file, lines = os.path.basename(self.path), []
        if self.fresh_head:
            why = f"has {self.classes} classes, the model another number"
            why = why if self.classes else "has no last layer"
            lines.append(f'{file} {why}: the last layer, "{HEAD}", is fresh and must be trained.')
        if self.fresh_layers:
            layers = enumerate_words(self.fresh_layers, limit=12)
            lines.append(f"{file} has no weights for {layers}: they are fresh.")
        if self.averaged:
            layers = enumerate_words(self.averaged)
            lines.append(f"{file} is of RGB: {layers} begins with its mean over the colours.")
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
    of_flow = model.input_shape[-1] == MODALITIES["flow"]
    layers = dict(layers_with_weights(model))
    layers.pop(NORMALIZATION, None)  # of pixels; no checkpoint has it
    names = {*layers, *(layer.name for layer in model.layers)}
    wanted = _wanted(layers, dialect.modules(names), dialect, family)
    classes = dialect.count_classes(tensors)
    fresh_layers = _absent_optional_layers(layers, wanted, tensors, family)
    no_head = not classes and dialect.headless
    other_classes = {
        key
        for key, item in wanted.items()
        if item.layer == HEAD
        and (no_head or (key in tensors and item.differs_in_classes(tensors[key].shape)))
    }
    needed = {
        key: item
        for key, item in wanted.items()
        if key not in other_classes and _outer(item.layer) not in fresh_layers
    }
    averaged = []
    for key, item in needed.items():
        if of_flow and key in tensors and item.is_cross_modality(tensors[key].shape):
            tensors[key] = item.cross_modality(tensors[key])
            averaged.append(item.layer)
    unneeded = [key for key in tensors if key in other_classes or dialect.is_ignored(key)]
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    if problems := find_problems(needed, shapes, unneeded):
        mostly = len(problems) > len(wanted) // 10  # a few misfits do not make it another model
        hint = _likely(tensors, model.name) if mostly else ""
        raise ModelFileError(f"{path} ({dialect.name}): {problem_table(problems)}{hint}")
    for key, item in needed.items():
        _assign(model, item, tensors[key], dialect)
    for name, layer in layers.items():
        if _outer(name) not in fresh_layers:
            fill_absent(layer, naming)
    return LoadReport(
        path,
        dialect.name,
        len(needed),
        classes,
        bool(other_classes),
        fresh_layers,
        tuple(averaged),
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
            f"{path} is no checkpoint that {family.name} models take ({known}): its tensors are "
            f"called {first}, …{_likely(tensors, family.name)}"
        )
    return dialect


def _likely(tensors: Mapping[str, np.ndarray], model: str) -> str:
    """A line about the models that a file may be of; empty if that is the one it was taken for."""
    likely = guess_models(tensors)
    if not likely or model in likely:
        return ""
    return f"\nIt looks like a checkpoint of the model {' or '.join(likely)}."


def options_for(path: str | os.PathLike[str], family: Family) -> dict[str, Any]:
    """Arguments that a builder of the family needs for the weights of a published file.

    They are what differs from the builder's defaults: widths, the publisher's normalization.

    Raises:
        ModelFileError: the file cannot be read, or is of another family.
    """
    tensors = read_checkpoint(path, values=False)
    return find_dialect(tensors, family, os.fspath(path)).options(tensors)


def _wanted(
    layers: Mapping[str, keras.Layer], module_of: NameMap, dialect: Dialect, family: Family
) -> dict[str, Wanted]:
    """By their names in the file, the tensors that the layers take."""
    naming = NAMINGS[dialect.naming]
    wanted: dict[str, Wanted] = {}
    for name, layer in layers.items():
        module = module_of(name)
        if module is None:
            if re.search(family.optional, name):
                continue
            raise ModelFileError(
                f'{dialect.name} has no counterpart of the layer "{name}"; these weights do not '
                "fit this model."
            )
        wanted.update(wanted_tensors(layer, name, module, naming))
    return wanted


def _absent_optional_layers(
    layers: Collection[str],
    wanted: Mapping[str, Wanted],
    tensors: Mapping[str, np.ndarray],
    family: Family,
) -> tuple[str, ...]:
    """The model's optional layers of which the file has nothing."""
    optional = {_outer(name) for name in layers if re.search(family.optional, name)}
    present = {_outer(item.layer) for key, item in wanted.items() if key in tensors}
    return tuple(sorted(optional - present))


def _outer(layer: str) -> str:
    return layer.split("/")[0]


def _assign(model: keras.Model, item: Wanted, tensor: np.ndarray, dialect: Dialect) -> None:
    values = item.in_model_order(tensor)
    in_model_rows = dialect.rows.get(item.layer)
    if in_model_rows is not None and values.ndim > 1:
        values = in_model_rows(model, values)
    item.variable.assign(values)
