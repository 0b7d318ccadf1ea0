"""Named recipes: settings that go together, each a function that returns an `Experiment`.

`kvideo fit DATA --recipe NAME` takes one; options on the command line win over it, and the settings
that come out are in the run's `experiment.json`. In Python: `kvideo.recipes.finetune("data/",
weights="run/model.keras")` or `kvideo.fit("data/", recipe="finetune", …)`. A recipe of your own is
a function like these.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvideo.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from kvideo.training import Experiment


def quick(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """A first answer in minutes: a small single-frame network, ten epochs, one clip a video.

    How far single pictures get is worth knowing before anything else is tried (Karpathy et al.
    2014: most of what a network over time reaches).
    """
    return _experiment(
        data,
        overrides,
        model="single_frame",
        epochs=10,
        batch_size=8,
        learning_rate=0.003,
        val_clips=1,
    )


def scratch(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """From random weights on thousands of videos: long, with what keeps it from overfitting."""
    return _experiment(
        data,
        overrides,
        model="r2plus1d_18",
        epochs=100,
        batch_size=32,
        learning_rate=1e-3,
        lr_batch_size=32,
        weight_decay=0.05,
        warmup_epochs=5,
        label_smoothing=0.1,
        clip_norm=1.0,
        ema=0.999,
        min_area=0.3,
        jitter=0.4,
    )


def finetune(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """A trained network on new videos: small rates, the smaller the nearer to the input.

    Layer-wise decay and label smoothing as in BEiT's and VideoMAE's fine-tuning (Bao et al. 2022,
    Tong et al. 2022), with stages of a network for layers.
    """
    return _experiment(
        data,
        _with_weights("finetune", overrides),
        epochs=20,
        learning_rate=3e-4,
        lr_batch_size=16,
        layer_decay=0.6,
        weight_decay=0.05,
        warmup_epochs=2,
        label_smoothing=0.1,
        clip_norm=1.0,
    )


def probe(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """A fresh head on a trained network that stays as it is: cheap, and good for few videos."""
    return _experiment(
        data,
        _with_weights("probe", overrides),
        freeze="features",
        epochs=20,
        learning_rate=0.003,
        weight_decay=0.0,
    )


def thaw(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """A trained network on new videos, one stage more after every two epochs.

    Gradual unfreezing and smaller rates for early layers (Howard & Ruder 2018).
    """
    return _experiment(
        data,
        _with_weights("thaw", overrides),
        unfreeze_epochs=2,
        epochs=24,
        learning_rate=1e-3,
        lr_batch_size=16,
        layer_decay=0.5,
        weight_decay=0.05,
        label_smoothing=0.1,
        clip_norm=1.0,
    )


def kinetics_slowfast(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """SlowFast 8×8, ResNet-50, as it was trained on Kinetics, on eight GPUs or more.

    Momentum SGD, a rate of 0.1 for 64 clips in linear proportion, 196 epochs of half a cosine after
    34 of warm-up, dropout, precise batch norm (Feichtenhofer et al. 2019; the epochs and the batch
    norm as in the authors' code).
    """
    return _experiment(
        data,
        overrides,
        model="slowfast_8x8_r50",
        model_options={"dropout": 0.5},
        epochs=196,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.1,
        lr_batch_size=64,
        weight_decay=1e-4,
        warmup_epochs=34,
        precise_bn=200,
        crop="random",
        jitter=0.0,
    )


def large_batch(data: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """1,024 clips a step over many devices: LAMB, a long warm-up (You et al. 2020)."""
    return _experiment(
        data,
        overrides,
        model="slow_8x8_r50",
        epochs=100,
        batch_size=1024,
        optimizer="lamb",
        learning_rate=0.008,
        lr_batch_size=1024,
        weight_decay=0.02,
        warmup_epochs=10,
        label_smoothing=0.1,
    )


RECIPES: dict[str, Callable[..., Experiment]] = {
    function.__name__.replace("_", "-"): function
    for function in (quick, scratch, finetune, probe, thaw, kinetics_slowfast, large_batch)
}


def experiment(
    data: str | os.PathLike[str], recipe: str | None = None, **settings: Any
) -> Experiment:
    """The experiment of a recipe's name and of settings that win over it.

    Args:
        data: as in `Experiment`.
        recipe: one of `RECIPES`; None: only the settings.
        **settings: fields of `Experiment`.

    Raises:
        UnknownNameError: there is no such recipe; the message lists them.
        UsageError: a setting is out of its range, or the recipe lacks one.
    """
    if recipe is None:
        return _experiment(data, settings)
    name = recipe.replace("_", "-")
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise UnknownNameError(
            f'there is no recipe "{recipe}".{hint} The recipes are {", ".join(RECIPES)}.'
        )
    return RECIPES[name](data, **settings)


def _experiment(
    data: str | os.PathLike[str],
    overrides: dict[str, Any],
    model: str | None = None,
    model_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Experiment:
    """A recipe's settings and what was given besides; another model has its own arguments."""
    from kvideo.training import Experiment

    own = overrides.get("model") is not None or str(overrides.get("weights")).endswith(".keras")
    if not own and model is not None:
        given = overrides.get("model_options") or {}
        settings |= {"model": model}
        overrides = {**overrides, "model_options": {**(model_options or {}), **given}}
        overrides.pop("model", None)
    return Experiment(**{**settings, **overrides, "data": os.fspath(data)})


def _with_weights(recipe: str, overrides: dict[str, Any]) -> dict[str, Any]:
    if not overrides.get("weights"):
        raise UsageError(
            f'the recipe "{recipe}" begins with trained weights; name them, such as '
            '"run/model.keras" of a run, or with a model "kinetics400" or "imagenet" (--weights).'
        )
    return overrides
