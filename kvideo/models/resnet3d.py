"""ResNets for video as tables: C2D, I3D, Slow and R(2+1)D, on the bottleneck blocks of ResNet-50.

Padding, strides and epsilon are those of PyTorchVideo and PySlowFast, whose checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.layers.conv import conv_unit, max_pool
from kvideo.models.bottleneck import (
    FIRST_STAGE,
    Blocks,
    NonLocal,
    Stage,
    Stages,
    check_depth,
    check_drop_path,
    check_nonlocal,
    residual_stage,
    with_output_stride,
)
from kvideo.models.classifier import (
    check_count,
    check_input_shape,
    check_weights,
    classifier_head,
    clip_input,
    finish,
    made_for,
    pooled_features,
)
from kvideo.weights.resnet3d import RESNET3D

PIXELS: dict[str, Any] = {
    "mean": 0.45 * 255,
    "std": 0.225 * 255,
}  # of every model that these checkpoints are of
_VIEWS = Views(num_clips=10, num_crops=3)
_SIZE, _SHORT_SIDE = (224, 224), 256


@dataclass(frozen=True)
class ResNet3D:
    """A single-pathway network as a table.

    Attributes:
        stem_kernel_t: temporal size of the first convolution, which is 7×7 in space.
        stages: res2 to res5.
        stem_pool: whether a 3×3 max-pool of stride 2 follows the stem.
        res2_pool: whether a max-pool of two frames follows res2.
        separate: see `kvideo.models.bottleneck.Blocks`.
    """

    stem_kernel_t: int
    stages: Stages
    stem_pool: bool = True
    res2_pool: bool = False
    separate: bool = False


C2D = ResNet3D(
    stem_kernel_t=1,
    stages=(Stage((1,), stride=1), Stage((1,)), Stage((1,)), Stage((1,))),
    res2_pool=True,
)
I3D = ResNet3D(
    stem_kernel_t=5,
    stages=(Stage((3,), stride=1), Stage((3, 1)), Stage((3, 1)), Stage((1, 3))),
    res2_pool=True,
)
SLOW = ResNet3D(
    stem_kernel_t=1,
    stages=(Stage((1,), stride=1), Stage((1,)), Stage((3,)), Stage((3,))),
)
R2PLUS1D = ResNet3D(
    stem_kernel_t=1,
    stages=(Stage((1,)), Stage((1,)), Stage((1,), stride_t=2), Stage((1,), stride_t=2)),
    stem_pool=False,
    separate=True,
)


def _clip(num_frames: int, frame_rate: float) -> ClipSpec:
    return ClipSpec(num_frames, frame_rate, _SIZE, short_side=_SHORT_SIDE)


@made_for(_clip(8, 30 / 8), _VIEWS, family=RESNET3D)
def c2d(
    num_classes: int, *, input_shape: Sequence[int] = (8, 224, 224, 3), **options: Any
) -> keras.Model:
    """C2D: a ResNet-50 without any convolution over time (Wang et al. 2018, table 1).

    Frames meet in one max-pool after res2 and in the mean at the end. 24,327,632 parameters at 400
    classes.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 1×7×7, stride 1,2,2 | 8×112×112×64 |
    | stem_pool | 1×3×3, stride 1,2,2 | 8×56×56×64 |
    | res2 | [1×1×1, 1×3×3, 1×1×1] × 3 | 8×56×56×256 |
    | res2_pool | 2×1×1, stride 2,1,1 | 4×56×56×256 |
    | res3 | [1×1×1, 1×3×3, 1×1×1] × 4 | 4×28×28×512 |
    | res4 | [1×1×1, 1×3×3, 1×1×1] × 6 | 4×14×14×1024 |
    | res5 | [1×1×1, 1×3×3, 1×1×1] × 3 | 4×7×7×2048 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        **options: as for `slow`.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _resnet3d(num_classes, C2D, input_shape, **{"name": "c2d", **options})


