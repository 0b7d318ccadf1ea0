"""A model as a function from clips to probabilities, compiled once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kvideo.folding import can_fold, fold_batch_norm
from kvideo.hardware import use_xla

if TYPE_CHECKING:
    import keras


class Predictor:
    """Runs a model on clips.

    Args:
        model: any classifier with an input of clips.
        batch_size: most clips that are run at once.
        fold: whether batch norms are folded into the convolutions before them, in a copy: faster,
            but what becomes of the model's weights afterwards has no effect.
    """

    def __init__(self, model: keras.Model, batch_size: int = 8, *, fold: bool = True) -> None:
        if fold and can_fold(model):
            model = fold_batch_norm(model)
        self.model, self.batch_size = model, batch_size
        shape = model.input_shape
        self._run = tf.function(
            lambda clips: model(clips, training=False),
            input_signature=[tf.TensorSpec((None, *shape[1:]), tf.uint8)],
            jit_compile=use_xla(),
        )

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Probabilities (N, num_classes) float32 of clips (N, T, H, W, 3) uint8."""
        parts = [
            self._run(clips[first : first + self.batch_size]).numpy()
            for first in range(0, len(clips), self.batch_size)
        ]
        return np.concatenate(parts)

    def ragged(self, groups: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Probabilities of groups of clips, group by group; small groups share a batch.

        Args:
            groups: arrays (K_i, T, H, W, 3) uint8, K_i at least 1.

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
