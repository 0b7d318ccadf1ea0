"""The receptive field of every layer: which frames and pixels of a clip its outputs depend on.

Exact, and without running the model: what a layer's positions depend on is followed through the
graph, axis by axis, from the clip on.

References:
    Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvideo.analysis.field_rules import field_of
from kvideo.analysis.fields import Field
from kvideo.errors import UsageError
from kvideo.graphs import clip_tensor, trace


def receptive_fields(
    model: keras.Model, input_shape: Sequence[int] | None = None
) -> dict[str, Field | None]:
    """What each layer's output depends on, by name; of a layer in a nested model `outer/inner`.

    Args:
        model: a functional or sequential model of one clip.
        input_shape: (T, H, W, C), where the model leaves sizes open.

    Returns:
        None for layers of which it is not known.

    Raises:
        UsageError: see `Tracker`.
    """
    found: dict[str, Field | None] = {}
    clip = clip_tensor(model, input_shape)
    tracker = Tracker(clip, model.name)

    def visit(name: str, operation: Any, given: list[Any], outputs: Any) -> None:
        found[name] = tracker.follow(operation, given, outputs)

    trace(model, clip, visit)
    return found


class Tracker:
    """Follows what tensors depend on, call by call.

    Args:
        clip: (1, T, H, W, C), see `clip_tensor`.
        name: the model's, for messages.

    Raises:
        UsageError: the model takes no clips.
    """

    def __init__(self, clip: keras.KerasTensor, name: str) -> None:
        if len(clip.shape) != 5:
            raise UsageError(f'"{name}" takes no clips (B, T, H, W, C).')
        self._fields: dict[int, Field | None] = {id(clip): Field.of_clip(clip.shape[1:])}
        self._tensors: list[Any] = [clip]  # as long as they are here, no other gets one's id

    def of(self, tensor: keras.KerasTensor) -> Field | None:
        """What a tensor depends on; None if that is not known."""
        return self._fields.get(id(tensor))

    def follow(self, operation: Any, given: list[Any], outputs: Any) -> Field | None:
        """What an operation's outputs depend on; see `kvideo.graphs.trace`."""
        made = keras.tree.flatten(outputs)
        known = [field for field in map(self.of, given) if field is not None]
        field = None
        if given and len(known) == len(given):
            field = field_of(operation, known, given[0].shape, made[0].shape)
        self._tensors.extend(made)
        self._fields.update({id(each): field for each in made})
        return field
