"""Names of C3D's weights: mmaction2's and those of the published Keras file."""

from __future__ import annotations

import re
from collections.abc import Collection

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_CONVOLUTION = re.compile(r"conv\d[ab]")
_SINGLE = ("conv1a", "conv2a")  # stages of one convolution, which Keras's file calls conv1, conv2


def mmaction2(layers: Collection[str]) -> NameMap:
    """mmaction2's module names."""

    def module(layer: str) -> str | None:
        if _CONVOLUTION.fullmatch(layer):
            return f"backbone.{layer}.conv"
        return {"fc6": "backbone.fc6", "fc7": "backbone.fc7", HEAD: "cls_head.fc_cls"}.get(layer)

    return module


def sports1m(layers: Collection[str]) -> NameMap:
    """Layer names of the published Keras file."""

    def module(layer: str) -> str | None:
        if _CONVOLUTION.fullmatch(layer):
            return layer[:-1] if layer in _SINGLE else layer
        return {"fc6": "fc6", "fc7": "fc7", HEAD: "fc8"}.get(layer)

    return module


C3D = Family(
    "C3D",
    (
        Dialect(
            "mmaction2",
            r"^backbone\.conv1a\.conv\.",
            mmaction2,
            head=r"^cls_head\.fc_cls\.bias$",
        ),
        Dialect("Keras", r"^conv1/", sports1m, head=r"^fc8/bias$", naming="keras"),
    ),
)
"""c3d."""
