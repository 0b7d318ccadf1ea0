"""Fine-tuning: another head, weights from another model, frozen layers."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import keras
import numpy as np

from kvideo.clip_spec import MODALITIES
from kvideo.errors import ModelFileError, UnknownNameError, UsageError
from kvideo.weights.cross_modality import cross_modality_kernel, is_cross_modality


def replace_head(model: keras.Model, num_classes: int, activation: str) -> keras.Model:
    """The same network with a fresh layer `logits` of another number of classes.

    All other weights are kept. The new layer is of the old one's class (Dense or a convolution).

    Args:
        model: a functional classifier.
        num_classes: of the new head.
        activation: `"softmax"` or `"sigmoid"`, for the layer `predictions`.

    Raises:
        UsageError: the model has no layer `logits`, or one that has neither units nor filters.
    """
    names = [layer.name for layer in model.layers]
    if "logits" not in names:
        raise UsageError(f'the model "{model.name}" has no layer "logits" to replace.')

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name == "logits":
            sized = next((key for key in ("units", "filters") if key in config), None)
            if sized is None:
                raise UsageError(f'the layer "logits" of "{model.name}" cannot change its size.')
            config[sized] = num_classes
        if layer.name == "predictions" and "activation" in config:
            config["activation"] = activation
        return layer.__class__.from_config(config)

    # Our own layers, too, are made anew: `clone_model` calls this for every layer.
    new = keras.models.clone_model(model, clone_function=clone)
    for old_layer, new_layer in zip(model.layers, new.layers, strict=True):
        if old_layer.name != "logits":
            new_layer.set_weights(old_layer.get_weights())
    return new


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What `copy_weights` did: names of variables."""

    copied: tuple[str, ...]
    fresh: tuple[str, ...]
    averaged: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = len(self.copied) + len(self.averaged) + len(self.fresh)
        text = f"{len(self.copied)} of {total} weights copied"
        if self.averaged:
            text += f"; as the mean over the colours: {', '.join(self.averaged)}"
        if self.fresh:
            shown = ", ".join(self.fresh[:4]) + (", …" if len(self.fresh) > 4 else "")
            text += f"; fresh: {shown}"
        return text + "."


def copy_weights(
    source: keras.Model, target: keras.Model, *, without: str | None = None
) -> Transfer:
    """Copies every weight whose layer's name, place in the layer, and shape agree.

    A network of flow takes the first kernel of one for RGB, too: its mean over the colours.

    Args:
        source: gives weights.
        target: takes them.
        without: a layer, also inside of a nested model, that keeps its own.

    Raises:
        ModelFileError: none agrees.
    """
    offered = {
        (layer.name, place): weight
        for layer in source.layers
        for place, weight in enumerate(layer.weights)
    }
    copied: list[str] = []
    fresh: list[str] = []
    averaged: list[str] = []
    clips = target.input["clip"] if isinstance(target.input, dict) else target.input
    of_flow = clips.shape[-1] == MODALITIES["flow"]
    for layer in target.layers:
        for place, weight in enumerate(layer.weights):
            other = offered.get((layer.name, place))
            if without is not None and without in weight.path.split("/"):
                other = None
            if other is not None and tuple(other.shape) == tuple(weight.shape):
                weight.assign(other)
                copied.append(weight.path)
            elif other is not None and of_flow and is_cross_modality(other.shape, weight.shape):
                kernel = cross_modality_kernel(np.asarray(other), weight.shape[-2])
                weight.assign(kernel)
                averaged.append(weight.path)
            else:
                fresh.append(weight.path)
    if not copied:
        raise ModelFileError(
            f'none of the weights of "{source.name}" fits the model "{target.name}".'
        )
    return Transfer(tuple(copied), tuple(fresh), tuple(averaged))


def freeze_up_to(model: keras.Model, name: str) -> int:
    """Freezes the layer of that name and all that come before it; returns how many.

    Frozen batch norms use their stored statistics.

    Raises:
        UnknownNameError: there is no such layer; the message suggests a near one.
    """
    names = [layer.name for layer in model.layers]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise UnknownNameError(f'the model "{model.name}" has no layer "{name}".{hint}')
    layers = model.layers[: names.index(name) + 1]
    for layer in layers:
        layer.trainable = False
    if not model.trainable_variables:
        raise UsageError(f'nothing is left to train when all layers up to "{name}" are frozen.')
    return len(layers)
