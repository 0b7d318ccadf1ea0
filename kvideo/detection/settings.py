"""Which settings are a detector's, rather than an experiment's. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kvideo.errors import UsageError

if TYPE_CHECKING:
    from kvideo.training.experiment import Experiment

OF_MODEL = ("person_head", "filters", "context", "scene_attention", "dropout")
OF_DATA = ("classes", "excluded", "val_excluded")
OF_TRAINING = ("shift",)
# What an experiment may say of classifiers only, and its values that say nothing.
OF_CLASSIFIERS: dict[str, Any] = {
    "label_smoothing": 0.0, "focal_gamma": 0.0, "class_weights": "none", "sampling": "random",
    "distill": None, "mixup": 0.0, "cutmix": 0.0, "multigrid": False,
    "unfreeze_epochs": None, "data_service": None, "random_erasing": 0.0,
    "layer_decay": None, "remat": False, "bptt": None, "accumulate": 1, "quarantine": None,
}  # fmt: skip


def split_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the detector, and all others."""
    names = {*OF_MODEL, *OF_DATA, *OF_TRAINING}
    return (
        {name: value for name, value in given.items() if name in names},
        {name: value for name, value in given.items() if name not in names},
    )


def check_settings(experiment: Experiment) -> None:
    """Refuses what a detector has no use for.

    Raises:
        UsageError: such a setting is given, or an unknown one of the detector.
    """
    for name, default in OF_CLASSIFIERS.items():
        if getattr(experiment, name) != default:
            raise UsageError(f"{name} is for classifiers; a detector is trained without.")
    if unknown := sorted(set(experiment.detector or {}) - {*OF_MODEL, *OF_DATA, *OF_TRAINING}):
        raise UsageError(f"a detector has no setting {unknown[0]!r}.")
    for name in ("frozen_backbone", "output"):
        if experiment.model_options.get(name):
            raise UsageError(f"{name} is for classifiers; a detector is trained without.")
