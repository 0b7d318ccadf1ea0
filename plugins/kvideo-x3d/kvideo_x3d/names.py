"""How PyTorchVideo names the tensors of X3D and CSN."""

from __future__ import annotations

import re
from collections.abc import Collection

from kvideo.weights.families import HEAD, Dialect, Family, NameMap

_UNIT = re.compile(r"res(?P<stage>\d)_(?P<block>\d+)_(?P<part>\w+?)(?P<bn>_bn)?")
# part of a block -> (convolution, batch norm)
_PARTS = {
    "shortcut": ("branch1_conv", "branch1_norm"),
    "a": ("branch2.conv_a", "branch2.norm_a"),
    "b": ("branch2.conv_b", "branch2.norm_b"),
    "c": ("branch2.conv_c", "branch2.norm_c"),
}
_SQUEEZE = {"se_reduce": "branch2.norm_b.1.block.0", "se_expand": "branch2.norm_b.1.block.2"}
_X3D_ENDS = {
    "stem_xy": "blocks.0.conv.conv_t",  # the names of the two are swapped there
    "stem_t": "blocks.0.conv.conv_xy",
    "stem_t_bn": "blocks.0.norm",
    "head_conv": "blocks.5.pool.pre_conv",
    "head_conv_bn": "blocks.5.pool.pre_norm",
    "head_dense": "blocks.5.pool.post_conv",
    HEAD: "blocks.5.proj",
}
_CSN_ENDS = {"stem": "blocks.0.conv", "stem_bn": "blocks.0.norm", HEAD: "blocks.5.proj"}


def _x3d_modules(layers: Collection[str]) -> NameMap:
    """Of X3D: behind the depthwise convolution is a sequence, whose first member is batch norm."""

    def module(layer: str) -> str | None:
        found = _X3D_ENDS.get(layer, _block(layer))
        return f"{found}.0" if found and layer.endswith("_b_bn") else found

    return module


def _csn_modules(layers: Collection[str]) -> NameMap:
    return lambda layer: _CSN_ENDS.get(layer, _block(layer))


def _block(layer: str) -> str | None:
    """The module of a layer in a block."""
    if not (match := _UNIT.fullmatch(layer)):
        return None
    part = match["part"]
    name = _PARTS[part][bool(match["bn"])] if part in _PARTS else _SQUEEZE.get(part)
    return name and f"blocks.{int(match['stage']) - 1}.res_blocks.{match['block']}.{name}"


X3D = Family(
    "X3D",
    (
        Dialect(
            "PyTorchVideo", r"^blocks\.0\.conv\.conv_xy\.", _x3d_modules, r"^blocks\.5\.proj\.bias$"
        ),
    ),
)
CSN = Family(
    "CSN",
    (
        Dialect(
            "PyTorchVideo", r"^blocks\.0\.conv\.weight$", _csn_modules, r"^blocks\.5\.proj\.bias$",
        ),
    ),
)  # fmt: skip
