"""2D networks for single frames, by name: the lecture's stack or one of `keras.applications`."""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import keras
import numpy as np

from kvideo.errors import KVideoError, UnknownNameError, UsageError
from kvideo.models.stacks import lecture_stack

LECTURE = "lecture"
IMAGENET = "imagenet"
_OUR_LAYERS = ("clip", "normalization", "feature_map", "features", "logits", "predictions")


@dataclass(frozen=True)
class Backbone:
    """A 2D network without its classifier.

    Attributes:
        build: (B, H, W, C) -> (B, H', W', C'), on Keras tensors.
        pixels: arguments of `PixelNormalization` for the input that it was made for.
    """

    build: Callable[[Any], Any]
    pixels: dict[str, Any] = field(default_factory=dict)


def backbone_2d(
    name: str, *, weights: str | None, widths: Sequence[int], batch_norm: bool
) -> Backbone:
    """The 2D network of that name.

    Args:
        name: `"lecture"`, or a model of `keras.applications` as `"ResNet50"` or `"resnet50"`.
        weights: None or `"imagenet"`.
        widths: of the lecture's stack.
        batch_norm: of the lecture's stack.

    Raises:
        UnknownNameError: there is none of that name.
        UsageError: it has no such weights.
    """
    if weights not in (None, IMAGENET):
        raise UsageError(f'weights must be None or "imagenet", not {weights!r}.')
    if name == LECTURE:
        if weights is not None:
            raise UsageError('backbone "lecture" has no ImageNet weights; take another backbone.')
        return Backbone(functools.partial(lecture_stack, widths=widths, use_batch_norm=batch_norm))
    module, constructor = find_application(name)
    return Backbone(
        functools.partial(_build_application, constructor, weights), application_pixels(module)
    )


@functools.cache
def applications() -> dict[str, tuple[ModuleType, Callable[..., keras.Model]]]:
    """The models of `keras.applications` by class name, with the module of each."""
    found: dict[str, tuple[ModuleType, Callable[..., keras.Model]]] = {}
    for module in vars(keras.applications).values():
        if isinstance(module, ModuleType) and hasattr(module, "preprocess_input"):
            for name, value in vars(module).items():
                if callable(value) and name[0].isupper():
                    found.setdefault(name, (module, value))
    return found


def find_application(name: str) -> tuple[ModuleType, Callable[..., keras.Model]]:
    """A model of `keras.applications`; case and underscores do not matter.

    Raises:
        UnknownNameError: there is none of that name; the message suggests a near one.
    """
    known = {_plain(each): each for each in applications()}
    if _plain(name) in known:
        return applications()[known[_plain(name)]]
    near = difflib.get_close_matches(_plain(name), [*known, LECTURE], n=1)
    hint = f' Did you mean "{known.get(near[0], near[0])}"?' if near else ""
    raise UnknownNameError(
        f'there is no backbone "{name}".{hint} Backbones are "{LECTURE}" and the models of '
        f"keras.applications: {', '.join(sorted(known.values()))}."
    )


def application_pixels(module: ModuleType) -> dict[str, Any]:
    """Arguments of `PixelNormalization` that do what the module's `preprocess_input` does.

    All of them are affine per channel, some with the channels reversed, so three colours tell.
    """
    black, red, white = (
        np.ravel(module.preprocess_input(np.full((1, 1, 1, 3), colour, "float64")))
        for colour in ((0, 0, 0), (255, 0, 0), (255, 255, 255))
    )
    std = 255 / (white - black)
    reverse = red[0] == black[0]
    return {
        "mean": list(-black * std),
        "std": list(std),
        "channel_order": "bgr" if reverse else "rgb",
    }


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _build_application(
    constructor: Callable[..., keras.Model], weights: str | None, inputs: Any
) -> Any:
    try:
        network = constructor(include_top=False, weights=weights, input_shape=inputs.shape[1:])
    except Exception as cause:
        if weights is not None:
            raise KVideoError(
                f"the ImageNet weights of {constructor.__name__} cannot be had ({cause}). "
                "They are downloaded at first use; is there a network?"
            ) from cause
        raise UsageError(f"backbone {constructor.__name__}: {cause}") from cause
    return inline(network, inputs)


def inline(network: keras.Model, inputs: Any) -> Any:
    """Lays the layers of a functional model on a Keras tensor, one by one, with their weights.

    The layers become those of the model that is being made, so they can be found and frozen by
    name. Names that Keras numbered by a counter of the process are numbered from the network's
    own beginning, so that they are the same every time.
    """
    counter: Counter[str] = Counter()

    def renamed(layer: Any) -> Any:
        config = layer.get_config()
        config["name"] = _stable_name(layer, counter)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(network, clone_function=renamed)
    copy.set_weights(network.get_weights())
    return copy.call(inputs)


def _stable_name(layer: Any, counter: Counter[str]) -> str:
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    base = re.sub(r"_\d+$", "", layer.name)
    if _plain(base) == _plain(kind):
        counter[base] += 1
        return f"backbone_{base}_{counter[base]}"
    return f"backbone_{layer.name}" if layer.name in _OUR_LAYERS else layer.name
