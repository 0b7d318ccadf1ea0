"""ONNX: one file, for ONNX Runtime on every system and in many languages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kvideo.exporting.graph import frozen_graph
from kvideo.exporting.rewrites import ONNX

OPSET = 18  # the newest that the converter knows
BATCH = "batch"


def write(model: keras.Model, path: Path, specs: Sequence[tf.TensorSpec], output: str) -> None:
    """Writes the file `path`.

    Args:
        model: a built model with one output.
        path: the file.
        specs: shape, type and name of each input.
        output: name of the output.
    """
    import onnx
    import tf2onnx

    graph = frozen_graph(model, specs, ONNX)
    inputs = {f"{spec.name}:0": spec.name for spec in specs}
    logging.getLogger(tf2onnx.__name__).setLevel(logging.CRITICAL)  # ONNX Runtime says it as well
    proto, _ = tf2onnx.convert.from_graph_def(
        graph.graph_def,
        name=model.name,
        input_names=list(inputs),
        output_names=[graph.output],
        tensors_to_rename={**inputs, graph.output: output},
        opset=OPSET,
    )
    for value in [*proto.graph.input, *proto.graph.output]:
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:  # the converter's own number for an open size
            first.dim_param = BATCH
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def load(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The function from clips, by name, to outputs that a file holds, in ONNX Runtime (CPU)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run(None, dict(clips))[0]
