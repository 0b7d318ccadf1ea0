"""The two stages of an `actor_detector`: from clips to actors, and from their boxes to actions."""

from __future__ import annotations

import keras

from kvideo.errors import UsageError
from kvideo.models.actor_detector import (
    ACTION_HEAD,
    ACTORNESS,
    BOXES,
    CLIP,
    FEATURE_MAP,
    LOGITS,
    SIDES,
)


def split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Two models that share the layers of an `actor_detector`.

    Returns:
        One from clips to a dictionary of `feature_map` and, where there is a person head,
        `actorness` and `sides`; and one from [map, boxes] to logits (B, N, C).

    Raises:
        UsageError: it is no such model.
    """
    check_detector(model)
    found = model.get_layer(FEATURE_MAP).output
    heads = {name: model.output[name] for name in (ACTORNESS, SIDES) if name in model.output}
    first = keras.Model(model.input[CLIP], {FEATURE_MAP: found, **heads})
    return first, model.get_layer(ACTION_HEAD)


def check_detector(model: keras.Model) -> None:
    """Refuses what is no `actor_detector`.

    Raises:
        UsageError: it is not.
    """
    inputs, outputs = model.input, model.output
    if not (
        isinstance(inputs, dict)
        and isinstance(outputs, dict)
        and {CLIP, BOXES} <= set(inputs)
        and LOGITS in outputs
    ):
        raise UsageError(
            f'"{model.name}" is no actor detector. `kvideo detect fit` makes one of any model.'
        )


def has_person_head(model: keras.Model) -> bool:
    """Whether an `actor_detector` finds boxes itself."""
    return ACTORNESS in model.output
