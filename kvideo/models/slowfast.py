"""SlowFast: one pathway sees few frames with many channels, the other many frames with few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo.layers.conv import conv_unit, max_pool
from kvideo.layers.frames import SlowFrames
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
from kvideo.models.resnet3d import PIXELS
from kvideo.weights.resnet3d import RESNET3D

_VIEWS = Views(num_clips=10, num_crops=3)
_SIZE, _SHORT_SIDE = (224, 224), 256
_FRAME_RATE = 30 / 2  # of the fast pathway, in every published model


@dataclass(frozen=True)
class Pathway:
    """One pathway: temporal sizes of the stem and of each stage's first convolutions."""

    name: str
    stem_kernel_t: int
    stages: Stages


SLOW = Pathway("slow", 1, (Stage((1,), stride=1), Stage((1,)), Stage((3,)), Stage((3,))))
FAST = Pathway("fast", 5, (Stage((3,), stride=1), Stage((3,)), Stage((3,)), Stage((3,))))
# The published 16×8 network convolves over time in the first 6 of res4's 23 blocks only.
_RES4_50_50 = Stage((3,) * 6 + (1,) * 17)
SLOW_50_50 = Pathway("slow", 1, (*SLOW.stages[:2], _RES4_50_50, SLOW.stages[3]))
FAST_50_50 = Pathway("fast", 5, (*FAST.stages[:2], _RES4_50_50, FAST.stages[3]))


def _clip(num_frames: int) -> ClipSpec:
    return ClipSpec(num_frames, _FRAME_RATE, _SIZE, short_side=_SHORT_SIDE)


