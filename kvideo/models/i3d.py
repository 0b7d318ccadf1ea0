"""I3D, Inception-v1 with three-dimensional kernels, and S3D, the same with separable ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo.layers.conv import Norm, conv_unit, max_pool
from kvideo.models.classifier import (
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
    pooled_features,
)
from kvideo.weights.inception import INCEPTION


@dataclass(frozen=True)
class Unit:
    """A convolution of equal sides with batch norm and ReLU."""

    name: str
    filters: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """A max-pool; sizes are (T, H, W)."""

    name: str
    size: tuple[int, int, int]
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Mixed:
    """Four branches side by side, concatenated in this order.

    Attributes:
        name: of the concatenation; the branches' begin with it.
        b0: filters of a 1×1×1 unit.
        b1: of a 1×1×1 unit and a 3×3×3 unit behind it.
        b2: likewise.
        b3: of a 1×1×1 unit behind a 3×3×3 max-pool.
    """

    name: str
    b0: int
    b1: tuple[int, int]
    b2: tuple[int, int]
    b3: int


INCEPTION_V1 = (
    Unit("conv1a", 64, 7, stride=2),
    Pool("pool2a", (1, 3, 3), (1, 2, 2)),
    Unit("conv2b", 64, 1),
    Unit("conv2c", 192, 3),
    Pool("pool3a", (1, 3, 3), (1, 2, 2)),
    Mixed("mixed3b", 64, (96, 128), (16, 32), 32),
    Mixed("mixed3c", 128, (128, 192), (32, 96), 64),
    Pool("pool4a", (3, 3, 3), (2, 2, 2)),
    Mixed("mixed4b", 192, (96, 208), (16, 48), 64),
    Mixed("mixed4c", 160, (112, 224), (24, 64), 64),
    Mixed("mixed4d", 128, (128, 256), (24, 64), 64),
    Mixed("mixed4e", 112, (144, 288), (32, 64), 64),
    Mixed("mixed4f", 256, (160, 320), (32, 128), 128),
    Pool("pool5a", (2, 2, 2), (2, 2, 2)),
    Mixed("mixed5b", 256, (160, 320), (32, 128), 128),
    Mixed("mixed5c", 384, (192, 384), (48, 128), 128),
)
HEAD_WINDOW = (2, 7, 7)
PIXELS: dict[str, dict[str, Any]] = {
    "i3d": {"mean": 127.5, "std": 127.5},
    "s3d": {
        "mean": (0.43216 * 255, 0.394666 * 255, 0.37645 * 255),
        "std": (0.22803 * 255, 0.22145 * 255, 0.216989 * 255),
    },
}
# The published decay, 0.999, is for hundreds of thousands of steps: after a few hundred the moving
# statistics would still be those of the beginning. It matters in training only.
NORM = Norm(momentum=0.99, epsilon=1e-3)


@dataclass(frozen=True)
class _Style:
    """What the two networks differ in.

    Attributes:
        separable: whether k×k×k is 1×k×k and then k×1×1.
        padding: of convolutions and pools, see `conv_unit`.
        width: what all numbers of filters are multiplied by.
    """

    separable: bool
    padding: str
    width: float

    def filters(self, number: int) -> int:
        return max(1, round(number * self.width))


@made_for(ClipSpec(64, 25.0, (224, 224), short_side=256), Views(num_clips=10), family=INCEPTION)
def i3d(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (64, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    width_multiplier: float = 1.0,
    head_window: Sequence[int] | None = HEAD_WINDOW,
    dropout: float = 0.5,
    name: str = "i3d",
) -> keras.Model:
    """Two-Stream Inflated 3D ConvNet, one stream of it (Carreira & Zisserman 2017, figure 3).

    | layer | kernel, stride | output T×H×W×C |
    | --- | --- | --- |
    | conv1a | 7×7×7, stride 2 | 32×112×112×64 |
    | pool2a | 1×3×3, stride 1,2,2 | 32×56×56×64 |
    | conv2b | 1×1×1 | 32×56×56×64 |
    | conv2c | 3×3×3 | 32×56×56×192 |
    | pool3a | 1×3×3, stride 1,2,2 | 32×28×28×192 |
    | mixed3b, mixed3c | inception | 32×28×28×480 |
    | pool4a | 3×3×3, stride 2 | 16×14×14×480 |
    | mixed4b to mixed4f | inception | 16×14×14×832 |
    | pool5a | 2×2×2, stride 2 | 8×7×7×832 |
    | mixed5b, mixed5c | inception | 8×7×7×1024 |
    | head_window | 2×7×7, stride 1, mean | 7×1×1×1024 |
    | features | mean | 1024 |

    All padding is TensorFlow's. 12,697,264 parameters at 400 classes, 7,280 more than the original,
    whose batch norms have no scale; 12,675,312 for flow. 64×224×224 takes 111.2 G multiply-adds.

    With 3 channels the input is RGB, 0..255, which the first layer brings to [-1, 1]. With 2 it is
    optical flow, (x, y) in pixels per frame, which the first layer cuts to [-20, 20] and divides by
    20. To combine two such streams add their logits.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3) for RGB, (T, H, W, 2) for optical flow.
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights, or a file: of a like model, a
            checkpoint of pytorch-i3d, or DeepMind's.
        width_multiplier: what all numbers of filters are multiplied by.
        head_window: (T, H, W) of a window whose averages, one step apart, are averaged, so that
            the first and last frames count less; cut to the map's size. None: the plain average.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, C) to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    _, weights_file = check_weights(weights, family=INCEPTION)
    style = _style(False, "same", width_multiplier)
    shape = check_input_shape(input_shape)
    inputs, x = clip_input(shape, **PIXELS["i3d"])
    x = _inception(x, style)
    x = pooled_features(x, head_window)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=INCEPTION)


