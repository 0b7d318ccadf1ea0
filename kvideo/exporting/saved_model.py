"""SavedModel: TensorFlow's own format, a folder; for TensorFlow Serving, TF.js, C++ and Java."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

SIGNATURE = "serving_default"


def write(model: keras.Model, path: Path, specs: Sequence[tf.TensorSpec], output: str) -> None:
    """Writes the folder `path`; its signature `serving_default` and its method `serve` predict.

    Args:
        model: a built model with one output.
        path: a folder that does not exist.
        specs: shape, type and name of each input.
        output: name of the output.
    """

    # Not Keras's own exporter: it writes every weight twice, and lets XLA in, whose 3D convolution
    # is slow on a CPU.
    def serve_one(clip: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: model(clip, training=False)}

    def serve_several(*clips: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: model(list(clips), training=False)}

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    serve = serve_one if len(specs) == 1 else serve_several
    module.serve = tf.function(serve, input_signature=list(specs), autograph=False)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # none are needed
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.serve}, options=options)


def load(path: Path) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The function from clips, by the inputs' names, to outputs that a folder holds."""
    loaded = tf.saved_model.load(str(path))

    def outputs(clips: Mapping[str, np.ndarray]) -> np.ndarray:
        given = {name: tf.constant(each) for name, each in clips.items()}
        (tensor,) = loaded.signatures[SIGNATURE](**given).values()
        return tensor.numpy()

    return outputs
