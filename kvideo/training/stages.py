"""The stages of a network: what its layers do at one size of the picture.

Settings that treat a network by depth (smaller rates for early layers, thawing from the head down)
need a depth for every weight that means the same in any model. Networks of pictures grow deeper as
their maps get smaller, so that is taken: a ResNet gives its stem, res2 to res5, and the head.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from kvideo.graphs import functional_graph, graph_nodes

_HEAD = "logits"


def stages(model: keras.Model) -> list[list[keras.Layer]]:
    """The layers with weights of a functional model, from the first stage to the head.

    Layers whose outputs have the same height and width make a stage; those without height and width
    (recurrent or dense ones behind the pooling) make another, and the last one is the layer
    `logits` alone. Branches that run side by side, as in SlowFast, share their stages. A nested
    model is looked into.

    Args:
        model: functional, or one whose layers are functional.

    Returns:
        At least one stage; a layer with weights is in one of them.
    """
    found: dict[int, tuple[keras.Layer, float]] = {}
    _visit(model, found)
    sizes = sorted({size for _, size in found.values()}, reverse=True)
    return [[layer for layer, own in found.values() if own == size] for size in sizes]


def _visit(model: Any, found: dict[int, tuple[keras.Layer, float]]) -> None:
    for call in graph_nodes(model):
        layer = call.operation
        inner = getattr(layer, "layer", layer)  # a wrapper, such as TimeDistributed
        if functional_graph(inner) is not None:
            _visit(inner, found)
        elif isinstance(layer, keras.Layer) and layer.weights and id(layer) not in found:
            found[id(layer)] = layer, _size(layer.name, call.outputs[0].shape)


def _size(name: str, shape: tuple[int | None, ...]) -> float:
    """Positions of a map; less for what has none, least for the head."""
    if name == _HEAD:
        return -1.0
    if len(shape) < 4:
        return 0.0
    height, width = shape[-3:-1]
    return float(math.prod((height or 1, width or 1)))
