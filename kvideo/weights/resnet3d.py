"""Names of the 3D ResNets' weights: PyTorchVideo's and PySlowFast's.

The layers are C2D's, I3D-R50's, Slow's, R(2+1)D's and SlowFast's, as `kvideo.models` names them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_STEM_FILTERS = 64
_FIVE_NONLOCAL = {3: [1, 3], 4: [1, 3, 5]}  # what `nonlocal_blocks=5` means

_UNIT = re.compile(
    r"(?P<path>slow_|fast_)?(?:stem|res(?P<stage>\d)_(?P<block>\d+)_(?P<part>[a-z_]+?))(?P<bn>_bn)?"
)
_FUSION = re.compile(r"fuse_(?:stem|res(?P<stage>\d))(?P<bn>_bn)?")
_NONLOCAL = re.compile(r"res(?P<stage>\d)_(?P<block>\d+)_nonlocal/(?P<part>\w+)")

# part of a block -> (convolution, batch norm)
_VIDEO_PARTS = {
    "shortcut": ("branch1_conv", "branch1_norm"),
    "a": ("branch2.conv_a", "branch2.norm_a"),
    "b": ("branch2.conv_b", "branch2.norm_b"),
    "b_t": ("branch2.conv_b.conv_t", "branch2.conv_b.norm"),
    "b_xy": ("branch2.conv_b.conv_xy", "branch2.norm_b"),
    "c": ("branch2.conv_c", "branch2.norm_c"),
}
_SLOWFAST_PARTS = {
    "shortcut": ("branch1", "branch1_bn"),
    "a": ("branch2.a", "branch2.a_bn"),
    "b": ("branch2.b", "branch2.b_bn"),
    "c": ("branch2.c", "branch2.c_bn"),
}
_NONLOCAL_PARTS = {
    "theta": "conv_theta",
    "phi": "conv_phi",
    "g": "conv_g",
    "out": "conv_out",
    "norm": "bn",
}


def pytorchvideo(layers: Collection[str]) -> NameMap:
    """PyTorchVideo's module names.

    It counts modules without weights too: after C2D's and I3D's pool behind res2 all numbers are
    one higher, and so is the head's where two pathways are joined.
    """
    pooled = "res2_pool" in layers
    two_pathways = "slow_stem" in layers

    def module(layer: str) -> str | None:
        if layer == HEAD:
            return f"blocks.{5 + (pooled or two_pathways)}.proj"
        if match := _FUSION.fullmatch(layer):
            kind = "norm" if match["bn"] else "conv_fast_to_slow"
            return f"blocks.{int(match['stage'] or 1) - 1}.multipathway_fusion.{kind}"
        if not (match := _UNIT.fullmatch(layer)):
            return None
        stage = int(match["stage"] or 1)
        block = f"blocks.{stage - 1 + (pooled and stage > 2)}"
        if two_pathways:
            block += f".multipathway_blocks.{_pathway(match)}"
        if stage == 1:
            return f"{block}.{'norm' if match['bn'] else 'conv'}"
        parts = _VIDEO_PARTS.get(match["part"])
        return parts and f"{block}.res_blocks.{match['block']}.{parts[bool(match['bn'])]}"

    return module


def pyslowfast(layers: Collection[str]) -> NameMap:
    """PySlowFast's module names; they number stages (s1 is the stem) and nothing else."""

    def module(layer: str) -> str | None:
        if layer == HEAD:
            return "head.projection"
        if match := _FUSION.fullmatch(layer):
            return f"s{match['stage'] or 1}_fuse.{'bn' if match['bn'] else 'conv_f2s'}"
        if match := _NONLOCAL.fullmatch(layer):
            part = _NONLOCAL_PARTS.get(match["part"])
            return part and f"s{match['stage']}.pathway0_nonlocal{match['block']}.{part}"
        if not (match := _UNIT.fullmatch(layer)):
            return None
        path = f"s{match['stage'] or 1}.pathway{_pathway(match)}"
        if not match["stage"]:
            return f"{path}_stem.{'bn' if match['bn'] else 'conv'}"
        parts = _SLOWFAST_PARTS.get(match["part"])
        return parts and f"{path}_res{match['block']}.{parts[bool(match['bn'])]}"

    return module


def _video_options(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The stem's width, where it is not the published one."""
    return _stem(tensors, r"blocks\.0\.(multipathway_blocks\.0\.)?conv\.weight")


def _slowfast_options(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The stem's width, where it is not the published one, and the places of non-local blocks."""
    options = _stem(tensors, r"s1\.pathway0_stem\.conv\.weight")
    places: dict[int, set[int]] = {}
    for name in tensors:
        if match := re.match(r"s(\d)\.pathway0_nonlocal(\d+)\.", name):
            places.setdefault(int(match[1]), set()).add(int(match[2]))
    if places:
        found = {stage: sorted(places[stage]) for stage in sorted(places)}
        options["nonlocal_blocks"] = 5 if found == _FIVE_NONLOCAL else found
    return options


def _stem(tensors: Mapping[str, np.ndarray], key: str) -> dict[str, Any]:
    widths = (len(tensor) for name, tensor in tensors.items() if re.fullmatch(key, name))
    width = next(widths, _STEM_FILTERS)
    return {} if width == _STEM_FILTERS else {"stem_filters": width}


def _pathway(match: re.Match[str]) -> int:
    return int(match["path"] == "fast_")


RESNET3D = Family(
    "3D ResNet",
    (
        Dialect(
            "PyTorchVideo",
            r"^blocks\.0\.(multipathway_blocks\.0\.)?conv\.",
            pytorchvideo,
            head=r"^blocks\.\d\.proj\.bias$",
            options=_video_options,
        ),
        Dialect(
            "PySlowFast",
            r"^s1\.pathway0_stem\.",
            pyslowfast,
            head=r"^head\.projection\.bias$",
            options=_slowfast_options,
        ),
    ),
    optional=r"_nonlocal/",
)
"""C2D, I3D-R50, Slow, SlowFast, R(2+1)D of PyTorchVideo."""