@made_for(_clip(8, 30 / 8), _VIEWS, family=RESNET3D)
def i3d_r50(
    num_classes: int, *, input_shape: Sequence[int] = (8, 224, 224, 3), **options: Any
) -> keras.Model:
    """I3D on ResNet-50: C2D with every other block inflated (Wang et al. 2018, section 4.2).

    28,043,472 parameters at 400 classes; 35,401,936 with `nonlocal_blocks=5`.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 5×7×7, stride 1,2,2 | 8×112×112×64 |
    | stem_pool | 1×3×3, stride 1,2,2 | 8×56×56×64 |
    | res2 | [3×1×1, 1×3×3, 1×1×1] × 3 | 8×56×56×256 |
    | res2_pool | 2×1×1, stride 2,1,1 | 4×56×56×256 |
    | res3 | [3×1×1 or 1×1×1, 1×3×3, 1×1×1] × 4 | 4×28×28×512 |
    | res4 | [3×1×1 or 1×1×1, 1×3×3, 1×1×1] × 6 | 4×14×14×1024 |
    | res5 | [1×1×1 or 3×1×1, 1×3×3, 1×1×1] × 3 | 4×7×7×2048 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        **options: as for `slow`.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _resnet3d(num_classes, I3D, input_shape, **{"name": "i3d_r50", **options})


@made_for(_clip(8, 30 / 8), _VIEWS, family=RESNET3D)
def slow(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (8, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    depth: int = 50,
    stem_filters: int = 64,
    nonlocal_blocks: NonLocal = None,
    nonlocal_mode: str = "softmax",
    zero_scale: bool = True,
    drop_path: float = 0.0,
    dropout: float = 0.5,
    head_window: Sequence[int] | None = None,
    output_stride: int = 32,
    name: str = "slow",
) -> keras.Model:
    """The slow pathway of SlowFast alone, 8×8 (Feichtenhofer et al. 2019, table 1).

    Few frames far apart; only res4 and res5 convolve over time. 32,454,096 parameters at 400
    classes.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 1×7×7, stride 1,2,2 | 8×112×112×64 |
    | stem_pool | 1×3×3, stride 1,2,2 | 8×56×56×64 |
    | res2 | [1×1×1, 1×3×3, 1×1×1] × 3 | 8×56×56×256 |
    | res3 | [1×1×1, 1×3×3, 1×1×1] × 4 | 8×28×28×512 |
    | res4 | [3×1×1, 1×3×3, 1×1×1] × 6 | 8×14×14×1024 |
    | res5 | [3×1×1, 1×3×3, 1×1×1] × 3 | 8×7×7×2048 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights, or a file: of a like model, or a
            checkpoint of PyTorchVideo or PySlowFast.
        depth: 50 or 101 layers.
        stem_filters: channels of the first convolution; all others are multiples of it.
        nonlocal_blocks: None; 5 or 10 in res3 and res4 (depth 50); or the blocks by stage, such
            as `{4: (1, 3, 5)}`.
        nonlocal_mode: `"softmax"`, `"dot_product"` or `"concatenation"`.
        zero_scale: whether residual branches begin at zero (Goyal et al. 2017).
        drop_path: stochastic depth; see `kvideo.layers.DropPath`.
        dropout: before the last layer.
        head_window: (T, H, W) of a window whose averages, one step apart, are averaged, as some
            publishers do on pictures larger than 224; by default the plain average.
        output_stride: pixels a cell of `feature_map`: 32; or 16, for detection: res5 then has a
            dilation of 2 in place of its stride.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _resnet3d(
        num_classes,
        SLOW,
        input_shape,
        classifier_activation=classifier_activation,
        weights=weights,
        depth=depth,
        stem_filters=stem_filters,
        nonlocal_blocks=nonlocal_blocks,
        nonlocal_mode=nonlocal_mode,
        zero_scale=zero_scale,
        drop_path=drop_path,
        dropout=dropout,
        head_window=head_window,
        output_stride=output_stride,
        name=name,
    )


