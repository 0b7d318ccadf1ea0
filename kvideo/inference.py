"""A model as a function from clips to probabilities, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.clip_spec import clip_dtype
from kvideo.errors import UsageError
from kvideo.folding import can_fold, fold_batch_norm, inner_layers
from kvideo.hardware import use_xla

_LARGEST_CONSTANTS = 2**29  # bytes; TensorFlow copies them several times while it compiles


class Predictor:
    """Runs a model on clips.

    Args:
        model: any model of clips (B, T, H, W, C), or of their features (B, T, C).
        batch_size: most clips that are run at once.
        fold: whether the weights stay as they are, so that the model can be rebuilt for speed:
            batch norms are folded into the convolutions before them, in a copy, and after
            `settle_after` clips the kernels become constants. What becomes of the model's weights
            afterwards has no effect.
        settle_after: how many clips are run before the model is compiled once more, with constant
            kernels. On a CPU oneDNN then keeps them in its own order (SlowFast in bfloat16 runs a
            fifth faster), which pays for the compiling after about this many clips.

    Raises:
        UsageError: the model is an actor detector.
    """

    def __init__(
        self,
        model: keras.Model,
        batch_size: int = 8,
        *,
        fold: bool = True,
        settle_after: int = 192,
    ) -> None:
        if isinstance(getattr(model, "input", None), dict):
            raise UsageError(
                f'"{model.name}" is an actor detector, which takes boxes besides clips; '
                "`kvideo detect` works with it."
            )
        if foldable := fold and can_fold(model):
            model = fold_batch_norm(model)
        self.model, self.batch_size = model, batch_size
        self._run = self._compile(lambda clips: model(clips, training=False))
        self._until_settled: float = float("inf")
        if foldable and not use_xla() and 0 < _kernel_bytes(model) <= _LARGEST_CONSTANTS:
            self._until_settled = settle_after

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Probabilities (N, num_classes) float32 of clips (N, T, H, W, C)."""
        parts = [
            self._run_batch(clips[first : first + self.batch_size])
            for first in range(0, len(clips), self.batch_size)
        ]
        return np.concatenate(parts)

    def _run_batch(self, clips: np.ndarray) -> np.ndarray:
        if self._until_settled <= 0:
            self._run = self._compile(_with_constant_kernels(self.model))
            self._until_settled = float("inf")
        self._until_settled -= len(clips)
        return self._run(clips).numpy()

    def _compile(self, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        shape = (None, *self.model.input_shape[1:])
        clips = tf.TensorSpec(shape, clip_dtype(shape))
        return tf.function(run, input_signature=[clips], jit_compile=use_xla())

    def ragged(self, groups: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Probabilities of groups of clips, group by group; small groups share a batch.

        Args:
            groups: arrays (K_i, T, H, W, C), K_i at least 1.

        Yields:
            Arrays (K_i, num_classes), in order.
        """
        waiting: list[np.ndarray] = []
        for group in groups:
            waiting.append(group)
            if sum(map(len, waiting)) >= self.batch_size:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    def _flush(self, groups: list[np.ndarray]) -> Iterator[np.ndarray]:
        if groups:
            sizes = np.cumsum([len(group) for group in groups])[:-1]
            yield from np.split(self(np.concatenate(groups)), sizes)


def _convolutions(model: keras.Model) -> Iterator[Any]:
    kinds = keras.layers.Conv2D | keras.layers.Conv3D
    return (layer for layer in inner_layers(model) if isinstance(layer, kinds))


def _kernel_bytes(model: keras.Model) -> int:
    return sum(int(np.prod(layer.kernel.shape)) * 4 for layer in _convolutions(model))


def _with_constant_kernels(model: keras.Model) -> Callable[[Any], Any]:
    """The model as a function of clips with the kernels of its convolutions as constants.

    Biases stay variables: TensorFlow drops an addition of constant zeros, and with it the
    operation that does convolution, bias and activation at once.
    """
    kernels = {
        id(layer.kernel): np.asarray(layer.kernel).astype(
            tf.as_dtype(layer.compute_dtype).as_numpy_dtype
        )
        for layer in _convolutions(model)
    }

    def value(variable: Any) -> Any:
        kernel = kernels.get(id(variable))
        return variable.value if kernel is None else tf.constant(kernel)

    def run(clips: Any) -> Any:
        outputs, _ = model.stateless_call(
            [value(variable) for variable in model.trainable_variables],
            [value(variable) for variable in model.non_trainable_variables],
            clips,
            training=False,
        )
        return outputs

    return run
