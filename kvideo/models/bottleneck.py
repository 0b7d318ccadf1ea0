"""Bottleneck residual stages over space and time, from tables: what ResNet video models share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from kvideo.errors import UsageError, check_choice
from kvideo.layers.conv import conv_unit
from kvideo.layers.dropout import DropPath
from kvideo.layers.nonlocal_block import NonLocalBlock3D
from kvideo.models.classifier import check_count

EXPANSION = 4
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # by depth; He et al. 2016, table 1
FIRST_STAGE = 2  # stages are res2 to res5
_EVERY_OTHER = {5: {3: (1, 3), 4: (1, 3, 5)}, 10: {3: (0, 1, 2, 3), 4: (0, 1, 2, 3, 4, 5)}}

NonLocal = int | Mapping[int, Sequence[int]] | None


@dataclass(frozen=True)
class Stage:
    """One row of a table: what differs from stage to stage.

    Attributes:
        kernel_t: temporal size of each block's first convolution, cycled over the blocks.
        stride: of height and width, in the first block.
        stride_t: of time, likewise.
        dilation: of the 3×3 convolutions, in all blocks.
    """

    kernel_t: tuple[int, ...]
    stride: int = 2
    stride_t: int = 1
    dilation: int = 1


Stages = tuple[Stage, Stage, Stage, Stage]
OUTPUT_STRIDES = (32, 16)


def with_output_stride(stages: Stages, output_stride: int) -> Stages:
    """res2 to res5 for a map of so many pixels a cell; 16: res5 has holes in place of a stride.

    Weights fit as they are. So detectors see twice as many cells a side (Feichtenhofer et al.
    2019, section 5; as in PySlowFast, all of res5's 3×3 convolutions have the holes).

    Raises:
        UsageError: another number than 16 or 32.
    """
    check_choice("output_stride", output_stride, OUTPUT_STRIDES)
    if output_stride == 32:
        return stages
    return (*stages[:3], replace(stages[3], stride=1, dilation=2))


@dataclass(frozen=True)
class Blocks:
    """What all stages of one network have in common.

    Attributes:
        depth: 50 or 101.
        separate: whether the 3×3 convolution has a temporal one of three frames before it, which
            takes the stride of time: R(2+1)D as PyTorchVideo builds it.
        zero_scale: whether each residual branch begins at zero.
        drop_path: chance of leaving out the last block's branch; it rises from 0 linearly.
        nonlocal_blocks: stage number (3 for res3) to the blocks that a non-local one follows.
        nonlocal_mode: see `NonLocalBlock3D`.
    """

    depth: int = 50
    separate: bool = False
    zero_scale: bool = True
    drop_path: float = 0.0
    nonlocal_blocks: Mapping[int, Sequence[int]] = field(default_factory=dict)
    nonlocal_mode: str = "softmax"

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return BLOCKS[self.depth]

    def drop_rate(self, stage: int, block: int) -> float:
        """`drop_path` of one block."""
        number = sum(self.counts[: stage - FIRST_STAGE]) + block
        return self.drop_path * number / (sum(self.counts) - 1)


def check_depth(depth: int) -> int:
    """50 or 101.

    Raises:
        UsageError: it is neither.
    """
    check_choice("depth", depth, BLOCKS)
    return depth


def check_drop_path(rate: float) -> float:
    """A rate of 0 <= rate < 1.

    Raises:
        UsageError: it is not.
    """
    if not 0 <= rate < 1:
        raise UsageError(f"drop_path must be at least 0 and less than 1, not {rate!r}.")
    return rate


def check_nonlocal(blocks: NonLocal, depth: int) -> Mapping[int, Sequence[int]]:
    """Stage number to block numbers, from what a builder's `nonlocal_blocks` may be.

    Args:
        blocks: None; 5 (every other block of res3 and res4) or 10 (every block), as in Wang et
            al. 2018, section 5.1; or the mapping itself, such as `{4: (5,)}`.
        depth: of the network.

    Raises:
        UsageError: no such number, stage or block.
    """
    if not blocks:
        return {}
    if isinstance(blocks, int):
        if blocks not in _EVERY_OTHER or depth != 50:
            raise UsageError(
                "nonlocal_blocks must be 5 or 10, with depth 50, or name blocks by stage, as in "
                f"{{3: (1, 3), 4: (1, 3, 5)}}; not {blocks!r} with depth {depth}."
            )
        return _EVERY_OTHER[blocks]
    for stage, places in blocks.items():
        if stage not in range(FIRST_STAGE, FIRST_STAGE + 4):
            raise UsageError(f"nonlocal_blocks: there are stages 2 to 5, not {stage!r}.")
        count = BLOCKS[depth][stage - FIRST_STAGE]
        for place in places:
            if place not in range(count):
                raise UsageError(
                    f"nonlocal_blocks: stage {stage} has blocks 0 to {count - 1}, not {place!r}."
                )
    return blocks


def residual_stage(
    x: Any, number: int, stage: Stage, width: int, blocks: Blocks, prefix: str = ""
) -> Any:
    """Builds one stage on a Keras tensor.

    Args:
        x: (B, T, H, W, C).
        number: 2 for res2, and so on.
        stage: the row of the table.
        width: channels of the 3×3 convolutions; the stage puts out four times as many.
        blocks: what the stages share.
        prefix: of the layers' names, which go on `res2_0_a`, `res2_0_b` …

    Returns:
        (B, T', H', W', 4·width).
    """
    for block in range(blocks.counts[number - FIRST_STAGE]):
        name = f"{prefix}res{number}_{block}"
        strides = (stage.stride_t, stage.stride, stage.stride) if block == 0 else (1, 1, 1)
        kernel_t = stage.kernel_t[block % len(stage.kernel_t)]
        drop_path = blocks.drop_rate(number, block)
        x = _bottleneck(x, width, kernel_t, strides, stage.dilation, blocks, drop_path, name)
        if block in blocks.nonlocal_blocks.get(number, ()):
            inner = check_count("nonlocal width", width * EXPANSION // 2)
            x = NonLocalBlock3D(inner, mode=blocks.nonlocal_mode, name=f"{name}_nonlocal")(x)
    return x


def _bottleneck(
    x: Any,
    width: int,
    kernel_t: int,
    strides: tuple[int, int, int],
    dilation: int,
    blocks: Blocks,
    drop_path: float,
    name: str,
) -> Any:
    """k×1×1, 1×3×3 (with the stride), 1×1×1, plus the shortcut; then ReLU."""
    shortcut = x
    outputs = width * EXPANSION
    if x.shape[-1] != outputs or strides != (1, 1, 1):
        shortcut = conv_unit(
            x, outputs, 1, strides=strides, name=f"{name}_shortcut", padding="half", activation=None
        )
    y = conv_unit(x, width, (kernel_t, 1, 1), name=f"{name}_a", padding="half")
    if blocks.separate:
        over_time, strides = (strides[0], 1, 1), (1, *strides[1:])
        y = conv_unit(y, width, (3, 1, 1), strides=over_time, name=f"{name}_b_t", padding="half")
    last = f"{name}_b_xy" if blocks.separate else f"{name}_b"
    y = conv_unit(
        y,
        width,
        (1, 3, 3),
        strides=strides,
        name=last,
        padding="half",
        dilation=(1, dilation, dilation),
    )
    y = conv_unit(
        y,
        outputs,
        1,
        name=f"{name}_c",
        padding="half",
        activation=None,
        zero_scale=blocks.zero_scale,
    )
    if drop_path:
        y = DropPath(drop_path, name=f"{name}_drop_path")(y)
    y = keras.layers.Add(name=f"{name}_add")([shortcut, y])
    return keras.layers.Activation("relu", name=f"{name}_relu")(y)