@made_for(_clip(8, 30 / 8), _VIEWS, family=RESNET3D)
def slow_8x8_r50(num_classes: int, **options: Any) -> keras.Model:
    """`slow` with ResNet-50 and 8 frames, every 8th of 30 a second. Arguments as for `slow`."""
    return slow(num_classes, **{"name": "slow_8x8_r50", **options})


@made_for(_clip(4, 30 / 16), _VIEWS, family=RESNET3D)
def slow_4x16_r50(
    num_classes: int, *, input_shape: Sequence[int] = (4, 224, 224, 3), **options: Any
) -> keras.Model:
    """`slow` with ResNet-50 and 4 frames, every 16th of 30 a second. Arguments as for `slow`."""
    options = {"name": "slow_4x16_r50", **options}
    return slow(num_classes, input_shape=input_shape, **options)


@made_for(_clip(16, 30 / 4), _VIEWS, family=RESNET3D)
def r2plus1d(
    num_classes: int, *, input_shape: Sequence[int] = (16, 224, 224, 3), **options: Any
) -> keras.Model:
    """R(2+1)D on ResNet-50: 3×1×1 then 1×3×3 instead of 3×3×3 (Tran et al. 2018).

    As PyTorchVideo builds it: temporal first, and without a widened middle (`r2plus1d_18` has
    the paper's). 28,107,600 parameters at 400 classes.

    | stage | kernel | output T×H×W×C |
    | --- | --- | --- |
    | stem | 1×7×7, stride 1,2,2 | 16×112×112×64 |
    | res2 | [1×1×1, 3×1×1, 1×3×3, 1×1×1] × 3 | 16×56×56×256 |
    | res3 | [1×1×1, 3×1×1, 1×3×3, 1×1×1] × 4 | 16×28×28×512 |
    | res4 | [1×1×1, 3×1×1, 1×3×3, 1×1×1] × 6 | 8×14×14×1024 |
    | res5 | [1×1×1, 3×1×1, 1×3×3, 1×1×1] × 3 | 4×7×7×2048 |

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3).
        **options: as for `slow`.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    return _resnet3d(num_classes, R2PLUS1D, input_shape, **{"name": "r2plus1d", **options})


def _resnet3d(
    num_classes: int,
    table: ResNet3D,
    input_shape: Sequence[int],
    *,
    name: str,
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    depth: int = 50,
    stem_filters: int = 64,
    nonlocal_blocks: NonLocal = None,
    nonlocal_mode: str = "softmax",
    zero_scale: bool = True,
    drop_path: float = 0.0,
    dropout: float = 0.5,
    head_window: Sequence[int] | None = None,
    output_stride: int = 32,
) -> keras.Model:
    """The network of a table."""
    _, weights_file = check_weights(weights, family=RESNET3D)
    stem_filters = check_count("stem_filters", stem_filters)
    blocks = Blocks(
        depth=check_depth(depth),
        separate=table.separate,
        zero_scale=zero_scale,
        drop_path=check_drop_path(drop_path),
        nonlocal_blocks=check_nonlocal(nonlocal_blocks, depth),
        nonlocal_mode=nonlocal_mode,
    )
    inputs, x = clip_input(check_input_shape(input_shape), **PIXELS)
    kernel = (table.stem_kernel_t, 7, 7)
    x = conv_unit(x, stem_filters, kernel, strides=(1, 2, 2), name="stem", padding="half")
    if table.stem_pool:
        x = max_pool(x, (1, 3, 3), strides=(1, 2, 2), name="stem_pool")
    stages = with_output_stride(table.stages, output_stride)
    for number, stage in enumerate(stages, start=FIRST_STAGE):
        width = stem_filters * 2 ** (number - FIRST_STAGE)
        x = residual_stage(x, number, stage, width, blocks)
        if number == FIRST_STAGE and table.res2_pool:
            x = max_pool(x, (2, 1, 1), strides=(2, 1, 1), name="res2_pool", padding="valid")
    x = keras.layers.Identity(name="feature_map")(x)
    x = pooled_features(x, head_window)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=RESNET3D)
