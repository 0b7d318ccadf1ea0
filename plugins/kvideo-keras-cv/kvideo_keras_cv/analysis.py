"""What keras-cv's layers of Video Swin Transformers cost and see, for `kvideo summary`.

Attention works in windows of tokens; every other block shifts them by half a window, and a window
that would wrap around the end is cut in two there. Along each axis the tokens so fall into groups
that see one another.

References:
    Liu et al. 2022, "Video Swin Transformer", sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras_cv.src.models.backbones.video_swin.video_swin_layers import (
    VideoSwinBasicLayer,
    VideoSwinPatchingAndEmbedding,
)

from kvideo.analysis import Field, register_layer

Shape = tuple[int, ...]


def _patches_field(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    """Patches lie side by side; padding is at the end."""
    (field,) = fields
    spans = {
        axis: field.spans[axis].slid(size, size, count=count)
        for axis, size, count in zip(field.positions, layer.patch_size, got[1:-1], strict=True)
    }
    return field.with_spans(**spans)


def _patches_macs(layer: Any, given: Shape, got: Shape) -> int:
    return math.prod(got[:-1]) * math.prod(layer.proj.kernel.shape)


def _stage_field(layer: Any, fields: Sequence[Field], given: Shape, got: Shape) -> Field:
    (field,) = fields
    axes = field.positions
    for block in layer.blocks:
        spans = {}
        for axis, length, window, shift in zip(
            axes, given[1:-1], block.window_size, block.shift_size, strict=True
        ):
            starts = sorted({0, *range(shift or window, length, window)})
            spans[axis] = field.spans[axis].grouped(starts, field.sizes[axis])
        field = field.with_spans(**spans)
    if layer.downsampling_layer is not None:  # 2×2 tokens become one
        spans = {
            axis: field.spans[axis].slid(2, 2, count=count)
            for axis, count in zip(axes[1:], got[2:-1], strict=True)
        }
        field = field.with_spans(**spans)
    return field


def _stage_macs(layer: Any, given: Shape, got: Shape) -> int:
    batch, channels = given[0], given[-1]
    tokens = math.prod(given[1:-1])
    window = math.prod(layer.window_size)
    padded = math.prod(
        math.ceil(length / size) * size
        for length, size in zip(given[1:-1], layer.window_size, strict=True)
    )
    attention = padded * (4 * channels**2 + 2 * window * channels)  # q, k, v, out; products
    perceptron = tokens * 2 * channels * int(channels * layer.mlp_ratio)
    total = layer.depth * (attention + perceptron)
    if layer.downsampling_layer is not None:
        total += math.prod(got[1:-1]) * math.prod(layer.downsample.reduction.kernel.shape)
    return batch * total


def register() -> None:
    """Tells kvideo."""
    register_layer(
        VideoSwinPatchingAndEmbedding, macs=_patches_macs, receptive_field=_patches_field
    )
    register_layer(VideoSwinBasicLayer, macs=_stage_macs, receptive_field=_stage_field)
