"""Which layers are to blame when a model cannot be exported: each is tried alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.exporting.formats import Format


def refused_layers(model: keras.Model, kind: Format, batch: int | None) -> list[str]:
    """The layers of a functional model that a format cannot express.

    Args:
        model: the model that could not be exported.
        kind: the format.
        batch: the batch size that was asked for; None: any.

    Returns:
        Class and name, such as `ConvLSTM2D layer "memory"`; empty if every layer works alone.
    """
    return [
        f'{type(layer).__name__} layer "{layer.name}"'
        for layer, part in _single_layers(model)
        if not _works(part, kind, batch)
    ]


def _single_layers(model: keras.Model) -> Iterator[tuple[Any, keras.Model]]:
    """Each layer and a model that consists of its first call alone."""
    for layer in model.layers:
        nodes = getattr(layer, "_inbound_nodes", [])
        if nodes and nodes[0].input_tensors and not nodes[0].is_input:
            yield layer, keras.Model(nodes[0].input_tensors, nodes[0].outputs[0])


def _works(part: keras.Model, kind: Format, batch: int | None) -> bool:
    module = kind.module()
    specs = [
        tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, name=f"input{number}")
        for number, tensor in enumerate(part.inputs)
    ]
    if len(specs) > 1:
        return True  # sums and concatenations; every format has them
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"layer{kind.ending or ''}"
        try:
            module.write(part, path, specs, "output")
            zeros = np.zeros((batch or 2, *specs[0].shape[1:]), part.inputs[0].dtype)
            module.load(path)({specs[0].name: zeros})
        except Exception:  # whatever a converter raises, it means the same here
            return False
    return True
