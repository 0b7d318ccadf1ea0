"""2D networks for single frames, by name.

The lecture's stack, EfficientNet-Lite0, or any model of `keras.applications`. Their layers are laid
into the video model one by one, so that they can be found and frozen by name.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kvideo.errors import KVideoError, UnknownNameError, UsageError
from kvideo.layers.conv import Norm
from kvideo.models.classifier import RESERVED_NAMES
from kvideo.models.efficientnet_lite import PIXELS, efficientnet_lite0
from kvideo.models.stacks import lecture_stack
from kvideo.weights.cross_modality import RGB_CHANNELS, cross_modality_kernel

LECTURE, LITE = "lecture", "efficientnet_lite0"
IMAGENET = "imagenet"
_IMAGENET_PIXELS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


@dataclass(frozen=True)
class Backbone:
    """A 2D network without its classifier.

    Attributes:
        build: (B, H, W, C) -> (B, H', W', C'), on Keras tensors. C is 3, 3T or, for flow, 2 or 2T.
        pixels: arguments of `PixelNormalization` for the input that it was made for.
    """

    build: Callable[[Any], Any]
    pixels: dict[str, Any] = field(default_factory=dict)


def backbone_2d(
    name: str,
    *,
    weights: str | None,
    widths: Sequence[int],
    norm: Norm | None,
    channels: int = RGB_CHANNELS,
) -> Backbone:
    """The 2D network of that name.

    Where more channels come than it was trained with, its first kernel is repeated: as it is for
    the pictures of early fusion, averaged over RGB for flow.

    Args:
        name: `"lecture"`, `"efficientnet_lite0"`, or a model of `keras.applications` by its class
            name, where case and underscores do not matter.
        weights: None or `"imagenet"`.
        widths: of the lecture's stack.
        norm: of the lecture's stack.
        channels: of a frame: 3, or 2 for optical flow.

    Raises:
        UnknownNameError: there is none of that name.
        UsageError: it has no such weights.
    """
    if name == LECTURE:
        if weights is not None:
            raise UsageError(
                f'backbone="{LECTURE}" has no ImageNet weights; backbone="{LITE}" has, for one.'
            )
        return Backbone(functools.partial(lecture_stack, widths=widths, norm=norm))
    make: Callable[..., keras.Model]
    if _plain(name) == _plain(LITE):
        make, pixels = functools.partial(efficientnet_lite0, include_preprocessing=False), PIXELS
    else:
        make = find_application(name)
        pixels = application_pixels(make)
        if make.__name__.startswith("ConvNeXt"):  # its own would do nothing to early fusion's 3T
            make, pixels = functools.partial(make, include_preprocessing=False), _IMAGENET_PIXELS
    network = functools.partial(make, include_top=False)
    return Backbone(functools.partial(_build, name, network, weights, channels), pixels)


@functools.cache
def applications() -> dict[str, Callable[..., keras.Model]]:
    """The models of `keras.applications` by class name."""
    models = vars(keras.applications).items()
    return {name: make for name, make in models if name[0].isupper() and callable(make)}


def find_application(name: str) -> Callable[..., keras.Model]:
    """A model of `keras.applications`; case and underscores do not matter.

    Raises:
        UnknownNameError: there is none of that name; the message suggests a near one.
    """
    known = {_plain(each): each for each in applications()}
    if _plain(name) in known:
        return applications()[known[_plain(name)]]
    ours = {_plain(each): each for each in (LECTURE, LITE)}
    near = difflib.get_close_matches(_plain(name), [*known, *ours], n=1)
    hint = f' Did you mean "{(known | ours)[near[0]]}"?' if near else ""
    raise UnknownNameError(
        f'there is no backbone "{name}".{hint} Backbones are "{LECTURE}", "{LITE}" and the models '
        f"of keras.applications, such as ResNet50, MobileNetV2 or ConvNeXtTiny."
    )


def application_pixels(make: Callable[..., keras.Model]) -> dict[str, Any]:
    """Arguments of `PixelNormalization` that do what the model's `preprocess_input` does.

    That function stands beside the model in its module. Each of them is affine per channel, some
    with the channels reversed, so three colours tell.
    """
    preprocess = sys.modules[make.__module__].preprocess_input
    black, red, white = (
        np.ravel(preprocess(np.full((1, 1, 1, 3), colour, "float64")))
        for colour in ((0, 0, 0), (255, 0, 0), (255, 255, 255))
    )
    std = 255 / (white - black)
    return {
        "mean": (0.0 - black * std).tolist(),
        "std": std.tolist(),
        "channel_order": "bgr" if red[0] == black[0] else "rgb",
    }


def inline(network: keras.Model, inputs: Any, prefix: str = "") -> Any:
    """Lays the layers of a functional model on a Keras tensor, one by one, with their weights.

    The layers become those of the model that is being made, so they can be found and frozen by
    name. Names that Keras numbered by a counter of the process are numbered from the network's own
    beginning, so that they are the same every time.

    Args:
        network: functional.
        inputs: Keras tensor of its input's shape.
        prefix: for the layers' names, where several networks are laid side by side.

    Returns:
        Keras tensor, the network's output.
    """
    counter: Counter[str] = Counter()
    pairs: list[tuple[Any, Any]] = []
    outputs: list[Any] = []

    def renamed(layer: Any) -> Any:
        config = layer.get_config()
        config["name"] = prefix + layer.name if prefix else _stable_name(layer, counter)
        pairs.append((layer, layer.__class__.from_config(config)))
        return pairs[-1][1]

    def called(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs.append(layer(*args, **kwargs))
        return outputs[-1]

    keras.models.clone_model(
        network,
        input_tensors=inputs,
        clone_function=renamed,
        call_function=called,
        recursive=True,  # ConvNeXt has small models inside
    )
    for layer, copy in pairs:
        if getattr(layer, "weights", None):
            copy.set_weights(layer.get_weights())
        if isinstance(copy, keras.layers.Normalization):
            copy.finalize_state()  # it computes with what it makes of its weights
    return outputs[-1]  # the layer that nothing follows


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _stable_name(layer: Any, counter: Counter[str]) -> str:
    base = re.sub(r"_\d+$", "", layer.name)
    if _plain(base) == _plain(type(layer).__name__):  # Keras named it
        counter[base] += 1
        return f"backbone_{base}_{counter[base]}"
    return f"backbone_{layer.name}" if layer.name in RESERVED_NAMES else layer.name


def _build(
    name: str,
    make: Callable[..., keras.Model],
    weights: str | None,
    of_a_frame: int,
    inputs: Any,
) -> Any:
    """Makes the network for the input's shape and lays it on `inputs`."""
    height, width, channels = inputs.shape[1:]
    try:
        if weights is None or channels == 3:
            network = _make(make, weights, (height, width, channels))
        else:
            source = _make(make, weights, (height, width, 3))
            network = _make(make, None, (height, width, channels))
            network.set_weights(_widened(source, network, of_a_frame))
    except KVideoError:
        raise
    except ValueError as cause:  # a size or a number of channels that the network cannot take
        raise UsageError(f'backbone "{name}": {cause}') from cause
    except Exception as cause:  # keras.utils.get_file raises plain Exception
        raise KVideoError(
            f'the ImageNet weights of backbone "{name}" could not be downloaded ({cause}). Check '
            f'the network, or take backbone="{LITE}", whose weights come with a package.'
        ) from cause
    return inline(network, inputs)


def _make(
    make: Callable[..., keras.Model], weights: str | None, shape: tuple[int, int, int]
) -> keras.Model:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels")
        return make(weights=weights, input_shape=shape)


def _widened(source: keras.Model, target: keras.Model, of_a_frame: int) -> list[np.ndarray]:
    """Weights for other channels from weights for 3.

    For 3T channels the first kernel is repeated and divided by T: on a video that stands still the
    first layer then gives what it gives for one frame. For flow see `cross_modality_kernel`.
    """
    old, shapes = source.get_weights(), [variable.shape for variable in target.weights]
    different = [i for i, (a, b) in enumerate(zip(old, shapes, strict=False)) if a.shape != b]
    if len(old) != len(shapes) or len(different) != 1 or old[different[0]].ndim != 4:
        raise UsageError(
            f"the ImageNet weights of {source.name} fit pictures of 3 channels only; it cannot "
            "begin with them here. weights=None starts from random ones."
        )
    first = different[0]
    channels = shapes[first][2]
    if of_a_frame != RGB_CHANNELS:
        old[first] = cross_modality_kernel(old[first], channels)
    else:
        repeats = channels // RGB_CHANNELS
        old[first] = np.tile(old[first], (1, 1, repeats, 1)) / repeats  # (kH, kW, 3T, F)
    return old
