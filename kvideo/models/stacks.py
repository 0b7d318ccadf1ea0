"""The lecture's small convolution stack, in 2D and 3D, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.layers.conv import NORM, Norm, conv_unit
from kvideo.models.classifier import check_count

LECTURE_WIDTHS = (12, 24)
_POOLS = {4: keras.layers.MaxPooling2D, 5: keras.layers.MaxPooling3D}


@dataclass(frozen=True)
class Stage:
    """One row: a max-pool of `pool` along every axis (1: none), then a convolution."""

    filters: int
    pool: int
    kernel: int = 3


def lecture_stages(widths: Sequence[int]) -> tuple[Stage, ...]:
    """The table for these widths: no pool before the first, 4 before the second, then 2.

    `(12, 24)` is the lecture's network.

    Raises:
        UsageError: there is no width, or one below 1.
    """
    if isinstance(widths, int) or not widths:
        raise UsageError(f"widths must list at least one width, such as (12, 24), not {widths!r}.")
    pools = (1, 4) + (2,) * len(widths)
    return tuple(
        Stage(check_count("widths", width), pool)
        for width, pool in zip(widths, pools, strict=False)
    )


def lecture_stack(inputs: Any, widths: Sequence[int], *, norm: Norm | None = NORM) -> Any:
    """Builds the stack on a Keras tensor, (B, H, W, C) or (B, T, H, W, C).

    Pools keep what does not fill a window ("same"), so no frame is left out. Time may be as short
    as one frame.

    Raises:
        UsageError: the picture is smaller than the pools ask for.
    """
    x = inputs
    for number, stage in enumerate(lecture_stages(widths), start=1):
        if stage.pool > 1:
            if min(x.shape[-3:-1]) < stage.pool:
                height, width = inputs.shape[-3:-1]
                raise UsageError(
                    f"input_shape is too small for {len(widths)} widths: of {height}x{width} "
                    f"pixels, {x.shape[-3]}x{x.shape[-2]} are left before a pool of {stage.pool}. "
                    "Take larger pictures or fewer widths."
                )
            x = _POOLS[len(x.shape)](stage.pool, padding="same", name=f"pool{number - 1}")(x)
        x = conv_unit(x, stage.filters, stage.kernel, name=f"conv{number}", norm=norm)
    return x
