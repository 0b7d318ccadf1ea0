"""Published weights by name: `weights="kinetics400"` for every builder that has some."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from kvideo.clip_spec import ClipSpec, modality_of, recommended_clip, recommended_views
from kvideo.errors import ModelFileError, UsageError
from kvideo.registry import MODELS, entries
from kvideo.saving import BuilderInfo, ModelInfo, read_info
from kvideo.text import enumerate_words
from kvideo.weights.checkpoints import FORMS, checkpoint_kind
from kvideo.weights.download import fetch
from kvideo.weights.families import Family
from kvideo.weights.labels import published_class_names
from kvideo.weights.loading import options_for
from kvideo.weights.published import PUBLISHED, Published

Builder = TypeVar("Builder", bound=Callable[..., Any])


def fit_to_weights(builder: Builder, family: Family | None) -> Builder:
    """A builder that takes the names of published weights, and is built as its weights need it.

    Published weights are downloaded once, and the file is handed on to `builder`. A model whose
    last layer came with them knows the classes' names: it carries a `ModelInfo`, so that
    `kvideo.save_model(model, path)` makes a file that `kvideo predict` can use at once.

    What a file says of the architecture (its widths, its publisher's normalization) is added to
    the builder's arguments, except those that are given.
    """
    if family is None:
        return builder
    ours = builder.__module__.startswith("kvideo.models.")

    @functools.wraps(builder)
    def build(num_classes: int, *, weights: Any = None, **options: Any) -> keras.Model:
        published = find_published(builder.__name__, weights) if ours else None
        if published is not None:
            weights = download(published)
        options = {**_needed_options(builder, weights, family), **options}
        model = builder(num_classes, weights=weights, **options)
        if published and published.labels and model.output_shape[-1] == published.classes:
            model.kvideo_info = _info(build, model, published, options)
        return model

    return build  # type: ignore[return-value]


def _needed_options(builder: Callable[..., Any], weights: Any, family: Family) -> dict[str, Any]:
    """Arguments that the file of weights asks for, if it is one that can be looked into."""
    if not isinstance(weights, str | os.PathLike):
        return {}
    kind = checkpoint_kind(weights)
    if kind == "keras":
        return _saved_options(builder, weights)
    if kind is None or not (kind == "tensorflow" or os.path.exists(weights)):
        return {}  # `check_weights` says what is wrong
    return options_for(weights, family)


def _saved_options(builder: Callable[..., Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """How the builder was called for the model in a file that kvideo saved."""
    try:
        info = read_info(path)
    except ModelFileError:  # another Keras file, or weights alone
        return {}
    if info.builder is None or info.builder.name != builder.__name__:
        return {}
    return {name: value for name, value in info.builder.options.items() if name != "weights"}


def find_published(model: str, weights: Any) -> Published | None:
    """The published weights of that name; None where `weights` is a file or nothing.

    Args:
        model: a registered name.
        weights: what the user gave as `weights`.

    Raises:
        UsageError: it is a name, and of no published weights of the model.
    """
    names = PUBLISHED.get(model, {})
    if not names or not isinstance(weights, str):
        return None
    if weights in names:
        return names[weights]
    if checkpoint_kind(weights) or os.path.exists(weights):
        return None
    known = enumerate_words([f'"{name}"' for name in names])
    raise UsageError(f"weights must be None, {known}, or {FORMS}, not {weights!r}.")


def download(published: Published) -> str:
    """The file, from Keras's cache or downloaded.

    Raises:
        DownloadError: it cannot be had.
    """
    return str(fetch(published.url, checksum=published.checksum))


def clip_of(spec: ClipSpec, shape: Sequence[int]) -> ClipSpec:
    """The clip that a builder recommends, changed to the shape (T, H, W, C) that a model takes."""
    frames, height, width, channels = shape
    spec = spec.replace(num_frames=frames, modality=modality_of(channels))
    if (height, width) == spec.size:
        return spec
    return spec.replace(size=(height, width), short_side=None)


def _info(
    builder: Callable[..., Any], model: keras.Model, published: Published, options: dict[str, Any]
) -> ModelInfo:
    entry = entries(MODELS)[builder.__name__]
    given = ("input_shape", "classifier_activation")
    kept = {name: value for name, value in options.items() if name not in given}
    return ModelInfo(
        clip_spec=clip_of(recommended_clip(builder, **kept), model.input_shape[1:]),
        class_names=published_class_names(published.labels),
        views=recommended_views(builder),
        builder=BuilderInfo(entry.name, entry.value, entry.distribution, entry.version, kept),
    )
