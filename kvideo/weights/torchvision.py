"""Names of torchvision's video ResNets: r3d_18, mc3_18, r2plus1d_18."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_STEM_FILTERS, _STEM_MIDDLE = 64, 45

_UNIT = re.compile(
    r"layer(?P<stage>\d)_(?P<block>\d)_(?P<part>conv\d|downsample)(?P<half>_xy|_t)?(?P<bn>_bn)?"
)
# A convolution and its batch norm are members 0 and 1 of a sequence. A factorized convolution is
# such a sequence itself, in which the temporal one is member 3; its batch norm is the outer one.
_HALVES = {
    (None, False): "0",
    (None, True): "1",
    ("_xy", False): "0.0",
    ("_xy", True): "0.1",
    ("_t", False): "0.3",
    ("_t", True): "1",
}
_FIXED = {
    "stem": "stem.0",
    "stem_bn": "stem.1",
    "stem_xy": "stem.0",
    "stem_xy_bn": "stem.1",
    "stem_t": "stem.3",
    "stem_t_bn": "stem.4",
    HEAD: "fc",
}


def torchvision(layers: Collection[str]) -> NameMap:
    """Module names of torchvision's video ResNets."""

    def module(layer: str) -> str | None:
        if not (match := _UNIT.fullmatch(layer)):
            return _FIXED.get(layer)
        half = _HALVES[match["half"], bool(match["bn"])]
        return f"layer{match['stage']}.{match['block']}.{match['part']}.{half}"

    return module


def _options(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Widths that are not the published ones."""
    widths = {
        "stem_filters": ("layer1.0.conv1.1.weight", _STEM_FILTERS),
        "stem_middle": ("stem.0.weight", _STEM_MIDDLE),
    }
    if "stem.3.weight" not in tensors:  # the stem is one convolution
        del widths["stem_middle"]
    found = {name: len(tensors[key]) for name, (key, _) in widths.items() if key in tensors}
    return {name: width for name, width in found.items() if width != widths[name][1]}


VIDEO_RESNET = Family(
    "video ResNet",
    (
        Dialect(
            "torchvision",
            r"^stem\.0\.weight$",
            torchvision,
            head=r"^fc\.bias$",
            options=_options,
        ),
    ),
)
"""r3d_18, mc3_18 and r2plus1d_18."""
