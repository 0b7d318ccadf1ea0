"""A detector of actors and their actions on any classifier's `feature_map`.

It finds people at the clip's keyframe (frame T // 2), and says of each box what its actor is doing.
It is a head: like `tal_net` it is built on a classifier, and is none itself.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from kvideo.errors import UsageError
from kvideo.layers.conv import conv_unit
from kvideo.layers.dropout import Dropout
from kvideo.layers.frames import MiddleFrame
from kvideo.layers.roi import RoIAlign
from kvideo.layers.scene import ActorSceneBlock
from kvideo.models.classifier import check_count, check_dropout

BINS = 7
# Names of inputs and outputs.
CLIP, BOXES = "clip", "boxes"
ACTORNESS, SIDES, LOGITS = "actorness", "sides", "logits"
FEATURE_MAP, ACTION_HEAD = "feature_map", "action_head"
_RARE = 0.01  # what share of the cells is taken to be actors at the beginning (Lin et al. 2017)
_SIDE = 0.15  # of the picture, at the beginning
_RATES = (1, 2, 4)  # holes of the person head's convolutions: together they see 15×15 cells


def actor_detector(
    backbone: keras.Model,
    num_classes: int,
    *,
    person_head: bool = True,
    filters: int = 128,
    context: bool = False,
    scene_attention: bool = False,
    dropout: float = 0.5,
    name: str = "actor_detector",
) -> keras.Model:
    """Finds actors at the middle of a clip and classifies what each of them does.

    The person head is anchor-free: three 3×3 convolutions on the keyframe's map (frame T' // 2),
    with holes, so that they see 15×15 cells; then for each cell how well its box fits an actor, and
    how far that box reaches from the cell's middle to its four sides. The action head cuts boxes
    out of the map, averaged over time, by RoI align (7×7 bins of 2×2 points), takes the maximum
    over the bins, and gives a logit for each class.

    The backbone's layers are shared with the model, not copied.

    Args:
        backbone: a functional model of clips with a layer `feature_map` (B, T', H', W', D).
        num_classes: C, actions; an actor may do several.
        person_head: False: boxes come from elsewhere only.
        filters: channels of the person head.
        context: whether the mean of the whole map is put behind each actor's features.
        scene_attention: whether each actor takes from all places of the map by a non-local block
            (`ActorSceneBlock`).
        dropout: before the last layer.
        name: of the model.

    Returns:
        A model of `{"clip": (B, T, H, W, 3), "boxes": (B, N, 4)}`, boxes being x1, y1, x2, y2 as
        fractions of the clip's width and height, that gives a dictionary:

        - `actorness` (B, H', W'): logits of the cells (with `person_head`).
        - `sides` (B, H', W', 4): from the cell's middle to left, top, right and bottom, as
            fractions of width and height (with `person_head`).
        - `logits` (B, N, C).

    Raises:
        UsageError: the backbone has no such layer, or an argument is out of its range.

    References:
        Feichtenhofer et al. 2019, "SlowFast Networks", section 5 (RoI align, maximum over places,
        sigmoid); Tian et al. 2019, "FCOS", and Zhou et al. 2019, "Objects as Points" (the person
        head); Gu et al. 2018, "AVA".
    """
    check_count("num_classes", num_classes)
    check_count("filters", filters)
    found = _feature_map(backbone)
    boxes = keras.Input((None, 4), name=BOXES)
    outputs = _person_head(found, filters) if person_head else {}
    action_head = _action_head(
        found.shape[1:], num_classes, context, scene_attention, check_dropout(dropout)
    )
    outputs[LOGITS] = action_head([found, boxes])
    return keras.Model({CLIP: backbone.input, BOXES: boxes}, outputs, name=name)


def _feature_map(backbone: keras.Model) -> Any:
    """The output of the backbone's layer `feature_map`, (B, T', H', W', D).

    Raises:
        UsageError: it has none of that form.
    """
    if not isinstance(backbone, keras.Model):
        raise UsageError(f"backbone must be a keras.Model, not {backbone!r}.")
    names = [layer.name for layer in backbone.layers]
    found = backbone.get_layer(FEATURE_MAP).output if FEATURE_MAP in names else None
    if not isinstance(found, keras.KerasTensor) or len(found.shape) != 5:
        raise UsageError(
            f'"{backbone.name}" has no layer "{FEATURE_MAP}" with one map for each clip '
            "(B, T, H, W, C), in which a detector could find actors."
        )
    return found


def _person_head(found: Any, filters: int) -> dict[str, Any]:
    """`actorness` and `sides`."""
    height, width = found.shape[2:4]
    x = MiddleFrame(name="keyframe")(found)
    x = keras.layers.Reshape((height, width, found.shape[-1]), name="keyframe_map")(x)
    for number, rate in enumerate(_RATES, 1):
        x = conv_unit(x, filters, 3, name=f"person_conv{number}", dilation=rate)
    actorness = keras.layers.Conv2D(
        1, 1, bias_initializer=_constant(_logit(_RARE)), name="person_actorness"
    )(x)
    sides = keras.layers.Conv2D(
        4, 1, activation="sigmoid", bias_initializer=_constant(_logit(_SIDE)), name=SIDES
    )(x)
    actorness = keras.layers.Reshape((height, width), name=ACTORNESS)(actorness)
    return {ACTORNESS: actorness, SIDES: sides}


def _action_head(
    map_shape: tuple[int, ...],
    num_classes: int,
    context: bool,
    scene_attention: bool,
    dropout: float,
) -> keras.Model:
    """From a map (B, T', H', W', D) and boxes (B, N, 4) to logits (B, N, C)."""
    frames, height, width, channels = map_shape
    found, boxes = keras.Input(map_shape, name=FEATURE_MAP), keras.Input((None, 4), name=BOXES)
    mean = keras.layers.AveragePooling3D((frames, 1, 1), name="mean_over_time")(found)
    mean = keras.layers.Reshape((height, width, channels), name="mean_map")(mean)
    bins = RoIAlign((BINS, BINS), name="roi_align")([mean, boxes])  # (B, N, 7, 7, D)
    x = keras.ops.max(bins, axis=(2, 3))
    if scene_attention:
        x = ActorSceneBlock(name="actor_scene")([x, found])
    if context:
        whole = keras.ops.mean(mean, axis=(1, 2))  # (B, D)
        whole = keras.ops.zeros_like(x) + whole[:, None]
        x = keras.layers.Concatenate(name="actor_and_context")([x, whole])
    x = Dropout(dropout, name="actor_dropout")(x)
    logits = keras.layers.Dense(num_classes, name=LOGITS)(x)
    return keras.Model([found, boxes], logits, name=ACTION_HEAD)


def _constant(value: float) -> keras.initializers.Initializer:
    return keras.initializers.Constant(value)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