@made_for(_clip(32), _VIEWS, family=RESNET3D)
def slowfast(
    num_classes: int,
    *,
    input_shape: Sequence[int] = (32, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    depth: int = 50,
    alpha: int = 4,
    beta_inv: int = 8,
    fusion_kernel_t: int = 7,
    stem_filters: int = 64,
    pathways: tuple[Pathway, Pathway] = (SLOW, FAST),
    nonlocal_blocks: NonLocal = None,
    nonlocal_mode: str = "softmax",
    zero_scale: bool = True,
    drop_path: float = 0.0,
    dropout: float = 0.5,
    head_window: Sequence[int] | None = None,
    output_stride: int = 32,
    name: str = "slowfast",
) -> keras.Model:
    """SlowFast 8×8 on ResNet-50 (Feichtenhofer et al. 2019, table 1).

    The model takes one clip, the fast pathway's, and picks the slow pathway's frames itself.
    After the stem, res2, res3 and res4 the fast pathway's maps, reduced to the slow one's frames,
    join the slow ones. 34,566,488 parameters at 400 classes; 50.31 G multiply-adds at 32×224×224,
    65.71 G at 32×256×256.

    | stage | slow: kernel | output T×H×W×C | fast: kernel | output T×H×W×C |
    | --- | --- | --- | --- | --- |
    | stem | 1×7×7, stride 1,2,2 | 8×112×112×64 | 5×7×7, stride 1,2,2 | 32×112×112×8 |
    | stem_pool | 1×3×3, stride 1,2,2 | 8×56×56×64 | 1×3×3, stride 1,2,2 | 32×56×56×8 |
    | res2 | [1×1×1, 1×3×3, 1×1×1] × 3 | 8×56×56×256 | [3×1×1, 1×3×3, 1×1×1] × 3 | 32×56×56×32 |
    | res3 | [1×1×1, 1×3×3, 1×1×1] × 4 | 8×28×28×512 | [3×1×1, 1×3×3, 1×1×1] × 4 | 32×28×28×64 |
    | res4 | [3×1×1, 1×3×3, 1×1×1] × 6 | 8×14×14×1024 | [3×1×1, 1×3×3, 1×1×1] × 6 | 32×14×14×128 |
    | res5 | [3×1×1, 1×3×3, 1×1×1] × 3 | 8×7×7×2048 | [3×1×1, 1×3×3, 1×1×1] × 3 | 32×7×7×256 |

    `feature_map` is the slow map with the fast one, averaged over each alpha frames, behind it:
    (B, T/alpha, H', W', 2304).

    Args:
        num_classes: classes.
        input_shape: (T, H, W, 3) of the fast pathway; T a multiple of `alpha`.
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        weights: None (random), the name of published weights, or a file: of a like model, or a
            checkpoint of PyTorchVideo or PySlowFast.
        depth: 50 or 101 layers.
        alpha: the fast pathway's frames for one of the slow one.
        beta_inv: the slow pathway's channels for one of the fast one.
        fusion_kernel_t: temporal size of the convolutions that join the pathways.
        stem_filters: channels of the slow stem; all others are multiples of it.
        pathways: the tables of the slow and the fast pathway.
        nonlocal_blocks: in the slow pathway; see `kvideo.models.slow`.
        nonlocal_mode: `"softmax"`, `"dot_product"` or `"concatenation"`.
        zero_scale: whether residual branches begin at zero (Goyal et al. 2017).
        drop_path: stochastic depth; see `kvideo.layers.DropPath`.
        dropout: before the last layer.
        head_window: see `kvideo.models.slow`; T counts the slow pathway's frames.
        output_stride: see `kvideo.models.slow`.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
        ModelFileError: the file of `weights` does not fit.
    """
    _, weights_file = check_weights(weights, family=RESNET3D)
    shape = check_input_shape(input_shape)
    alpha, fusion_kernel_t = check_count("alpha", alpha), check_count("fusion", fusion_kernel_t)
    stem_filters = check_count("stem_filters", stem_filters)
    fast_filters, rest = divmod(stem_filters, check_count("beta_inv", beta_inv))
    if rest or not fast_filters:
        raise UsageError(f"stem_filters ({stem_filters}) must be a multiple of beta_inv.")
    if shape[0] % alpha:
        raise UsageError(f"a clip's frames ({shape[0]}) must be a multiple of alpha ({alpha}).")
    plain = Blocks(check_depth(depth), zero_scale=zero_scale, drop_path=check_drop_path(drop_path))
    with_nonlocal = Blocks(
        depth,
        zero_scale=zero_scale,
        drop_path=drop_path,
        nonlocal_blocks=check_nonlocal(nonlocal_blocks, depth),
        nonlocal_mode=nonlocal_mode,
    )
    inputs, fast = clip_input(shape, **PIXELS)
    slow_path = SlowFrames(alpha, name="slow_frames")(fast)

    def join(slow_map: Any, fast_map: Any, where: str) -> Any:
        lateral = conv_unit(
            fast_map,
            2 * fast_map.shape[-1],
            (fusion_kernel_t, 1, 1),
            strides=(alpha, 1, 1),
            name=f"fuse_{where}",
            padding="half",
        )
        return keras.layers.Concatenate(name=f"slow_{where}_fused")([slow_map, lateral])

    slow_table, fast_table = pathways
    slow_stages, fast_stages = (with_output_stride(p.stages, output_stride) for p in pathways)
    slow_path = _stem(slow_path, slow_table, stem_filters)
    fast = _stem(fast, fast_table, fast_filters)
    slow_path = join(slow_path, fast, "stem")
    for index in range(4):
        number, growth = FIRST_STAGE + index, 2**index
        slow_path = residual_stage(
            slow_path,
            number,
            slow_stages[index],
            stem_filters * growth,
            with_nonlocal,
            "slow_",
        )
        fast = residual_stage(
            fast, number, fast_stages[index], fast_filters * growth, plain, "fast_"
        )
        if index < 3:
            slow_path = join(slow_path, fast, f"res{number}")
    fast = keras.layers.AveragePooling3D((alpha, 1, 1), name="fast_slowed")(fast)
    x = keras.layers.Concatenate(name="feature_map")([slow_path, fast])
    x = pooled_features(x, head_window)
    outputs = classifier_head(x, num_classes, classifier_activation, dropout)
    return finish(inputs, outputs, name, weights_file, family=RESNET3D)


@made_for(_clip(32), _VIEWS, family=RESNET3D)
def slowfast_8x8_r50(num_classes: int, **options: Any) -> keras.Model:
    """`slowfast` 8×8, ResNet-50: 34,566,488 parameters. Arguments as for `slowfast`."""
    return slowfast(num_classes, **{"name": "slowfast_8x8_r50", **options})


@made_for(_clip(32), _VIEWS, family=RESNET3D)
def slowfast_4x16_r50(num_classes: int, **options: Any) -> keras.Model:
    """`slowfast` 4×16, ResNet-50: 34,480,216 parameters. Arguments as for `slowfast`."""
    variant = {"alpha": 8, "fusion_kernel_t": 5, "name": "slowfast_4x16_r50"}
    return slowfast(num_classes, **{**variant, **options})


@made_for(_clip(32), _VIEWS, family=RESNET3D)
def slowfast_8x8_r101(num_classes: int, **options: Any) -> keras.Model:
    """`slowfast` 8×8, ResNet-101: 62,826,968 parameters. Arguments as for `slowfast`."""
    variant = {"depth": 101, "fusion_kernel_t": 5, "name": "slowfast_8x8_r101"}
    return slowfast(num_classes, **{**variant, **options})


@made_for(_clip(64), _VIEWS, family=RESNET3D)
def slowfast_16x8_r101(
    num_classes: int, *, input_shape: Sequence[int] = (64, 224, 224, 3), **options: Any
) -> keras.Model:
    """`slowfast` 16×8, ResNet-101: 53,774,808 parameters. Arguments as for `slowfast`.

    Only the first 6 of res4's 23 blocks convolve over time, as in the published network.
    """
    variant = {
        "depth": 101,
        "fusion_kernel_t": 5,
        "pathways": (SLOW_50_50, FAST_50_50),
        "name": "slowfast_16x8_r101",
    }
    return slowfast(num_classes, input_shape=input_shape, **{**variant, **options})


def _stem(x: Any, pathway: Pathway, filters: int) -> Any:
    name = f"{pathway.name}_stem"
    kernel = (pathway.stem_kernel_t, 7, 7)
    x = conv_unit(x, filters, kernel, strides=(1, 2, 2), name=name, padding="half")
    return max_pool(x, (1, 3, 3), strides=(1, 2, 2), name=f"{name}_pool")
