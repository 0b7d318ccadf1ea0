"""Published weights by name: `weights="kinetics400"` for every builder that has some."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from kvideo.clip_spec import ClipSpec, recommended_clip, recommended_views
from kvideo.errors import UsageError
from kvideo.registry import MODELS, entries
from kvideo.saving import BuilderInfo, ModelInfo
from kvideo.text import enumerate_words
from kvideo.weights.checkpoints import FORMS, checkpoint_kind
from kvideo.weights.download import fetch
from kvideo.weights.labels import published_class_names
from kvideo.weights.published import PUBLISHED, Published

Builder = TypeVar("Builder", bound=Callable[..., Any])


def with_published_weights(builder: Builder) -> Builder:
    """A builder that takes the names of its published weights too, if there are any.

    It downloads them once, and hands the file on to `builder`. A model whose last layer came with
    them knows the classes' names: it carries a `ModelInfo`, so that `kvideo.save_model(model,
    path)` makes a file that `kvideo predict` can use at once.
    """
    names = PUBLISHED.get(builder.__name__)
    if not names or not builder.__module__.startswith("kvideo.models."):
        return builder

    @functools.wraps(builder)
    def build(num_classes: int, *, weights: Any = None, **options: Any) -> keras.Model:
        published = find_published(builder.__name__, weights)
        if published is None:
            return builder(num_classes, weights=weights, **options)
        model = builder(num_classes, weights=download(published), **options)
        if model.output_shape[-1] == published.classes and published.labels:
            model.kvideo_info = _info(build, model, published, options)
        return model

    return build  # type: ignore[return-value]


def find_published(model: str, weights: Any) -> Published | None:
    """The published weights of that name; None where `weights` is a file or nothing.

    Args:
        model: a registered name.
        weights: what the user gave as `weights`.

    Raises:
        UsageError: it is a name, and of no published weights of the model.
    """
    names = PUBLISHED.get(model, {})
    if not isinstance(weights, str):
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


def clip_of(builder: Callable[..., Any], model: keras.Model, options: dict[str, Any]) -> ClipSpec:
    """The clip that a builder recommends, with the shape that the model takes."""
    spec = recommended_clip(builder, **options)
    frames, *size = model.input_shape[1:4]
    if (frames, *size) == (spec.num_frames, *spec.size):
        return spec
    return spec.replace(num_frames=frames, size=tuple(size), short_side=None)


def _info(
    builder: Callable[..., Any], model: keras.Model, published: Published, options: dict[str, Any]
) -> ModelInfo:
    entry = entries(MODELS)[builder.__name__]
    given = ("input_shape", "classifier_activation")
    kept = {name: value for name, value in options.items() if name not in given}
    return ModelInfo(
        clip_spec=clip_of(builder, model, kept),
        class_names=published_class_names(published.labels),
        views=recommended_views(builder),
        builder=BuilderInfo(entry.name, entry.value, entry.distribution, entry.version, kept),
    )
