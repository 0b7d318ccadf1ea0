"""Gradient accumulation: a large batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kvideo.training.clip_parts import over_parts


def added_up(
    network: keras.Model,
    gradients_of: Callable[..., tuple[list[Any], Any]],
    batch: Any,
    count: int,
    variables: list[Any],
) -> tuple[list[Any], Any]:
    """Gradients and figures of a batch that is run in parts, one after the other.

    Args:
        network: what `gradients_of` runs.
        gradients_of: from a part of `batch` to the gradients of `variables` and figures (2,).
        batch: a tuple of tensors (B, ...), or of structures of them; None stays None.
        count: of the parts; divides B.
        variables: trained ones.

    Returns:
        Each the sum over the parts.
    """

    def split(x: Any) -> Any:
        if x is None:
            return None
        length = tf.shape(x)[0] if x.shape[0] is None else x.shape[0]
        return tf.reshape(x, (count, length // count, *x.shape[1:]))

    parts = tf.nest.map_structure(split, batch)

    def body(index: Any, total: list[Any], figures: Any) -> tuple[list[Any], Any]:
        part = tf.nest.map_structure(lambda x: None if x is None else x[index], parts)
        gradients, more = gradients_of(*part)
        added = [a if b is None else a + b for a, b in zip(total, gradients, strict=True)]
        return added, figures + more

    zeros = [tf.zeros_like(variable.value) for variable in variables]
    total, figures = over_parts(network, body, count, zeros, tf.zeros(2))
    return total, figures
