"""LiteRT (formerly TensorFlow Lite): one file, for phones and small devices.

Only operations that the plain interpreter has built in are admitted; what it lacks is said with
others (`kvideo.exporting.rewrites`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kvideo.exporting.graph import frozen_graph
from kvideo.exporting.rewrites import LITERT


def write(model: keras.Model, path: Path, specs: Sequence[tf.TensorSpec], output: str) -> None:
    """Writes the file `path`; its signature `serving_default` predicts.

    Args:
        model: a built model with one output.
        path: the file.
        specs: shape, type and name of each input.
        output: name of the output.
    """
    function = frozen_graph(model, specs, LITERT).function(output)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path.write_bytes(converter.convert())


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function from clips to outputs that a file holds, in the plain interpreter.

    TensorFlow's own interpreter would not do: it brings all of TensorFlow's operations along.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (clip,) = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()

    def outputs(clips: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(clip["index"], clips.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(clip["index"], clips)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return outputs
