"""LiteRT (formerly TensorFlow Lite): one file, for phones and small devices.

Only operations that the plain interpreter has built in are admitted; what it lacks is said with
others (`kvideo.exporting.rewrites`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kvideo.exporting.graph import frozen_graph
from kvideo.exporting.rewrites import LITERT

SIGNATURE = "serving_default"  # the converter's word


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


def load(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The function from clips, by name, to outputs that a file holds, in the plain interpreter.

    TensorFlow's own interpreter would not do: it brings all of TensorFlow's operations along.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    run = interpreter.get_signature_runner(SIGNATURE)

    def outputs(clips: Mapping[str, np.ndarray]) -> np.ndarray:
        (result,) = run(**clips).values()
        return result

    return outputs
