"""Puts the tensors of a PyTorch state dict into a Keras model: all of them, or none.

A name map says which module of the file a layer's weights come from; the kind of layer says which
tensors that are and how their axes are ordered (PyTorch: channels first, Keras: last).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kvideo.errors import ModelFileError

NameMap = Callable[[str], str | None]
_SHOWN = 30


class _Wanted(NamedTuple):
    variable: Any
    axes: tuple[int, ...] | None = None  # the file's axes in the model's order; None: as they are


def load_torch_state(
    model: keras.Model,
    state: Mapping[str, np.ndarray],
    torch_name: NameMap,
    *,
    unused: Collection[str] = (),
) -> list[str]:
    """Assigns every weight that the name map knows.

    Args:
        model: any built Keras model; layers of nested models count.
        state: tensors by name, as `kvideo.weights.torch_reader.read_state_dict` gives them.
        torch_name: from a layer's name to its module's in the file; None: not from this file.
        unused: tensors of the file that the model does not need. The counters
            `num_batches_tracked` of batch norms never are.

    Returns:
        The names of the layers with weights that were left as they were.

    Raises:
        ModelFileError: a tensor is missing, has another shape, or is in the file and nowhere in
            the model. Nothing has been assigned then; the message is a table.
    """
    wanted: dict[str, _Wanted] = {}
    untouched = []
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if not layer.weights or getattr(layer, "layers", None):
            continue
        module = torch_name(layer.name)
        if module is None:
            untouched.append(layer.name)
        else:
            tensors = _tensors(layer)
            wanted.update({f"{module}.{name}": tensor for name, tensor in tensors.items()})
    if problems := _problems(wanted, state, unused):
        raise ModelFileError(_table(problems))
    for key, (variable, axes) in wanted.items():
        variable.assign(np.transpose(state[key], axes))
    return untouched


def _tensors(layer: keras.Layer) -> dict[str, _Wanted]:
    """A layer's weights by the names that PyTorch gives them within the module."""
    if isinstance(layer, keras.layers.BatchNormalization):
        tensors = {"running_mean": _Wanted(layer.moving_mean)}
        tensors["running_var"] = _Wanted(layer.moving_variance)
        if layer.scale:
            tensors["weight"] = _Wanted(layer.gamma)
        if layer.center:
            tensors["bias"] = _Wanted(layer.beta)
        return tensors
    if isinstance(layer, keras.layers.DepthwiseConv2D):  # before Conv: (C, 1, k, k)
        tensors = {"weight": _Wanted(layer.kernel, (2, 3, 0, 1))}
    elif isinstance(layer, keras.layers.Conv2D):
        tensors = {"weight": _Wanted(layer.kernel, (2, 3, 1, 0))}
    elif isinstance(layer, keras.layers.Conv3D):
        tensors = {"weight": _Wanted(layer.kernel, (2, 3, 4, 1, 0))}
    elif isinstance(layer, keras.layers.Dense):
        tensors = {"weight": _Wanted(layer.kernel, (1, 0))}
    else:
        raise ModelFileError(
            f'layer "{layer.name}" is a {type(layer).__name__}, which has no counterpart in a '
            "PyTorch file."
        )
    if layer.use_bias:
        tensors["bias"] = _Wanted(layer.bias)
    return tensors


def _problems(
    wanted: Mapping[str, _Wanted], state: Mapping[str, np.ndarray], unused: Collection[str]
) -> list[tuple[str, str, str]]:
    """(kind, tensor, shapes) of everything that does not fit."""
    problems = []
    for key, (variable, axes) in wanted.items():
        order = axes or range(len(variable.shape))
        shape = tuple(variable.shape[list(order).index(axis)] for axis in range(len(list(order))))
        if key not in state:
            problems.append(("missing", key, f"{shape} in the model"))
        elif state[key].shape != shape:
            shapes = f"{state[key].shape} in the file, {shape} in the model"
            problems.append(("misshaped", key, shapes))
    for key in state:
        if key not in wanted and key not in unused and not key.endswith(".num_batches_tracked"):
            problems.append(("unexpected", key, f"{state[key].shape} in the file"))
    return problems


def _table(problems: list[tuple[str, str, str]]) -> str:
    width = max(len(key) for _, key, _ in problems[:_SHOWN])
    rows = [f"  {kind:<10}  {key:<{width}}  {shapes}" for kind, key, shapes in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        rows.append(f"  and {len(problems) - _SHOWN} more")
    return "\n".join([f"{len(problems)} tensors do not fit the model:", *rows])
