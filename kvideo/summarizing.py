"""`kvideo.summary`: a model by name or file, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvideo.choosing import choose_model
from kvideo.errors import UsageError
from kvideo.saving import load_plain_model

if TYPE_CHECKING:
    import keras

    from kvideo.analysis import ModelSummary


def summary(
    model: str | os.PathLike[str] | keras.Model,
    *,
    input_shape: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
) -> ModelSummary:
    """Sizes, parameters, multiply-adds and receptive fields of a model; like `kvideo summary`.

    Args:
        model: a registered model's name, a `.keras` file (also one of Keras's own), a run's folder,
            or a functional model.
        input_shape: (T, H, W, 3) of a registered model or one that leaves sizes open; None: what
            it is made for.
        options: further arguments of a registered model's builder.
        num_classes: of a registered model; None: 400.

    Returns:
        A `kvideo.analysis.ModelSummary`, whose `to_text()`, `to_markdown()`, `to_csv()` and
        `to_json()` show it.

    Raises:
        UsageError: an unknown name, or a model that cannot be analyzed.
        ModelFileError: the file cannot be loaded.
    """
    if not isinstance(model, str | os.PathLike):
        from kvideo.analysis import summarize
        from kvideo.saving import ModelInfo

        info = getattr(model, "kvideo_info", None)
        if not isinstance(info, ModelInfo):
            return summarize(model, input_shape)
        return summarize(model, input_shape, clip=info.clip_spec, views=info.views)
    plain = load_plain_model(model)
    if plain is not None:
        if options or num_classes is not None:
            raise UsageError(f"{model} is a file, whose options and classes are fixed.")
        return summary(plain, input_shape=input_shape)
    choice = choose_model(model, input_shape, options, num_classes, "what is summarized is")
    from kvideo.analysis import summarize
    from kvideo.clip_spec import recommended_clip, recommended_views
    from kvideo.registry import get_builder
    from kvideo.saving import model_info

    network = choice.load()
    if choice.file is not None:
        clip, views = model_info(network).clip_spec, model_info(network).views
    else:
        builder = get_builder(str(choice.name))
        clip, views = recommended_clip(builder, **choice.options), recommended_views(builder)
    return summarize(network, clip=clip, views=views)
