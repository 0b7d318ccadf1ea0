"""Video Swin Transformers of keras-cv with the named layers that kvideo's commands use.

References:
    Liu et al. 2022, "Video Swin Transformer", table 1 and section 3.2.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras_cv.models import VideoSwinBackbone

from kvideo import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo_keras_cv import analysis

_PATCH = (2, 4, 4)  # frames and pixels of a token


@dataclass(frozen=True)
class Swin:
    """A size of the network.

    Args:
        channels: of the first stage; each stage doubles them.
        depths: blocks of the stages.
        heads: of attention, by stage.
        drop_path: rate of stochastic depth at the last block.
    """

    channels: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    drop_path: float


TINY = Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.1)
SMALL = Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.1)
BASE = Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.3)


def video_swin_t(num_classes: int, **options: Any) -> keras.Model:
    """Video Swin-T; see `video_swin` for the arguments."""
    return video_swin(num_classes, TINY, **{"name": "video_swin_t", **options})


def video_swin_s(num_classes: int, **options: Any) -> keras.Model:
    """Video Swin-S; see `video_swin` for the arguments."""
    return video_swin(num_classes, SMALL, **{"name": "video_swin_s", **options})


def video_swin_b(num_classes: int, **options: Any) -> keras.Model:
    """Video Swin-B; see `video_swin` for the arguments."""
    return video_swin(num_classes, BASE, **{"name": "video_swin_b", **options})


def video_swin(
    num_classes: int,
    size: Swin = TINY,
    *,
    input_shape: Sequence[int] = (32, 224, 224, 3),
    classifier_activation: Any = "softmax",
    weights: str | None = None,
    window_size: Sequence[int] = (8, 7, 7),
    dropout: float = 0.0,
    name: str = "video_swin",
) -> keras.Model:
    """A Video Swin Transformer as a classifier.

    Args:
        num_classes: classes.
        size: the table's row.
        input_shape: (T, H, W, 3); T a multiple of 2, H and W of 4, and at least 32.
        classifier_activation: "softmax"; "sigmoid" for several labels a video; None for logits.
        weights: None, or a `.keras` or `.weights.h5` file of a like model.
        window_size: tokens (T, H, W) among which attention works; cut to the map's size.
        dropout: before the last layer.
        name: the model's name.

    Returns:
        A functional `keras.Model` from (B, T, H, W, 3), RGB 0..255, to (B, num_classes).

    Raises:
        UsageError: the clip's shape does not suit.
    """
    frames, height, width, channels = input_shape
    if channels != 3 or frames % 2 or height % 4 or width % 4 or min(height, width) < 32:
        raise UsageError(
            "Video Swin takes clips of RGB with an even number of frames and sides of at least 32 "
            f"that are multiples of 4, not {tuple(input_shape)}."
        )
    backbone = VideoSwinBackbone(
        input_shape=tuple(input_shape),
        include_rescaling=True,
        embed_dim=size.channels,
        depths=list(size.depths),
        num_heads=list(size.heads),
        window_size=list(window_size),
        patch_size=list(_PATCH),
        drop_path_rate=size.drop_path,
        name="backbone",
    )
    inputs = keras.Input(tuple(input_shape), name="clip", dtype="float32")
    # As one layer: of a model file keras-cv can make its backbone anew, but not the stages alone.
    x = keras.layers.Identity(name="feature_map")(backbone(inputs))  # (B, T/2, H/32, W/32, C)
    x = keras.layers.GlobalAveragePooling3D(name="features")(x)  # (B, C)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(num_classes, name="logits", dtype="float32")(x)
    x = keras.layers.Activation(classifier_activation, name="predictions", dtype="float32")(x)
    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        model.load_weights(weights)
    return model


analysis.register()
# keras-cv hands its attention mask on under a name that Keras takes for a mask of its own.
warnings.filterwarnings(
    "ignore", r"Layer 'video_swin_window_attention\w*' .* was passed an input with a mask"
)
for _builder in (video_swin_t, video_swin_s, video_swin_b):
    _builder.clip_spec = ClipSpec(num_frames=32, frame_rate=15.0, size=(224, 224))  # type: ignore[attr-defined]
    _builder.views = Views(num_clips=4, num_crops=3)  # type: ignore[attr-defined]
