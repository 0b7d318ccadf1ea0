"""SavedModel: TensorFlow's own format, a folder; for TensorFlow Serving, TF.js, C++ and Java."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

SIGNATURE = "serving_default"


def write(model: keras.Model, path: Path, specs: Sequence[tf.TensorSpec], output: str) -> None:
    """Writes the folder `path`; its signature `serving_default` and its method `serve` predict.

    Args:
        model: a built model with one input and one output.
        path: a folder that does not exist.
        specs: shape, type and name of the input.
        output: name of the output.
    """

    # Not Keras's own exporter: it writes every weight twice, and lets XLA in, whose 3D convolution
    # is slow on a CPU.
    def serve(clip: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: model(clip, training=False)}

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(serve, input_signature=list(specs), autograph=False)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # none are needed
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve}, options=options)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function from clips to outputs that a folder holds."""
    loaded = tf.saved_model.load(str(path))

    def outputs(clips: np.ndarray) -> np.ndarray:
        (tensor,) = loaded.signatures[SIGNATURE](tf.constant(clips)).values()
        return tensor.numpy()

    return outputs