@made_for(ClipSpec(128, 15.0, (224, 224), short_side=256), Views(num_clips=1), family=INCEPTION)
def s3d(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (128, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    width_multiplier: float = 1.0,
    head_window: Sequence[int] | None = HEAD_WINDOW,
    dropout: float = 0.2,
    name: str = "s3d",
) -> keras.Model:
    """Separable 3D CNN: I3D's table with 1×k×k and k×1×1 for k×k×k (Xie et al. 2018, section 4.2).

    Padding and normalization are those of torchvision, whose checkpoint fits; there is no gating.
    A separable unit is two units, `conv1a_xy` and `conv1a_t`. 8,320,048 parameters at 400 classes;
    16×224×224 takes 17.98 G multiply-adds, 64 frames take 71.9 G.

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights, or a file: of a like model, or
            torchvision's checkpoint.
        width_multiplier: what all numbers of filters are multiplied by.
        head_window: as for `i3d`.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    _, weights_file = check_weights(weights, family=INCEPTION)
    style = _style(True, "half", width_multiplier)
    shape = check_input_shape(input_shape)
    inputs, x = clip_input(shape, **PIXELS["s3d"])
    x = _inception(x, style)
    x = pooled_features(x, head_window)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=INCEPTION)


def _style(separable: bool, padding: str, width_multiplier: float) -> _Style:
    if not width_multiplier > 0:
        raise UsageError(f"width_multiplier must be positive, not {width_multiplier!r}.")
    return _Style(separable, padding, width_multiplier)


def _inception(x: Any, style: _Style) -> Any:
    """`feature_map`, from the normalized clip."""
    for row in INCEPTION_V1:
        if isinstance(row, Unit):
            x = _unit(x, row, style)
        elif isinstance(row, Pool):
            x = _pool(x, row, style)
        else:
            x = _mixed(x, row, style)
    return keras.layers.Identity(name="feature_map")(x)


def _unit(x: Any, unit: Unit, style: _Style) -> Any:
    filters, side, step = style.filters(unit.filters), unit.kernel, unit.stride
    make = functools.partial(conv_unit, padding=style.padding, norm=NORM)
    if not style.separable or side == 1:
        return make(x, filters, side, strides=step, name=unit.name)
    x = make(x, filters, (1, side, side), strides=(1, step, step), name=f"{unit.name}_xy")
    return make(x, filters, (side, 1, 1), strides=(step, 1, 1), name=f"{unit.name}_t")


def _pool(x: Any, pool: Pool, style: _Style) -> Any:
    size, strides, padding = pool.size, pool.strides, style.padding
    if padding == "half" and size[0] % 2 == 0:
        # An even window has no middle. PyTorch's network leaves out what does not fill one; so that
        # something is left of the smallest clips, it is cut to the map here.
        padding = "valid"
        size = strides = tuple(min(pair) for pair in zip(size, x.shape[1:4], strict=True))
    return max_pool(x, size, strides=strides, name=pool.name, padding=padding)


def _mixed(x: Any, block: Mixed, style: _Style) -> Any:
    def unit(inputs: Any, branch: str, filters: int, side: int) -> Any:
        return _unit(inputs, Unit(f"{block.name}_{branch}", filters, side), style)

    def two(branch: str, filters: tuple[int, int]) -> Any:
        return unit(unit(x, f"{branch}a", filters[0], 1), f"{branch}b", filters[1], 3)

    pooled = _pool(x, Pool(f"{block.name}_b3_pool", (3, 3, 3), (1, 1, 1)), style)
    branches = [
        unit(x, "b0", block.b0, 1),
        two("b1", block.b1),
        two("b2", block.b2),
        unit(pooled, "b3b", block.b3, 1),
    ]
    return keras.layers.Concatenate(name=block.name)(branches)
