"""Which models a checkpoint may be of, by the names and shapes of a few of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Sign:
    """Models that a file is of if it has `key` (with `length` along `axis`) and not `absent`."""

    models: tuple[str, ...]
    key: str
    absent: str = r"(?!)"
    axis: int = 0
    length: int | None = None


_TWO = r"multipathway_blocks|s1\.pathway1_stem"
_FUSION = r"^(blocks\.0\.multipathway_fusion\.conv_fast_to_slow|s1_fuse\.conv_f2s)\.weight$"
_DEEP = r"^(blocks\.3\.multipathway_blocks\.0\.res_blocks\.22|s4\.pathway0_res22)\."
_STEM = r"^(blocks\.0\.conv|s1\.pathway0_stem\.conv)\.weight$"
_SHIFTED = r"^blocks\.6\.proj\.bias$"

# Kernels are (out, in, T, H, W).
_SIGNS = (
    _Sign(("slowfast_4x16_r50",), _FUSION, absent=_DEEP, axis=2, length=5),
    _Sign(("slowfast", "slowfast_8x8_r50"), _FUSION, absent=_DEEP, axis=2, length=7),
    _Sign(("slowfast_8x8_r101", "slowfast_16x8_r101"), _DEEP),
    _Sign(("r2plus1d",), r"branch2\.conv_b\.conv_t\."),
    _Sign(("i3d_r50",), _STEM, axis=2, length=5),
    _Sign(("c2d",), _SHIFTED, absent=_TWO),
    _Sign(("c2d", "slow_8x8_r50"), r"^s1\.pathway0_stem\.", absent=_TWO),
    _Sign(
        ("slow", "slow_8x8_r50", "slow_4x16_r50"),
        _STEM,
        absent=_TWO,
        axis=2,
        length=1,
    ),
    _Sign(("r2plus1d_18",), r"^layer1\.0\.conv1\.0\.3\.weight$"),
    _Sign(("mc3_18",), r"^layer2\.0\.conv1\.0\.weight$", axis=2, length=1),
    _Sign(("r3d_18",), r"^layer2\.0\.conv1\.0\.weight$", axis=2, length=3),
    _Sign(("s3d",), r"^features\.0\.0\.0\.weight$"),
    _Sign(("i3d",), r"(^|/)Conv3d_1a_7x7[./]"),
    _Sign(("c3d",), r"^(backbone\.)?conv1a\.conv\.|^conv1[./]"),
)


def guess_models(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Names of models that a checkpoint with these tensors may be of; empty if nobody knows."""
    for sign in _SIGNS:
        if any(re.search(sign.absent, name) for name in tensors):
            continue
        for name, tensor in tensors.items():
            if re.search(sign.key, name) and (
                sign.length is None
                or (tensor.ndim > sign.axis and tensor.shape[sign.axis] == sign.length)
            ):
                return list(sign.models)
    return []
