"""A late fusion as one Keras model: members, each with an input of its own, and what joins them.

A model that is no fusion is its own only member.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kvideo.errors import UsageError
from kvideo.graphs import as_functional
from kvideo.saving import Member, ModelInfo, model_info

_MEMBER, _CLIP, _FUSION = "member_{}", "clip_{}", "fusion"


def join_members(models: Sequence[keras.Model], fusion: keras.Model) -> keras.Model:
    """One model of a list of clips, with its `ModelInfo`.

    Args:
        models: at least two, each with its `ModelInfo`; of the same classes.
        fusion: from a list of (B, num_classes) to (B, num_classes).

    Raises:
        UsageError: a model is not functional.
    """
    inputs, scores = [], []
    for number, model in enumerate(models, 1):
        network = as_functional(model)
        if network is None:
            raise UsageError(f'the model "{model.name}" is not functional and cannot be fused.')
        clip = keras.Input(network.input_shape[1:], name=_CLIP.format(number), dtype="float32")
        part = keras.Model(network.input, network.output, name=_MEMBER.format(number))
        inputs.append(clip)
        scores.append(part(clip))
    joined = keras.Model(inputs, fusion(scores), name="score_fusion")
    infos = [model_info(model) for model in models]
    first = infos[0]
    members = tuple(Member(info.clip_spec, info.views, info.builder) for info in infos)
    joined.kvideo_info = ModelInfo(
        first.clip_spec,
        first.class_names,
        first.multi_label,
        first.views,
        first.builder,
        members=members,
    )
    return joined


def members_of(model: keras.Model) -> list[keras.Model]:
    """The models of a late fusion, or the model itself."""
    info = model_info(model)
    if not info.members:
        return [model]
    return [model.get_layer(_MEMBER.format(number + 1)) for number in range(len(info.members))]


def fuse_scores(model: keras.Model, scores: Sequence[np.ndarray]) -> np.ndarray:
    """What the model makes of its members' scores.

    Args:
        model: a late fusion, or any other model, which has one member.
        scores: (N, num_classes) of each member.

    Returns:
        (N, num_classes) float64.
    """
    if len(scores) == 1:
        return np.asarray(scores[0], np.float64)
    fusion: Any = model.get_layer(_FUSION)
    inputs = [np.asarray(each, np.float32) for each in scores]
    return np.asarray(fusion(inputs, training=False), np.float64)
